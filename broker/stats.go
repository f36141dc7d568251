package broker

import (
	"context"
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
	Unmatched  uint64           // of those taken: nobody was there for it
	Commit     histogram.Counts // from the store's getting a publish to its answer
	Waiting    int64            // receives that wait now

	Subscriptions int   // of clients, here or away
	Retained      int   // retained messages
	Sessions      int   // kept for clients, here or away
	Expired       int64 // sessions that ended because their client stayed away

	Overflowed uint64 // messages that full sessions let go, or did not take
	Outlived   uint64 // messages that expired while they waited in sessions
	Own        uint64 // messages that sessions did not take because they were their client's own

	Nodes NodeStats // live messages between this node and others
}

// counters is what Stats is read from.
type counters struct {
	taken, refused, duplicates, stored, unmatched, own atomic.Uint64

	overflowed, outlived atomic.Uint64 // in sessions
	commit               histogram.Histogram
}

// published counts the publishes of c, which has its outcomes.
func (n *counters) published(c *pending) {
	var refused, duplicates, stored, unmatched int
	for i := range c.publishes {
		switch p := &c.publishes[i]; {
		case p.outcome.Err != nil:
			refused++
		case p.outcome.Duplicate:
			duplicates++
		case p.op >= 0:
			stored++
		case p.outcome.Matched == (Matched{}):
			unmatched++
		}
	}
	add(&n.taken, len(c.publishes)-refused)
	add(&n.refused, refused)
	add(&n.duplicates, duplicates)
	add(&n.stored, stored)
	add(&n.unmatched, unmatched)
	add(&n.own, c.own)
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
	b.mu.RLock()
	fed := len(b.streams)
	for _, q := range b.queues {
		if q.config().Filter != "" {
			fed++
		}
	}
	b.mu.RUnlock()
	var nodes NodeStats
	if b.peers != nil {
		fed += b.peers.filtersHere()
		nodes = b.peers.stats.read()
	}
	return Stats{
		Subscriptions: max(0, b.tree.Len()-fed), Retained: b.retained.len(),
		Sessions: b.sessions.len(), Expired: b.sessions.expired.Load(),
		Published: n.taken.Load(), Refused: n.refused.Load(), Duplicates: n.duplicates.Load(), Stored: n.stored.Load(), Unmatched: n.unmatched.Load(),
		Commit: n.commit.Read(), Waiting: b.waiting.Load(),
		Overflowed: n.overflowed.Load(), Outlived: n.outlived.Load(), Own: n.own.Load(),
		Nodes: nodes,
	}
}

// Counters yields the counters by name, and the two gauges that EMQX has among
// its counters.
func (b *Broker) Counters(yield func(name string, n int64) bool) {
	n := b.Stats()
	delayed, err := b.DelayedCount(context.Background())
	if err != nil {
		delayed = 0 // the store has failed, as readiness says
	}
	for _, c := range []struct {
		name string
		n    int64
	}{
		{"messages.published", int64(n.Published)},
		{"messages.stored", int64(n.Stored)},
		{"messages.unmatched", int64(n.Unmatched)},
		{"messages.forwarded", int64(n.Nodes.Sent)},
		{"messages.retained", int64(b.RetainedCount())},
		{"messages.delayed", int64(delayed)},
		{"sessions.overflowed", int64(n.Overflowed)},
		{"sessions.expired", int64(n.Outlived)},
		{"sessions.own", int64(n.Own)},
	} {
		if !yield(c.name, c.n) {
			return
		}
	}
}
