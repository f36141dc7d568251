package flowmq

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

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

// entryKeys makes the key of each entry of a batch from the batch's own, of
// one length whatever the client chose.
func entryKeys(batch string) func(i int) string {
	if batch == "" {
		return func(int) string { return "" }
	}
	h := sha256.Sum256([]byte(batch))
	prefix := hex.EncodeToString(h[:16]) + "#"
	return func(i int) string { return prefix + strconv.Itoa(i) }
}
