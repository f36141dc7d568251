package local

import (
	"errors"

	"millrace/broker"
	"millrace/persistence/journal"
)

// check reports why the unit cannot be applied. It changes nothing but notes
// of the unit, and leaves the queues it looked at locked, so that what it found
// stays true until the unit was applied.
func (u *unit) check(ops []broker.Op) error {
	u.skip = u.skip[:0]
	published, stored := 0, 0
	for i := range ops {
		op := &ops[i]
		skip := false
		var err error
		switch op.Kind {
		case broker.OpPublish:
			published++
			if skip, err = u.checkPublish(op); !skip {
				stored++
			}
		case broker.OpSettle, broker.OpDefer, broker.OpReturn, broker.OpPark:
			err = u.checkSettle(op)
		case broker.OpPut:
			if err = u.s.keys.check(op); err == nil && !u.s.mem {
				u.records++
			}
		case broker.OpPurge:
			err = u.checkPurge(op)
		}
		if err != nil {
			return err
		}
		u.skip = append(u.skip, skip)
	}
	if published > 0 && stored == 0 && u.res.Duplicate {
		return nil
	}
	u.res.Duplicate = false
	return nil
}

// checkPublish looks for room in every target. Routes to targets that were
// dropped count as taken and dropped with them, unless all are.
func (u *unit) checkPublish(op *broker.Op) (skip bool, err error) {
	s, m := u.s, op.Message
	if m.DedupKey != "" {
		if first, ok := s.dedup.find(m.DedupKey, u.now); ok {
			if first.hash != m.BodyHash {
				return false, broker.ErrConflict
			}
			if u.res.ID == (broker.ID{}) {
				u.res.ID = first.id
			}
			u.res.Duplicate = true
			op.Duplicate, op.First = true, first.id
			return true, nil
		}
	}
	size := int64(0)
	there, durable := 0, false
	for i := range op.Routes {
		r := &op.Routes[i]
		t, ok := s.targets[r.Target]
		if !ok {
			if !s.used(r.Target) {
				return false, broker.ErrNotFound
			}
			continue
		}
		there++
		durable = durable || !t.volatile()
		if t.st != nil {
			if r.Partition >= uint32(len(t.st.parts)) {
				return false, broker.ErrNotFound
			}
			continue
		}
		q := t.q
		u.lock(q)
		if q.def.MaxMessages > 0 || q.def.MaxBytes > 0 {
			if size == 0 {
				size = int64(broker.SizeBound(m))
			}
			n := size
			if !q.volatile {
				n += journal.RecordHeader + maxSmall
			}
			if !q.fits(q.unit.n+1, q.unit.size+n) {
				u.res.Full = q.id
				return false, broker.ErrFull
			}
			q.unit.n++
			q.unit.size += n
			q.unit.trim = true
		}
	}
	if there == 0 && len(op.Routes) > 0 {
		return false, broker.ErrGone
	}
	if durable {
		u.records++
	}
	return false, nil
}

// checkSettle finds the message of a settlement.
func (u *unit) checkSettle(op *broker.Op) error {
	q, err := u.s.queueAt(op.Ref.Target)
	if err != nil {
		return err
	}
	u.lock(q)
	c, i := q.chunks.find(op.Ref.Seq)
	if c == nil || c.entries[i].state() == gone {
		return broker.ErrGone
	}
	e := &c.entries[i]
	if !q.current(e, &op.Ref) {
		return broker.ErrStale
	}
	switch op.Kind {
	case broker.OpSettle:
		q.unit.n--
		q.unit.size -= int64(e.size)
	case broker.OpDefer, broker.OpReturn:
		if st := e.state(); st == dead || st == held && !op.All {
			return broker.ErrStale // its lease is over for good
		}
	}
	if !q.volatile {
		u.records++
	}
	return nil
}

// current reports whether r is the newest delivery of e. A Ref of an earlier
// start is good until the message is handed out again in this one, unless the
// record of a later delivery survived.
func (q *queue) current(e *entry, r *broker.Ref) bool {
	attempt := q.attempt(e)
	if r.Epoch == q.s.epoch {
		return r.Attempt == attempt
	}
	return !e.has(metaHanded) && r.Epoch < q.s.epoch && r.Attempt >= attempt
}

// checkPurge collects what a purge removes.
func (u *unit) checkPurge(op *broker.Op) error {
	q, err := u.s.queueAt(op.Ref.Target)
	if err != nil {
		return err
	}
	u.lock(q)
	if u.ranges = q.purgeRuns(u.ranges[:0], op.All, u.limit); len(u.ranges) > 0 && !q.volatile {
		u.records++
	}
	return nil
}

// refusal translates an error of Reserve: nothing was written.
func refusal(err error) error {
	switch {
	case errors.Is(err, journal.ErrFull), errors.Is(err, journal.ErrTooLarge):
		return broker.ErrFull
	default:
		return unavailable(err)
	}
}
