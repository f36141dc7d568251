package broker

import (
	"sync/atomic"
	"time"

	"millrace/broker/histogram"
)

// Stats are the counters of a Broker since it started, read one by one and
// therefore not of one instant. A batch of publishes counts each.
type Stats struct {
	Published  uint64           // taken, also without a match or as a duplicate
	Refused    uint64           // by a limit, a right, a full queue, or the store
	Duplicates uint64           // of those taken
	Stored     uint64           // of those taken: something durable matched
	Commit     histogram.Counts // from the store's getting a publish to its answer
	Waiting    int64            // receives that wait now
}

// counters is what Stats is read from.
type counters struct {
	taken, refused, duplicates, stored atomic.Uint64
	commit                             histogram.Histogram
}

// published counts the publishes of c, which has its outcomes.
func (n *counters) published(c *pending) {
	var refused, duplicates, stored int
	for i := range c.publishes {
		switch p := &c.publishes[i]; {
		case p.outcome.Err != nil:
			refused++
		case p.outcome.Duplicate:
			duplicates++
		case p.op >= 0:
			stored++
		}
	}
	add(&n.taken, len(c.publishes)-refused)
	add(&n.refused, refused)
	add(&n.duplicates, duplicates)
	add(&n.stored, stored)
	if !c.began.IsZero() {
		n.commit.Observe(time.Since(c.began), stored)
	}
}

func add(to *atomic.Uint64, n int) {
	if n > 0 {
		to.Add(uint64(n))
	}
}

// Stats returns the counters as they are now.
func (b *Broker) Stats() Stats {
	n := &b.stats
	return Stats{
		Published: n.taken.Load(), Refused: n.refused.Load(), Duplicates: n.duplicates.Load(), Stored: n.stored.Load(),
		Commit: n.commit.Read(), Waiting: b.waiting.Load(),
	}
}
