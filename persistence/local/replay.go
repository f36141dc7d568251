package local

import (
	"fmt"
	"strings"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// maxSequence is more than any message of a queue or offset of a stream has.
const maxSequence = 1 << 62

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
		s.replaying = r.Pos
		f := fields.Reader{Rest: r.Body}
		var err error
		switch r.Type {
		case recStart:
			err = s.replayStart(&f)
		case recMessage, recMove:
			err = s.replayMessage(r)
			f.Rest = nil
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
			if id, d, err = decodeDef(r.Body); err != nil {
				break
			}
			if t, known := s.targets[id]; known && !t.alterable(&d) {
				err = errRecord
			} else {
				s.define(id, d)
			}
		case recTrim:
			s.replayTrim(&f)
		case recCopied:
			s.replayCopied(&f)
		case recUpTo:
			s.replayUpTo(&f)
		case recSeek:
			s.replaySeek(&f)
		case recDrop:
			if id := broker.Target(f.Uint()); !f.Bad && s.targets[id] != (target{}) {
				s.drop(id)
			}
		default:
			err = fmt.Errorf("unknown type %d", r.Type)
		}
		if err == nil && f.Bad {
			err = errRecord
		}
		if err != nil {
			return recordError(r, err)
		}
	}
	return nil
}

// replayStart begins the time of another process.
func (s *Store) replayStart(f *fields.Reader) error {
	if v := f.Byte(); v != recordFormat {
		return fmt.Errorf("records of format %d", v)
	}
	epoch := f.Uint()
	s.begin(uint32(epoch), int64(f.Uint()))
	return nil
}

// begin makes epoch the present one.
func (s *Store) begin(epoch uint32, now int64) {
	s.epoch = epoch
	s.newest = max(s.newest, now)
	for _, t := range s.targets {
		if q := t.q; q != nil && q.source != nil {
			if q.volatile {
				q.source.lanes = nil // as the stream begins anew
			}
		} else if q != nil {
			if q.volatile {
				q.next = max(q.next, uint64(epoch)*seqEpoch+1)
			} else if q.next > 1 {
				q.next = (q.next | (seqGap - 1) + 1)
			}
			q.shown = q.next
		}
	}
}

// stored is a message record as it is read.
type stored struct {
	old    uint64 // position that a move names
	time   int64
	routes []route
	m      *broker.Message
	body   []byte // it, encoded
	placed placed // for the hint of its segment, with the routes to queues
}

// route is one destination in a record.
type route struct {
	id        broker.Target
	partition uint32 // or tag, of a queue
	seq       uint64
}

// parse reads a message or move record. What it returns is good until the next
// call.
func (s *Store) parse(r *journal.Record) (*stored, error) {
	st := &s.stored
	f := fields.Reader{Rest: r.Body}
	st.old = 0
	if r.Type == recMove {
		st.old = f.Uint()
	}
	st.time, st.routes, st.m = int64(f.Uint()), st.routes[:0], &s.replayed
	p := &st.placed
	p.routes, p.key = p.routes[:0], 0
	keyed := false
	for n := f.Uint(); n > 0 && !f.Bad; n-- {
		to := route{broker.Target(f.Uint()), uint32(f.Uint()), f.Uint()}
		f.Bad = f.Bad || to.seq >= maxSequence
		st.routes = append(st.routes, to)
		if q := s.targets[to.id].q; q != nil && !q.volatile {
			p.routes = append(p.routes, seqOf{to.id, to.seq})
			keyed = keyed || q.keyed
		}
	}
	if f.Bad {
		return nil, errRecord
	}
	st.body = f.Rest
	if err := broker.DecodeMessage(f.Rest, st.m); err != nil {
		return nil, err
	}
	p.size, p.time, p.moved, p.expires = r.Size, st.time, r.Type == recMove, st.m.Expires
	p.overhead = r.Size - uint32(len(st.m.Payload))
	if p.offset = r.Pos.Offset(); keyed {
		p.key = keyHash(st.m.Key)
	}
	return st, nil
}

// note adds a message that was read to the hint of its segment.
func (s *Store) note(r *journal.Record, m *stored) {
	if len(m.placed.routes) > 0 {
		s.hints.add(uint64(r.Pos), &m.placed)
	}
}

// replayMessage adds a message to its targets. One that a checkpoint has told
// of learns where it is.
func (s *Store) replayMessage(r *journal.Record) error {
	m, err := s.parse(r)
	if err != nil {
		return err
	}
	s.note(r, m)
	s.newest = max(s.newest, m.time)
	for _, to := range m.routes {
		t := s.targets[to.id]
		switch {
		case t.st != nil && r.Type == recMessage && to.partition < uint32(len(t.st.parts)):
			s.losses.gap(t.st.def, to.partition, t.st.parts[to.partition].end, to.seq)
			t.st.parts[to.partition].replay(to.seq, uint64(r.Pos), r.Size, m.time)
		case t.q == nil || t.q.volatile:
		case r.Type == recMove:
			t.q.replayMove(to.seq, m.old, uint64(r.Pos), &m.placed)
		case to.seq >= t.q.next:
			s.losses.gap(t.def(), 0, t.q.next, to.seq)
			t.q.add(to.seq, uint64(r.Pos), r.Size, m.time, m.m, nil)
			t.q.show(to.seq + 1)
		default:
			t.q.place(to.seq, uint64(r.Pos), &m.placed)
		}
	}
	if m.m.DedupKey != "" && r.Type == recMessage && s.milli()-m.time < dedupWindow {
		s.dedup.add(strings.Clone(m.m.DedupKey), m.m.ID, m.m.BodyHash, m.time)
	}
	return nil
}

// replayMove moves a message that still lies where the move found it. One of
// which nothing is known but that it is there lay in a segment that is gone.
func (q *queue) replayMove(seq, old, pos uint64, p *placed) {
	if c, i := q.chunks.find(seq); c != nil && (c.entries[i].pos == old || c.entries[i].pos == 0) {
		q.place(seq, pos, p)
	}
}

// replayedQueue reads the target of a record, which is a queue. It returns nil if
// that is not there any more, or was restored as it was after the record.
func (s *Store) replayedQueue(f *fields.Reader) *queue {
	q := s.targets[broker.Target(f.Uint())].q
	if q != nil && q.source != nil && s.replaying < q.source.asof {
		return nil
	}
	return q
}

// replaySettle removes messages.
func (s *Store) replaySettle(f *fields.Reader) {
	q := s.replayedQueue(f)
	why := broker.Reason(f.Byte())
	if why >= broker.Reasons {
		f.Bad = true
	}
	for len(f.Rest) > 0 && !f.Bad {
		r := seqRun{first: f.Uint(), n: f.Uint()}
		if q != nil && !f.Bad {
			q.settleRun(r, why)
		}
	}
}

// replayState leases a message or gives it back. One that was given back is
// delayed until time passes again, which then decides what becomes of it.
func (s *Store) replayState(f *fields.Reader) {
	q := s.replayedQueue(f)
	kind := f.Byte()
	until := int64(f.Uint())
	for len(f.Rest) > 0 && !f.Bad {
		seq, attempt, rank := f.Uint(), uint32(f.Uint()), int64(f.Uint())
		if q == nil || f.Bad {
			continue
		}
		c, i := q.known(seq)
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
func (s *Store) replayPark(f *fields.Reader) {
	q := s.replayedQueue(f)
	seq, attempt, rank := f.Uint(), uint32(f.Uint()), int64(f.Uint())
	why := broker.Reason(f.Byte())
	at := int64(f.Uint())
	if q == nil || f.Bad {
		return
	}
	c, i := q.known(seq)
	if c == nil || c.entries[i].state() == gone {
		return
	}
	sl := q.slotOf(c, i)
	sl.attempt, sl.rank = attempt, rank
	q.park(c, i, why, at)
}

// replayPut writes or deletes a key.
func (s *Store) replayPut(f *fields.Reader, put bool) {
	space, rev := f.Byte(), f.Uint()
	key := string(f.Bytes())
	p := pendingPut{spacedKey: spacedKey{broker.Space(space), key}, rev: rev}
	if put {
		if p.bytes = f.Bytes(); p.bytes == nil {
			p.bytes = []byte{}
		}
	}
	if f.Bad {
		return
	}
	s.rev = max(s.rev, rev)
	s.keys.apply([]pendingPut{p})
}
