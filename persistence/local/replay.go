package local

import (
	"fmt"
	"strings"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
)

// seqGap is what a start of the process skips of the sequences of each queue:
// what an earlier one handed out and then lost in a power cut (it was lazy, or
// the store relaxed) must not name another message now. It is more than a
// journal holds unsynced.
const seqGap = 1 << 24

// replay applies one atomic group of the journal. It runs before anything else
// does, and no time passes in it: what is due is done when Bind starts time.
func (s *Store) replay(group []journal.Record) error {
	for i := range group {
		r := &group[i]
		f := fields{b: r.Body}
		var err error
		switch r.Type {
		case recStart:
			err = s.replayStart(&f)
		case recMessage:
			err = s.replayMessage(&f, r)
		case recSettle:
			s.replaySettle(&f)
		case recState:
			s.replayState(&f)
		case recPark:
			s.replayPark(&f)
		case recPut, recDelete:
			s.replayPut(&f, r.Type == recPut)
		case recDefine:
			var id broker.Target
			var d broker.Def
			if id, d, err = decodeDef(r.Body); err == nil {
				s.define(id, d)
			}
		case recTrim:
			s.replayTrim(&f)
		case recCopied:
			s.replayCopied(&f)
		case recDrop:
			if id := broker.Target(f.num()); !f.bad && s.targets[id] != (target{}) {
				s.drop(id)
			}
		default:
			err = fmt.Errorf("unknown type %d", r.Type)
		}
		if err == nil && f.bad {
			err = errRecord
		}
		if err != nil {
			return fmt.Errorf("record at %d:%d: %w", r.Pos.Segment(), r.Pos.Offset(), err)
		}
	}
	return nil
}

// replayStart begins the time of another process.
func (s *Store) replayStart(f *fields) error {
	if v := f.byte(); v != recordFormat {
		return fmt.Errorf("records of format %d", v)
	}
	epoch := f.num()
	s.begin(uint32(epoch), int64(f.num()))
	return nil
}

// begin makes epoch the present one.
func (s *Store) begin(epoch uint32, now int64) {
	s.epoch = epoch
	s.clock = max(s.clock, now)
	for _, t := range s.targets {
		if q := t.q; q != nil {
			if q.volatile {
				q.next = max(q.next, uint64(epoch)*seqEpoch+1)
			} else if q.next > 1 {
				q.next = (q.next | (seqGap - 1) + 1)
			}
			q.shown = q.next
		}
	}
}

// replayMessage adds a message to its targets.
func (s *Store) replayMessage(f *fields, r *journal.Record) error {
	now := int64(f.num())
	type route struct {
		id        broker.Target
		partition uint32
		seq       uint64
	}
	var few [8]route
	routes := few[:0]
	for n := f.num(); n > 0 && !f.bad; n-- {
		routes = append(routes, route{broker.Target(f.num()), uint32(f.num()), f.num()})
	}
	if f.bad {
		return errRecord
	}
	m := &s.replayed
	if err := broker.DecodeMessage(f.b, m); err != nil {
		return err
	}
	s.clock = max(s.clock, now)
	for _, to := range routes {
		t := s.targets[to.id]
		switch {
		case t.q != nil && to.seq >= t.q.next:
			s.losses.gap(t.q.def, 0, t.q.next, to.seq)
			t.q.add(to.seq, uint64(r.Pos), r.Size, now, m, nil)
			t.q.show(to.seq + 1)
		case t.st != nil && to.partition < uint32(len(t.st.parts)):
			s.losses.gap(t.st.def, to.partition, t.st.parts[to.partition].end, to.seq)
			t.st.parts[to.partition].replay(to.seq, uint64(r.Pos), r.Size, now)
		}
	}
	if m.DedupKey != "" && time.Now().UnixMilli()-now < dedupWindow {
		s.dedup.add(strings.Clone(m.DedupKey), m.ID, m.BodyHash, now)
	}
	return nil
}

// replaySettle removes messages.
func (s *Store) replaySettle(f *fields) {
	q := s.targets[broker.Target(f.num())].q
	why := broker.Reason(f.byte())
	if why >= broker.Reasons {
		f.bad = true
	}
	for len(f.b) > 0 && !f.bad {
		r := seqRun{first: f.num(), n: f.num()}
		if q != nil && !f.bad {
			q.settleRun(r, why)
		}
	}
}

// replayState leases a message or gives it back. One that was given back is
// delayed until time passes again, which then decides what becomes of it.
func (s *Store) replayState(f *fields) {
	q := s.targets[broker.Target(f.num())].q
	kind := f.byte()
	until := int64(f.num())
	for len(f.b) > 0 && !f.bad {
		seq, attempt, rank := f.num(), uint32(f.num()), int64(f.num())
		if q == nil || f.bad {
			continue
		}
		c, i := q.chunks.find(seq)
		if c == nil || c.entries[i].state() == gone {
			continue
		}
		sl := q.slotOf(c, i)
		sl.attempt, sl.until, sl.rank = attempt, until, rank
		if sl.place == 0 {
			q.settlePlace(sl, rank)
		}
		if q.keyed {
			q.own(c, i)
		}
		e := &c.entries[i]
		if kind == kindLeased {
			q.set(e, leased)
			q.leases.push(&q.slots, e.slot-1, uint64(until), 0)
		} else {
			q.set(e, delayed)
			q.delayed.push(&q.slots, e.slot-1, uint64(until), 0)
			q.noteTTL(c, i)
		}
	}
}

// replayPark makes a message dead.
func (s *Store) replayPark(f *fields) {
	q := s.targets[broker.Target(f.num())].q
	seq, attempt, rank := f.num(), uint32(f.num()), int64(f.num())
	why := broker.Reason(f.byte())
	at := int64(f.num())
	if q == nil || f.bad {
		return
	}
	c, i := q.chunks.find(seq)
	if c == nil || c.entries[i].state() == gone {
		return
	}
	sl := q.slotOf(c, i)
	sl.attempt, sl.rank = attempt, rank
	q.park(c, i, why, at)
}

// replayPut writes or deletes a key.
func (s *Store) replayPut(f *fields, put bool) {
	space, rev := f.byte(), f.num()
	key := string(f.bytes())
	p := pendingPut{spacedKey: spacedKey{broker.Space(space), key}, value: value{rev: rev}}
	if put {
		if p.bytes = f.bytes(); p.bytes == nil {
			p.bytes = []byte{}
		}
	}
	if f.bad {
		return
	}
	s.rev = max(s.rev, rev)
	s.keys.apply([]pendingPut{p})
}
