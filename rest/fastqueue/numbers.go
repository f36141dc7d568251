package fastqueue

import (
	"strconv"
	"time"

	"millrace/rest/internal/httpx"
)

// readWhole reads a whole number from low to high; null is none, and leaves what is there.
func readWhole(d *httpx.Decoder, into *int64, low, high int64) error {
	if d.Null() {
		return nil
	}
	n, err := d.Int()
	switch {
	case err != nil:
		return err
	case n < low:
		return httpx.Problem("is %d, it must be at least %d", n, low)
	case n > high:
		return httpx.Problem("is %d, it must be at most %d", n, high)
	}
	*into = n
	return nil
}

// readSeconds reads a time of whole seconds up to limit.
func readSeconds(d *httpx.Decoder, into *time.Duration, limit time.Duration) error {
	n := int64(*into / time.Second)
	if d.Null() {
		return nil
	}
	err := readWhole(d, &n, 0, int64(limit/time.Second))
	if err == nil {
		*into = time.Duration(n) * time.Second
	}
	return err
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }
