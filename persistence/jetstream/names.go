package jetstream

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"millrace/broker"
)

// longestKey is how long an encoded key may be in a subject: NATS takes lines
// of 4 KiB. A longer one is hashed, and stands in a header.
const longestKey = 2000

// names makes the names of streams and subjects under a prefix.
type names struct{ prefix string }

func (n names) queueStream(t broker.Target) string {
	return fmt.Sprintf("%s_q_%d", n.prefix, t)
}

func (n names) queueSubject(t broker.Target) string {
	return fmt.Sprintf("%s.q.%d.m", n.prefix, t)
}

func (n names) partitionStream(t broker.Target, p uint32) string {
	return fmt.Sprintf("%s_s_%d_%d", n.prefix, t, p)
}

func (n names) partitionSubject(t broker.Target, p uint32) string {
	return fmt.Sprintf("%s.s.%d.%d", n.prefix, t, p)
}

// Streams that all queues share: what is delayed, and what is dead.
func (n names) delayStream() string { return n.prefix + "_delay" }
func (n names) deadStream() string  { return n.prefix + "_dead" }

// The log of sessions.
func (n names) logStream() string  { return n.prefix + "_log" }
func (n names) logSubject() string { return n.prefix + ".l" }

// scheduledSubject holds one delayed message of a queue, dueSubject those whose
// time has come.
func (n names) scheduledSubject(t broker.Target, id broker.ID) string {
	return fmt.Sprintf("%s.d.s.%d.%s", n.prefix, t, hex.EncodeToString(id[:]))
}

func (n names) scheduledOf(t broker.Target) string { return fmt.Sprintf("%s.d.s.%d.>", n.prefix, t) }

func (n names) dueSubject(t broker.Target) string { return fmt.Sprintf("%s.d.due.%d", n.prefix, t) }
func (n names) dueAll() string                    { return n.prefix + ".d.due.*" }

func (n names) deadSubject(t broker.Target, seq uint64) string {
	return fmt.Sprintf("%s.x.%d.%d", n.prefix, t, seq)
}

func (n names) deadOf(t broker.Target) string { return fmt.Sprintf("%s.x.%d.>", n.prefix, t) }

// targetOf returns the target that stands in a subject at a level.
func targetOf(subject string, level int) broker.Target {
	levels := strings.Split(subject, ".")
	if len(levels) <= level {
		return 0
	}
	t, _ := strconv.ParseUint(levels[level], 10, 64)
	return broker.Target(t)
}

// bucket names the keys of one kind; what holds them is a NATS key/value bucket.
func (n names) bucket(kind string) string        { return n.prefix + "_" + kind }
func (n names) bucketStream(kind string) string  { return "KV_" + n.bucket(kind) }
func (n names) bucketSubject(kind string) string { return "$KV." + n.bucket(kind) + "." }

// plain reports whether c stands for itself in an encoded key.
func plain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-'
}

// encodeKey returns key as one level of a subject: what is not plain as =XX, an
// empty one as a lone =, and one that would be too long as its hash.
func encodeKey(key string) (encoded string, hashed bool) {
	if key == "" {
		return "=", false
	}
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	if b.Len() > longestKey {
		h := sha256.Sum256([]byte(key))
		return "=h" + hex.EncodeToString(h[:]), true
	}
	return b.String(), false
}

// decodeKey is the reverse of encodeKey for a key that is not hashed.
func decodeKey(encoded string) (string, error) {
	if encoded == "=" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(encoded); i++ {
		if encoded[i] != '=' {
			b.WriteByte(encoded[i])
			continue
		}
		if i+2 >= len(encoded) {
			return "", fmt.Errorf("key %q ends within an escape", encoded)
		}
		c, err := strconv.ParseUint(encoded[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("key %q: %w", encoded, err)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}
