package local

import (
	"errors"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/ref"
)

// check reports why the unit cannot be applied. It changes nothing but notes
// of the unit, and leaves the queues it looked at locked, so that what it found
// stays true until the unit was applied.
func (u *unit) check(ops []broker.Op) error {
	stored := 0
	for i := range ops {
		op, p := &ops[i], &u.plans[i]
		var err error
		switch op.Kind {
		case broker.OpPublish:
			if err = u.checkPublish(op, p); !p.skip {
				stored++
			}
		case broker.OpSettle, broker.OpDefer, broker.OpReturn, broker.OpPark:
			err = u.checkSettle(op, p)
		case broker.OpPut:
			if err = u.s.keys.check(op); err == nil && !u.s.mem {
				u.records++
			}
		case broker.OpPurge:
			err = u.checkPurge(op, p)
		case broker.OpSettleAt, broker.OpSettleUpTo, broker.OpSeek:
			err = u.checkOffsets(op, p)
		}
		if err != nil {
			return err
		}
	}
	if stored > 0 {
		u.res.Duplicate = false
	}
	return nil
}

// checkPublish looks for room in every target. Routes to targets that were
// dropped count as taken and dropped with them, unless all are.
func (u *unit) checkPublish(op *broker.Op, p *plan) error {
	s, m := u.s, op.Message
	if m.DedupKey != "" {
		first, ok := s.dedup.find(m.DedupKey, u.now)
		if !ok {
			first, ok = u.seen[m.DedupKey]
		}
		if ok {
			if first.hash != m.BodyHash {
				return broker.ErrConflict
			}
			if u.res.ID == (broker.ID{}) {
				u.res.ID = first.id
			}
			u.res.Duplicate, p.skip = true, true
			op.Duplicate, op.First = true, first.id
			return nil
		}
	}
	if m.DedupKey != "" {
		if u.seen == nil {
			u.seen = map[string]firstSeen{}
		}
		u.seen[m.DedupKey] = firstSeen{id: m.ID, hash: m.BodyHash}
	}
	there := 0
	for i := range op.Routes {
		r, t := &op.Routes[i], u.targets[p.first+i]
		switch {
		case t.q != nil && t.q.source != nil:
			return broker.ErrNotFound // nothing is published to a subscription
		case t.q != nil:
			if err := u.checkRoom(t.q, load{1, int64(p.size), int64(len(m.Payload))}); err != nil {
				if !t.q.def.DropNewest {
					return err
				}
				u.leaveOut(p, i)
			}
		case t.st != nil:
			if r.Partition >= uint32(len(t.st.parts)) {
				return broker.ErrNotFound
			}
		case s.used(r.Target):
			continue
		default:
			return broker.ErrNotFound
		}
		there++
	}
	if there == 0 && len(op.Routes) > 0 {
		return broker.ErrGone
	}
	if p.durable > 0 {
		u.records++
	}
	return nil
}

// leaveOut takes a route off a publish: its queue is full and drops the newest.
func (u *unit) leaveOut(p *plan, route int) {
	q := u.targets[p.first+route].q
	u.targets[p.first+route] = target{}
	if !q.volatile {
		p.durable--
	}
	u.res.Full = 0
	q.in++
	q.out[broker.ReasonOverflow]++
	q.dropt[broker.ReasonOverflow]++
	q.s.teller.add(q)
}

// checkRoom reports whether q takes one more message.
func (u *unit) checkRoom(q *queue, m load) error {
	u.lock(q)
	if q.def.MaxMessages <= 0 && q.def.MaxBytes <= 0 && q.def.MaxPayload <= 0 {
		return nil
	}
	if !q.volatile {
		m.bytes += journal.RecordHeader + maxSmall
	}
	m = q.unit.added.plus(m)
	if !q.fits(m) {
		u.res.Full = q.id
		return broker.ErrFull
	}
	q.unit.added = m
	q.unit.trim = true
	return nil
}

// checkSettle finds the message of a settlement.
func (u *unit) checkSettle(op *broker.Op, p *plan) error {
	q, err := u.queueOf(p, op.Ref.Target)
	if err != nil {
		return err
	}
	u.lock(q)
	c, i, err := q.delivered(&op.Ref)
	if err != nil {
		return err
	}
	e := &c.entries[i]
	switch op.Kind {
	case broker.OpSettle:
		q.unit.added = q.unit.added.plus(load{-1, -int64(e.size), -e.payload()})
	case broker.OpDefer, broker.OpReturn:
		if st := e.state(); st == dead || st == held && !op.All {
			return broker.ErrStale // its lease is over for good
		}
	default:
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
	attempt, era := q.attempt(e), q.era(r.Seq)
	switch {
	case q.source != nil:
		return ref.Current(r, era, attempt, e.has(metaHanded))
	case r.Epoch == era:
		return r.Attempt == attempt
	}
	return !e.has(metaHanded) && r.Epoch < era && r.Attempt >= attempt
}

// checkPurge collects what a purge removes.
func (u *unit) checkPurge(op *broker.Op, p *plan) error {
	q, err := u.queueOf(p, op.Ref.Target)
	if err != nil {
		return err
	}
	if q.source != nil {
		return broker.ErrNotFound // a subscription is moved with Seek
	}
	u.lock(q)
	if u.ranges = q.purgeRuns(u.ranges[:0], op.All, u.limit); len(u.ranges) > 0 && !q.volatile {
		u.records++
	}
	return nil
}

// reserve makes room in the log for one group of n bytes. What grows takes room
// on the disk for good, and gets none of what is kept for a full one. The append
// lock is held.
func (s *Store) reserve(n int, grows bool) error {
	var err error
	if grows {
		err = s.wal.ReserveGrowth(n)
	} else {
		err = s.wal.Reserve(n)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, journal.ErrFull), errors.Is(err, journal.ErrTooLarge):
		return broker.ErrFull
	default:
		return unavailable(err)
	}
}
