package local

import "math"

// part is what a filter selects of a queue: the sequences of those that were
// ready when they were listed. One that another consumer took meanwhile is
// passed over when it comes up, so that a message costs a part eight bytes and
// those of other topics nothing.
type part struct {
	filter    string
	next      uint64   // messages before it were looked at, and no other is listed
	fresh     []uint64 // in state waiting when listed, in order;
	head      int      // from there on
	kept      int      // of them when those that went were taken out last
	back      byPlace  // those that came back
	waits     waitLine
	turn      uint64 // which of its waits it was roused for
	roused    bool
	used      bool // since the last tidy
	forgotten bool
}

// complete is part.next of one that has all its messages.
const complete = math.MaxUint64

// offer lists an entry in state waiting.
func (p *part) offer(q *queue, seq uint64) {
	if len(p.fresh)-p.head > 2*p.kept+1024 || p.head > 1024 && p.head > len(p.fresh)/2 {
		kept := p.fresh[:0]
		for _, s := range p.fresh[p.head:] {
			if c, i := q.chunks.find(s); c != nil && c.entries[i].state() == waiting {
				kept = append(kept, s)
			}
		}
		p.fresh, p.head, p.kept = kept, 0, len(kept)
	}
	p.fresh = append(p.fresh, seq)
}

// comeBack lists an entry in state returned, which is in queue.ready.
func (p *part) comeBack(q *queue, seq uint64, slot uint32) {
	s := &q.slots.all[slot]
	p.back.add(&q.slots, node{key: s.place, rank: s.rank, seq: seq, slot: slot, version: s.version})
}

// front returns the first entry that was never handed out, or nil.
func (p *part) front(q *queue) (*chunk, int) {
	for ; p.head < len(p.fresh); p.head++ {
		if c, i := q.chunks.find(p.fresh[p.head]); c != nil && c.entries[i].state() == waiting {
			return c, i
		}
	}
	p.fresh, p.head = p.fresh[:0], 0
	if cap(p.fresh) > 4096 {
		p.fresh, p.kept = nil, 0
	}
	return nil, 0
}

// candidate returns the ready entry before limit with the first place, or nil.
func (p *part) candidate(q *queue, limit uint64) (*chunk, int) {
	c, i := p.front(q)
	if c != nil && c.base+uint64(i) >= limit {
		c = nil
	}
	// What is to be looked at may belong before one that came back to a later place.
	if n := p.back.top(&q.slots); n != nil && n.seq < limit && n.key/2 < p.next && (c == nil || n.key < 2*(c.base+uint64(i))) {
		return q.chunks.find(n.seq)
	}
	return c, i
}

// dry reports whether there is nothing for those who wait.
func (p *part) dry(q *queue) bool {
	c, _ := p.front(q)
	return c == nil && p.back.top(&q.slots) == nil
}

// byPlace is a heap whose elements are also in another one, which says when
// they are stale.
type byPlace struct {
	heap
	kept int // when it was swept last
}

func (h *byPlace) add(ss *slots, n node) {
	if len(h.nodes) > 2*h.kept+64 {
		h.sweep(ss)
		h.kept = len(h.nodes)
	}
	h.insert(n)
}

// roused are the parts that have something for those who wait for it, in order
// of their first wait.
type roused []*part

// add adds p if somebody waits for it.
func (r *roused) add(p *part) {
	if p.roused || p.waits.first == nil {
		return
	}
	p.roused, p.turn = true, p.waits.first.arrival
	*r = append(*r, p)
	h := *r
	for i := len(h) - 1; i > 0 && h[i].turn < h[(i-1)/2].turn; i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
}

// first returns the part whose wait came first, or nil.
func (r *roused) first() *part {
	for len(*r) > 0 {
		p := (*r)[0]
		if p.waits.first != nil && p.waits.first.arrival == p.turn {
			return p
		}
		r.drop() // that wait has ended
		r.add(p)
	}
	return nil
}

// drop takes out the first one.
func (r *roused) drop() {
	h := *r
	h[0].roused = false
	last := len(h) - 1
	h[0], h[last] = h[last], nil
	h = h[:last]
	*r = h
	for i := 0; ; {
		c := 2*i + 1
		if c+1 < len(h) && h[c+1].turn < h[c].turn {
			c++
		}
		if c >= len(h) || h[i].turn <= h[c].turn {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
