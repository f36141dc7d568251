package local

import (
	"sync"
	"sync/atomic"

	"millrace/persistence/journal"
)

// live counts for each segment the bytes of the messages that queues still have
// in it, once for each queue. A segment with none is needed by no queue.
type live struct {
	mu    sync.Mutex // of growing and shrinking
	table atomic.Pointer[liveTable]

	full    atomic.Uint32 // segments up to this one are
	emptied func()        // called when nothing lives in a full one any more; must not block
}

// liveTable has the counts of the segments from base on. It is replaced, and
// the counts in it are shared with the one before.
type liveTable struct {
	base   uint32
	counts []*atomic.Int64
}

// at returns the count of a segment, or nil.
func (t *liveTable) at(segment uint32) *atomic.Int64 {
	if t == nil || segment < t.base || segment-t.base >= uint32(len(t.counts)) {
		return nil
	}
	return t.counts[segment-t.base]
}

// add counts n bytes at a position; n is negative when they are given up.
func (l *live) add(pos uint64, n int64) {
	segment := journal.Position(pos).Segment()
	c := l.table.Load().at(segment)
	if c == nil {
		c = l.grow(segment)
	}
	if c.Add(n) == 0 && segment <= l.full.Load() {
		l.emptied()
	}
}

// grow makes room for a segment.
func (l *live) grow(segment uint32) *atomic.Int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.table.Load()
	if c := old.at(segment); c != nil {
		return c
	}
	t := &liveTable{base: segment}
	if old != nil && len(old.counts) > 0 {
		t.base = min(segment, old.base)
	}
	end := segment + 1
	if old != nil {
		end = max(end, old.base+uint32(len(old.counts)))
	}
	for n := t.base; n < end; n++ {
		c := old.at(n)
		if c == nil {
			c = new(atomic.Int64)
		}
		t.counts = append(t.counts, c)
	}
	l.table.Store(t)
	return t.at(segment)
}

// of returns the bytes that live in a segment.
func (l *live) of(segment uint32) int64 {
	if c := l.table.Load().at(segment); c != nil {
		return c.Load()
	}
	return 0
}

// below returns the segments before one in which something lives.
func (l *live) below(segment uint32) map[uint32]bool {
	m := map[uint32]bool{}
	if t := l.table.Load(); t != nil {
		for i, c := range t.counts {
			if n := t.base + uint32(i); n < segment && c.Load() > 0 {
				m[n] = true
			}
		}
	}
	return m
}

// forget drops the counts before a segment, which are all 0.
func (l *live) forget(before uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.table.Load()
	if old == nil || before <= old.base {
		return
	}
	n := min(before-old.base, uint32(len(old.counts)))
	l.table.Store(&liveTable{base: old.base + n, counts: old.counts[n:]})
}
