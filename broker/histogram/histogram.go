// Package histogram counts how long things took, for the metrics of whoever
// has something to time. It knows no format of metrics.
package histogram

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of the buckets. The first hold what a fast disk
// syncs in, the last a long poll.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute,
}

// Histogram counts durations. Its zero value is empty and ready; all methods
// may be called from any goroutine, and none allocates but Read.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Int64
}

// Observe counts n things that took d each.
func (h *Histogram) Observe(d time.Duration, n int) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(uint64(n))
	h.sum.Add(int64(d) * int64(n))
}

// Counts is a Histogram as it was read, bucket by bucket and therefore not of
// one instant.
type Counts struct {
	Count   uint64             // of all
	Seconds float64            // in total
	Buckets map[float64]uint64 // how many took at most so many seconds
}

// Read returns the counts as they are now.
func (h *Histogram) Read() Counts {
	c := Counts{Seconds: time.Duration(h.sum.Load()).Seconds(), Buckets: make(map[float64]uint64, len(bounds))}
	for i := range h.buckets {
		c.Count += h.buckets[i].Load()
		if i < len(bounds) {
			c.Buckets[bounds[i].Seconds()] = c.Count
		}
	}
	return c
}
