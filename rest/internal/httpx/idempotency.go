package httpx

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// maxKey is the longest idempotency key, in bytes.
const maxKey = 128

// IdempotencyKey reads the header, whose value may be quoted, as the draft
// of the IETF writes it, or not.
func (r *Request) IdempotencyKey() (string, error) {
	v := r.Header["Idempotency-Key"]
	if len(v) == 0 {
		return "", nil
	}
	key := v[0]
	if len(key) > 1 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if len(v) > 1 || CheckKey(key) != nil {
		return "", FieldError("Idempotency-Key", "must be one header of 1 to %d characters", maxKey)
	}
	return key, nil
}

// AttemptID reads the header that names a receive, so that it can be repeated
// after its answer was lost on the wire: while its leases run, the same messages
// and receipts.
func (r *Request) AttemptID() string { return r.Header.Get("Receive-Attempt-Id") }

// CheckKey reports what is wrong with an idempotency key.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return problem("must have 1 to %d characters and no control characters", maxKey)
	}
	return nil
}

// EntryKeys makes the key of each entry of a batch from the batch's own, of
// one length whatever the client chose.
func EntryKeys(batch string) func(i int) string {
	if batch == "" {
		return func(int) string { return "" }
	}
	h := sha256.Sum256([]byte(batch))
	prefix := hex.EncodeToString(h[:16]) + "#"
	return func(i int) string { return prefix + strconv.Itoa(i) }
}
