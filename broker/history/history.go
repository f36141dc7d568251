// Package history keeps what the broker did lately: a sample each second for
// ten minutes, and one for each ten seconds for six hours. It lives in memory
// and begins anew with the process.
package history

import (
	"sync"
	"time"
)

// How often samples are taken and how long they stay.
const (
	Fine       = time.Second
	FineKept   = 10 * time.Minute
	Coarse     = 10 * time.Second
	CoarseKept = 6 * time.Hour
)

// Totals only grow.
type Totals struct {
	Received  int64 // messages that clients and services published
	Sent      int64 // messages delivered to subscribers
	Dropped   int64 // messages that did not go on, for any reason
	Persisted int64 // messages that went to the store
}

// minus is what was added since o.
func (t Totals) minus(o Totals) Totals {
	return Totals{t.Received - o.Received, t.Sent - o.Sent, t.Dropped - o.Dropped, t.Persisted - o.Persisted}
}

// Gauges go up and down.
type Gauges struct {
	Sessions, Connections  int // all clients; those that are connected
	Subscriptions, Shared  int
	Topics                 int // filters that have subscribers
	Retained, Delayed      int
	QueueReady, QueueInUse int64
}

// Reading is one look at the broker.
type Reading struct {
	Totals
	Gauges
}

// Sample is what happened in one interval, with the gauges at its end.
type Sample struct {
	At time.Time // the end of the interval
	Reading
}

// History takes samples until Close.
type History struct {
	read func() Reading
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	last   Totals // at the end of the newest fine sample
	before Totals // and of the newest coarse one
	fine   ring
	coarse ring
}

// Start begins to take samples. read is called once a second, by one goroutine.
func Start(read func() Reading) *History {
	h := &History{
		read: read, stop: make(chan struct{}),
		fine: newRing(int(FineKept / Fine)), coarse: newRing(int(CoarseKept / Coarse)),
	}
	now := read()
	h.last, h.before = now.Totals, now.Totals
	h.done.Go(h.run)
	return h
}

// Close ends it.
func (h *History) Close() {
	close(h.stop)
	h.done.Wait()
}

func (h *History) run() {
	tick := time.NewTicker(Fine)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-h.stop:
			return
		case at := <-tick.C:
			h.take(at, n%int(Coarse/Fine) == 0)
		}
	}
}

func (h *History) take(at time.Time, coarse bool) {
	r := h.read()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fine.add(Sample{at, Reading{r.minus(h.last), r.Gauges}})
	h.last = r.Totals
	if coarse {
		h.coarse.add(Sample{at, Reading{r.minus(h.before), r.Gauges}})
		h.before = r.Totals
	}
}

// Seconds returns the fine samples that ended after since, oldest first.
func (h *History) Seconds(since time.Time) []Sample { return h.samples(&h.fine, since) }

// Tens returns the coarse samples that ended after since, oldest first.
func (h *History) Tens(since time.Time) []Sample { return h.samples(&h.coarse, since) }

func (h *History) samples(r *ring, since time.Time) []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.after(since)
}

// Latest returns the newest fine sample; the zero Sample in the first second.
func (h *History) Latest() Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fine.newest()
}

// Clear forgets all samples.
func (h *History) Clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fine, h.coarse = newRing(len(h.fine.at)), newRing(len(h.coarse.at))
}

// ring keeps the newest samples.
type ring struct {
	at   []Sample
	next int // where the next one goes
	n    int
}

func newRing(size int) ring { return ring{at: make([]Sample, size)} }

func (r *ring) add(s Sample) {
	r.at[r.next] = s
	r.next = (r.next + 1) % len(r.at)
	r.n = min(r.n+1, len(r.at))
}

func (r *ring) newest() Sample {
	if r.n == 0 {
		return Sample{}
	}
	return r.at[(r.next+len(r.at)-1)%len(r.at)]
}

func (r *ring) after(since time.Time) []Sample {
	out := make([]Sample, 0, r.n)
	for i := range r.n {
		if s := r.at[(r.next+len(r.at)-r.n+i)%len(r.at)]; s.At.After(since) {
			out = append(out, s)
		}
	}
	return out
}
