package flowmq

import (
	"encoding/binary"
	"strings"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

const maxKey = 128

// idempotencyKey reads the header, whose value may be quoted, as the draft
// of the IETF writes it, or not.
func idempotencyKey(r *httpx.Request) (string, error) {
	v := r.Header["Idempotency-Key"]
	if len(v) == 0 {
		return "", nil
	}
	key := v[0]
	if len(key) > 1 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if len(v) > 1 || checkKey(key) != nil {
		return "", httpx.FieldError("Idempotency-Key", "must be one header of 1 to %d characters", maxKey)
	}
	return key, nil
}

func checkKey(key string) error {
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return httpx.Problem("must have 1 to %d characters and no control characters", maxKey)
	}
	return nil
}

// deduplicate sets the scope of a key: who sent it, and to which topic.
func deduplicate(r *httpx.Request, m *broker.Message, key string, hash uint64) {
	m.DedupKey = auth.From(r.Context()).String() + "\x00" + m.Topic + "\x00" + key
	m.BodyHash = hash
}

// FNV-1a: it only has to tell a repeat from a mistake of the same client.
const hashSeed = 0xcbf29ce484222325

func hashBytes[T string | []byte](h uint64, s T) uint64 {
	const prime = 0x100000001b3
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(s)))
	for _, c := range length {
		h = (h ^ uint64(c)) * prime
	}
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}

// hashMessage covers all that a producer chose.
func hashMessage(m *broker.Message) uint64 {
	h := hashBytes(uint64(hashSeed), m.Payload)
	h = hashBytes(h, m.ContentType)
	h = hashBytes(h, m.Key)
	for _, p := range m.Properties {
		h = hashBytes(hashBytes(h, p.Name), p.Value)
	}
	flags := []byte{m.QoS, 0}
	if m.Retain {
		flags[1] = 1
	}
	return hashBytes(h, flags)
}
