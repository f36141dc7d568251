package histogram_test

import (
	"testing"
	"time"

	"millrace/broker/histogram"
)

func TestBucketsAreCumulativeAndHoldTheirBound(t *testing.T) {
	var h histogram.Histogram
	h.Observe(100*time.Microsecond, 2) // at the bound: inside
	h.Observe(100*time.Microsecond+1, 1)
	h.Observe(2*time.Minute, 3) // beyond the last bound: in the count only
	c := h.Read()
	if c.Count != 6 || c.Buckets[0.0001] != 2 || c.Buckets[0.00025] != 3 || c.Buckets[60] != 3 {
		t.Errorf("counts are %+v", c)
	}
	if want := (3*100*time.Microsecond + 1 + 3*2*time.Minute).Seconds(); c.Seconds != want {
		t.Errorf("the sum is %v s, want %v", c.Seconds, want)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	var h histogram.Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h histogram.Histogram
	for b.Loop() {
		h.Observe(300*time.Microsecond, 1)
	}
}
