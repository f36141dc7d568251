package local

import (
	"math"
	"slices"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
	"millrace/persistence/ref"
)

// How a subscription stands in a checkpoint. Unlike a queue it is of one moment,
// which the position names: records before it must not be replayed, for what one
// of before a seek says does not hold after it.
//
//	subscription  target, position, in, n, n × out,
//	              n, n × (next offset, seeks u8), n × slot (as of a queue)

// captureSubscription writes a subscription. The append lock is held for as long
// as it takes to look at what is in flight.
func (s *Store) captureSubscription(w *ckptWriter, q *queue) {
	if s.wal.Lock() != nil {
		return // the store ends, and with it the checkpoint
	}
	begin := time.Now()
	asof := s.journal.State().End
	b := w.begin(secSubs)
	q.mu.Lock()
	if q.dropped {
		asof = math.MaxUint64 // the log says so before long
	}
	b = fields.AppendUints(b, uint64(q.id), uint64(asof), q.in, uint64(broker.Reasons))
	b = fields.AppendUints(b, q.out[:]...)
	b = fields.AppendUints(b, uint64(len(q.source.lanes)))
	for i := range q.source.lanes {
		ln := &q.source.lanes[i]
		b = append(fields.AppendUints(b, ln.next), ln.gen)
	}
	for c := range q.allChunks() {
		for i := range c.entries {
			if e := &c.entries[i]; e.state() != gone {
				b = q.slotOf(c, i).append(b, e)
			}
		}
	}
	q.mu.Unlock()
	s.wal.Unlock(journal.Lazy, nil)
	w.pause = max(w.pause, time.Since(begin))
	w.end(b)
}

// restoreSubscription reads a subscription.
func (s *Store) restoreSubscription(f *fields.Reader) error {
	q := s.targets[broker.Target(f.Uint())].q
	if q == nil || q.volatile || q.source == nil {
		return errRecord
	}
	src := q.source
	src.asof, q.in = journal.Position(f.Uint()), f.Uint()
	n := f.Uint()
	if n > uint64(broker.Reasons) {
		return errRecord
	}
	for i := range n {
		q.out[i] = f.Uint()
	}
	src.lanes = nil
	for n := f.Uint(); n > 0 && !f.Bad; n-- {
		src.lanes = append(src.lanes, lane{next: f.Uint(), gen: f.Byte()})
	}
	for len(f.Rest) > 0 && !f.Bad {
		sl, st, late, why, err := readSlot(f)
		if err != nil {
			return err
		}
		o := ref.Offset(sl.seq)
		if int(o.Partition) >= len(src.lanes) || o.Offset >= src.lanes[o.Partition].next {
			return errRecord
		}
		if !src.lanes[o.Partition].chunks.extend(sl.seq) {
			return errRecord
		}
		q.count[waiting]++
		q.restoreSlot(&sl, st, late, why)
	}
	if f.Bad {
		return errRecord
	}
	return nil
}

// gapMost is how many entries that are gone a restored chunk has in a row.
const gapMost = 64

// extend adds an entry that waits for each sequence, in order, and reports
// whether it is.
func (cs *chunks) extend(seq uint64) bool {
	var c *chunk
	if n := len(cs.list); n > 0 {
		c = cs.list[n-1]
		if seq < c.end() {
			return false
		}
	}
	if c == nil || seq-c.end() > gapMost || int(seq-c.base) >= chunkMax {
		c = &chunk{base: seq, entries: make([]entry, 0, chunkMin)}
		cs.list = append(cs.list, c)
	}
	c.entries = slices.Grow(c.entries, int(seq-c.end())+1)
	for c.end() < seq {
		c.entries = append(c.entries, entry{})
	}
	c.entries = append(c.entries, entry{meta: uint32(waiting)})
	c.live++
	return true
}
