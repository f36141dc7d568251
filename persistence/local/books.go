package local

import (
	"errors"
	"fmt"
)

// Check verifies what the store knows about itself: that for each queue what
// came in is there or went out for a reason, and that index, heaps and counters
// agree. It looks at every message, and may be called while the store works.
func (s *Store) Check() error {
	var errs []error
	for _, t := range s.all() {
		if t.q != nil {
			if err := t.q.check(); err != nil {
				errs = append(errs, fmt.Errorf("queue %q: %w", t.q.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// tally is what check counts anew.
type tally struct {
	count, bytes, payload [states]int64
	unshown               int64
	slots                 int
	expiring              int
	living                map[uint64]int // nodes in the heaps, by sequence
}

// check verifies one queue.
func (q *queue) check() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := tally{living: map[uint64]int{}}
	for _, h := range [...]*heap{&q.ready, &q.delayed, &q.leases, &q.dead} {
		live := 0
		for i := range h.nodes {
			if s := &q.slots.all[h.nodes[i].slot]; s.version == h.nodes[i].version {
				n.living[s.seq]++
				live++
			}
		}
		if live != h.live {
			return fmt.Errorf("a heap has %d living nodes and counts %d", live, h.live)
		}
	}
	var end uint64
	for c := range q.allChunks() {
		if c.base < end {
			return fmt.Errorf("chunk at %d begins before %d", c.base, end)
		}
		end = c.end()
		if err := q.checkChunk(c, &n); err != nil {
			return err
		}
	}
	total, out := int64(0), uint64(0)
	for s := waiting; s < states; s++ {
		total += n.count[s]
	}
	for _, o := range q.out {
		out += o
	}
	n.count[gone], n.bytes[gone], n.payload[gone] = 0, 0, 0
	switch {
	case q.in != uint64(total)+out:
		return fmt.Errorf("%d came in, %d are here and %d went out", q.in, total, out)
	case n.count != q.count:
		return fmt.Errorf("states are %v and counted as %v", n.count, q.count)
	case n.bytes != q.bytes:
		return fmt.Errorf("bytes are %v and counted as %v", n.bytes, q.bytes)
	case n.payload != q.payload:
		return fmt.Errorf("payloads are %v and counted as %v", n.payload, q.payload)
	case n.unshown != q.unshown:
		return fmt.Errorf("%d messages are not committed, counted %d", n.unshown, q.unshown)
	case n.slots != q.slots.used:
		return fmt.Errorf("%d slots are used, counted %d", n.slots, q.slots.used)
	case n.expiring != q.expiries.live:
		return fmt.Errorf("%d messages expire, counted %d", n.expiring, q.expiries.live)
	}
	return nil
}

// checkChunk verifies the entries of one chunk and adds them to n.
func (q *queue) checkChunk(c *chunk, n *tally) error {
	live := 0
	for i := range c.entries {
		e, seq := &c.entries[i], c.base+uint64(i)
		st := e.state()
		n.count[st]++
		n.bytes[st] += int64(e.size)
		n.payload[st] += e.payload()
		if st == gone {
			if e.slot != 0 || c.bodies != nil && c.bodies[i] != nil {
				return fmt.Errorf("message %d is gone and holds memory", seq)
			}
			continue
		}
		live++
		if seq >= q.shown {
			n.unshown++
		}
		if e.has(metaExpires) {
			n.expiring++
		}
		if c.bodies != nil && c.bodies[i] == nil {
			return fmt.Errorf("message %d has no body", seq)
		}
		if st == waiting && seq < q.cursor {
			return fmt.Errorf("message %d waits behind the cursor", seq)
		}
		if e.slot != 0 {
			n.slots++
			if got := q.slots.all[e.slot-1].seq; got != seq {
				return fmt.Errorf("message %d has the slot of %d", seq, got)
			}
		}
		if want := q.heapOf(st); want != nil && n.living[seq] != 1 || want == nil && n.living[seq] != 0 {
			return fmt.Errorf("message %d in state %d has %d nodes in the heaps", seq, st, n.living[seq])
		}
	}
	if live != c.live {
		return fmt.Errorf("chunk at %d has %d messages and counts %d", c.base, live, c.live)
	}
	return nil
}
