package local

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
)

// How a queue stands in a checkpoint. Everything in it is named by sequence;
// where the messages lie is in the hints of their segments.
//
//	queue  target, next sequence, clock, in, n, n × out, chunks
//	chunk  gap from the end of the chunk before, n, time (zigzag, relative),
//	       how many are there; if that is less than n, a bitmap of n bits
//	slots  (target, n, n × slot), again and again
//	slot   sequence, flags u8 (state, and 0x80: published with a delay),
//	       reason u8, attempt, place, rank, until, expiry
const slotDelayed = 0x80

// slotsAtOnce bounds how long a queue waits for its checkpoint.
const slotsAtOnce = 4096

// capture writes the queue. Its messages and counters are of one moment, what
// is known of single messages may be of later ones: whatever happens to them
// meanwhile is in the log behind the replay position.
func (q *queue) capture(w *ckptWriter) {
	b := w.begin(secQueue)
	q.mu.Lock()
	begin := time.Now()
	dropped := q.dropped
	b = fields.AppendUints(b, uint64(q.id), q.next, uint64(q.clock), q.in, uint64(broker.Reasons))
	b = fields.AppendUints(b, q.out[:]...)
	var end uint64
	var at int64
	for _, c := range q.chunks.list {
		if c.live == 0 {
			continue
		}
		b = binary.AppendVarint(fields.AppendUints(b, c.base-end, uint64(len(c.entries))), c.time-at)
		b = binary.AppendUvarint(b, uint64(c.live))
		if c.live < len(c.entries) {
			b = c.appendBitmap(b)
		}
		end, at = c.end(), c.time
	}
	slots := len(q.slots.all)
	q.mu.Unlock()
	w.pause = max(w.pause, time.Since(begin))
	if dropped {
		return
	}
	w.end(b)
	for from := 0; from < slots; from += slotsAtOnce {
		q.captureSlots(w, from)
	}
}

// appendBitmap appends a bit for each entry: 1 if it is there.
func (c *chunk) appendBitmap(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, (len(c.entries)+7)/8)...)
	bitmap := b[start:]
	for i := range c.entries {
		if c.entries[i].state() != gone {
			bitmap[i>>3] |= 1 << (i & 7)
		}
	}
	return b
}

// captureSlots writes some of the slots.
func (q *queue) captureSlots(w *ckptWriter, from int) {
	b := w.begin(secSlots)
	b = binary.AppendUvarint(b, uint64(q.id))
	q.mu.Lock()
	defer q.mu.Unlock()
	begin := time.Now()
	defer func() { w.pause = max(w.pause, time.Since(begin)) }()
	n := 0
	list := make([]byte, 0, 1024)
	for i := from; i < min(from+slotsAtOnce, len(q.slots.all)); i++ {
		s := &q.slots.all[i]
		if s.seq == 0 {
			continue
		}
		c, j := q.chunks.find(s.seq)
		if c == nil || c.entries[j].slot != uint32(i)+1 {
			continue
		}
		list = s.append(list, &c.entries[j])
		n++
	}
	if n > 0 {
		w.end(append(binary.AppendUvarint(b, uint64(n)), list...))
	}
}

// append appends the slot of an entry.
func (s *slot) append(b []byte, e *entry) []byte {
	flags := byte(e.state())
	if e.has(metaDelayed) {
		flags |= slotDelayed
	}
	b = append(fields.AppendUints(b, s.seq), flags, byte(e.meta&reasonMask>>reasonShift))
	return fields.AppendUints(b, uint64(s.attempt), s.place, uint64(s.rank), uint64(s.until), uint64(s.expires))
}

// readSlot reads what append wrote.
func readSlot(f *fields.Reader) (sl slot, st state, late bool, why byte, err error) {
	sl.seq = f.Uint()
	flags := f.Byte()
	why = f.Byte()
	sl.attempt, sl.place, sl.rank = uint32(f.Uint()), f.Uint(), int64(f.Uint())
	sl.until, sl.expires = int64(f.Uint()), int64(f.Uint())
	st = state(flags &^ slotDelayed)
	if f.Bad || st == gone || st >= states || why >= byte(broker.Reasons) {
		err = errRecord
	}
	return sl, st, flags&slotDelayed != 0, why, err
}

// restoreQueue reads a queue. Its messages wait, and lie nowhere yet.
func (s *Store) restoreQueue(f *fields.Reader) error {
	q := s.targets[broker.Target(f.Uint())].q
	if q == nil || q.volatile || q.source != nil || q.next > 1 {
		return errRecord
	}
	q.next, q.clock, q.in = f.Uint(), int64(f.Uint()), f.Uint()
	n := f.Uint()
	if n > uint64(broker.Reasons) {
		return errRecord
	}
	var out uint64
	for i := range n {
		q.out[i] = f.Uint()
		out += q.out[i]
	}
	q.shown = q.next
	var end uint64
	var at int64
	for len(f.Rest) > 0 {
		c := &chunk{base: end + f.Uint()}
		n, live := f.Uint(), uint64(0)
		c.time = at + f.Int()
		if live = f.Uint(); n == 0 || n > chunkMax || live == 0 || live > n || f.Bad {
			return errRecord
		}
		c.entries = make([]entry, n)
		if q.keyed {
			c.keys = make([]uint64, n)
		}
		bitmap := []byte(nil)
		if live < n {
			if bitmap = f.Take((int(n) + 7) / 8); bitmap == nil || ones(bitmap) != int(live) {
				return errRecord
			}
		}
		for i := range c.entries {
			if bitmap == nil || bitmap[i>>3]&(1<<(i&7)) != 0 {
				c.entries[i].meta = uint32(waiting)
			}
		}
		c.live = int(live)
		q.count[waiting] += int64(live)
		if end, at = c.end(), c.time; end > q.next || c.base == 0 {
			return errRecord
		}
		q.chunks.list = append(q.chunks.list, c)
	}
	if len(q.chunks.list) > 0 {
		q.cursor = q.chunks.list[0].base
	}
	if q.next == 0 || q.in != out+uint64(q.count[waiting]) {
		return errRecord
	}
	return nil
}

func ones(b []byte) (n int) {
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}

// restoreSlots reads what is known of single messages.
func (s *Store) restoreSlots(f *fields.Reader) error {
	for len(f.Rest) > 0 && !f.Bad {
		q := s.targets[broker.Target(f.Uint())].q
		if q == nil || q.volatile {
			return errRecord
		}
		for n := f.Uint(); n > 0 && !f.Bad; n-- {
			sl, st, late, why, err := readSlot(f)
			if err != nil {
				return err
			}
			q.restoreSlot(&sl, st, late, why)
		}
	}
	if f.Bad {
		return errRecord
	}
	return nil
}

// restoreSlot gives a message the state that it had. One that was blocked is
// ready, and will be blocked again when its turn comes.
func (q *queue) restoreSlot(old *slot, st state, late bool, why byte) {
	c, i := q.find(old.seq)
	if c == nil || c.entries[i].state() != waiting || c.entries[i].slot != 0 {
		return // it went while the checkpoint was written
	}
	e := &c.entries[i]
	s := q.slotOf(c, i)
	s.attempt, s.place, s.rank, s.until, s.expires = old.attempt, old.place, old.rank, old.until, old.expires
	e.meta |= uint32(why) << reasonShift
	if late {
		e.meta |= metaDelayed
	}
	switch st {
	case returned, blocked:
		q.set(e, returned)
		q.ready.push(&q.slots, e.slot-1, s.place, s.rank)
	case delayed:
		q.set(e, delayed)
		q.delayed.push(&q.slots, e.slot-1, uint64(s.until), 0)
	case leased:
		q.set(e, leased)
		q.leases.push(&q.slots, e.slot-1, uint64(s.until), 0)
	case dead:
		q.set(e, dead)
		q.dead.push(&q.slots, e.slot-1, uint64(s.until), 0)
	case held:
		q.hold(c, i, broker.Reason(why))
	default: // it only waits
	}
}

// restored ends the restoring of a queue when all is read: it knows when
// messages came, and which keys are in flight.
func (q *queue) restored() {
	clear(q.busy)
	q.expiries.filter(func(x expiry) bool { return !x.ttl })
	for i := range q.slots.all {
		s := &q.slots.all[i]
		if s.seq == 0 {
			continue
		}
		c, j := q.find(s.seq)
		if c == nil || c.entries[j].slot != uint32(i)+1 {
			continue
		}
		switch e := &c.entries[j]; e.state() {
		case returned, delayed:
			q.noteTTL(c, j)
			if e.state() == delayed && q.keyed && s.attempt > 0 {
				q.own(c, j)
			}
		case leased, held:
			if q.keyed {
				q.own(c, j)
			}
		default:
		}
	}
}

// unplaced returns the runs of messages that lie nowhere.
func (q *queue) unplaced() (runs []seqRun) {
	for _, c := range q.chunks.list {
		for i := range c.entries {
			if e := &c.entries[i]; e.pos != 0 || e.state() == gone {
				continue
			}
			seq := c.base + uint64(i)
			if n := len(runs); n > 0 && runs[n-1].first+runs[n-1].n == seq {
				runs[n-1].n++
			} else {
				runs = append(runs, seqRun{first: seq, n: 1})
			}
		}
	}
	return runs
}

// giveUp takes out the messages that lie nowhere, as if they had never come.
func (q *queue) giveUp() {
	for _, c := range slices.Clone(q.chunks.list) { // those that become empty are taken out
		for i := range c.entries {
			if e := &c.entries[i]; e.pos == 0 && e.state() != gone {
				q.remove(c, i, broker.ReasonNone)
				q.out[broker.ReasonNone]--
				q.in--
			}
		}
	}
}
