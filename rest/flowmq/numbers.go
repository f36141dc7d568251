package flowmq

import (
	"strconv"
	"time"

	"millrace/rest/internal/httpx"
)

// maxSeconds keeps any number of seconds far from the end of time.Duration;
// what a setting allows is for the broker to say.
const maxSeconds = 1 << 32

// readWhole reads a whole number from low to high.
func readWhole(d *httpx.Decoder, low, high int64) (int64, error) {
	n, err := d.Int()
	switch {
	case err != nil:
		return 0, err
	case n < low:
		return 0, httpx.Problem("is %d, it must be at least %d", n, low)
	case n > high:
		return 0, httpx.Problem("is %d, it must be at most %d", n, high)
	}
	return n, nil
}

// readSeconds reads a time of whole seconds, 0 included.
func readSeconds(d *httpx.Decoder) (time.Duration, error) {
	n, err := readWhole(d, 0, maxSeconds)
	return time.Duration(n) * time.Second, err
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }
