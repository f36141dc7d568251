package local

import (
	"math"

	"millrace/broker"
	"millrace/broker/fields"
)

// seqRun is a run of sequences of one queue.
type seqRun struct{ first, n uint64 }

// purged reports whether a purge takes messages in state s.
func purged(s state, all bool) bool {
	switch s {
	case waiting, returned, delayed, blocked:
		return true
	case leased, dead:
		return all
	default: // gone, or the broker's to settle
		return false
	}
}

// purgeBound returns how many bytes the runs of a purge take at most. Messages
// may be leased between this and purgeRuns, which splits runs: there is room
// for as many more of them as can be handed out in that time.
func (q *queue) purgeBound(all bool) (size, limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	runs := 0
	in := false
	for _, c := range q.chunks.list {
		for i := range c.entries {
			take := purged(c.entries[i].state(), all)
			if take && !in {
				runs++
			}
			in = take
		}
	}
	limit = 2*runs + purgeSlack
	return 20 * limit, limit
}

// purgeSlack is the room for runs that appear between purgeBound and purgeRuns.
const purgeSlack = 1024

// purgeRuns appends the runs of messages that a purge removes, limit at most.
func (q *queue) purgeRuns(runs []seqRun, all bool, limit int) []seqRun {
	for _, c := range q.chunks.list {
		for i := range c.entries {
			if !purged(c.entries[i].state(), all) {
				continue
			}
			seq := c.base + uint64(i)
			if n := len(runs); n > 0 && runs[n-1].first+runs[n-1].n == seq {
				runs[n-1].n++
			} else if n == limit {
				return runs // in practice never: see purgeSlack
			} else {
				runs = append(runs, seqRun{first: seq, n: 1})
			}
		}
	}
	return runs
}

// purge removes what checkPurge found.
func (u *unit) purge(q *queue) {
	if len(u.ranges) == 0 {
		return
	}
	if !q.volatile {
		b := append(fields.AppendUints(u.record(recSettle), uint64(q.id)), byte(broker.ReasonPurged))
		for _, r := range u.ranges {
			b = fields.AppendUints(b, r.first, r.n)
		}
		u.end(b)
	}
	for _, r := range u.ranges {
		u.res.Count += q.settleRun(r, broker.ReasonPurged)
	}
	u.changed(q)
}

// settleRun removes the messages of a run that are there.
func (q *queue) settleRun(r seqRun, why broker.Reason) int {
	if q.source != nil {
		if r = q.reached(r); r.n == 0 {
			return 0
		}
	}
	return q.removeRun(q.chunksOf(r.first), r.first, r.first+min(r.n, math.MaxUint64-r.first), why)
}

// removeRun removes what is there from a sequence up to another one.
func (q *queue) removeRun(cs *chunks, first, end uint64, why broker.Reason) (n int) {
	for c := cs.from(first); c != nil && c.base < end; {
		after := c.end()
		for i := int(max(first, c.base) - c.base); i < len(c.entries) && c.base+uint64(i) < end; i++ {
			if c.entries[i].state() != gone {
				q.remove(c, i, why)
				n++
			}
		}
		c = cs.from(after)
	}
	return n
}
