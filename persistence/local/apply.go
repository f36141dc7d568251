package local

import (
	"encoding/binary"

	"millrace/broker"
	"millrace/broker/fields"
)

// apply writes the records of a unit that passed check, and does what they say.
func (u *unit) apply(ops []broker.Op) {
	for i := range ops {
		op, p := &ops[i], &u.plans[i]
		switch op.Kind {
		case broker.OpPublish:
			if !p.skip {
				u.publish(op, p)
			}
		case broker.OpSettle, broker.OpSettleAt:
			u.settle(op, u.targets[p.first].q)
		case broker.OpDefer, broker.OpReturn:
			u.postpone(op, u.targets[p.first].q)
		case broker.OpPark:
			u.park(op, u.targets[p.first].q)
		case broker.OpPut:
			u.put(op)
		case broker.OpPurge:
			u.purge(u.targets[p.first].q)
		case broker.OpSettleUpTo, broker.OpSeek:
			u.moveTo(op, u.targets[p.first].q)
		}
	}
	for _, q := range u.locked {
		if q.unit.trim {
			q.makeRoom()
		}
	}
}

// publish encodes the message once, with the sequences it will have, and adds
// it to every target.
func (u *unit) publish(op *broker.Op, pl *plan) {
	m := op.Message
	first := u.res.ID == (broker.ID{})
	if first {
		u.res.ID = m.ID
	}
	var pos uint64
	var size uint32
	if pl.durable > 0 {
		pos, size = u.writeMessage(op, pl)
	}
	var body []byte
	for i := range op.Routes {
		t := u.targets[pl.first+i]
		if t == (target{}) {
			continue
		}
		at, n, b := pos, size, []byte(nil)
		if t.volatile() {
			if body == nil {
				body = broker.AppendMessage(make([]byte, 0, pl.size), m)
			}
			at, n, b = uint64(op.Routes[i].Tag), uint32(len(body)), body
		}
		var seq uint64
		if t.st != nil {
			p := t.st.parts[op.Routes[i].Partition]
			seq = p.add(at, n, u.now, b)
			u.cm.touchStream(p, seq+1)
		} else {
			seq = t.q.next
			t.q.add(seq, at, n, u.now, m, b)
			u.cm.touch(t.q, seq+1)
		}
		if first && i == 0 {
			u.res.Seq = seq
		}
	}
	if m.DedupKey != "" {
		u.s.dedup.add(m.DedupKey, m.ID, m.BodyHash, u.now)
	}
}

// writeMessage writes the record of a message with its routes that are on disk.
func (u *unit) writeMessage(op *broker.Op, pl *plan) (uint64, uint32) {
	p := &u.placed
	p.routes, p.key = p.routes[:0], 0
	b := fields.AppendUints(u.record(recMessage), uint64(u.now), uint64(pl.durable))
	for i := range op.Routes {
		r, t := &op.Routes[i], u.targets[pl.first+i]
		switch {
		case t == (target{}) || t.volatile():
		case t.st != nil:
			b = fields.AppendUints(b, uint64(r.Target), uint64(r.Partition), t.st.parts[r.Partition].next())
		default:
			b = fields.AppendUints(b, uint64(r.Target), uint64(r.Tag), t.q.next)
			p.routes = append(p.routes, seqOf{r.Target, t.q.next})
			if t.q.keyed && p.key == 0 {
				p.key = keyHash(op.Message.Key)
			}
		}
	}
	pos, size := u.end(broker.AppendMessage(b, op.Message))
	if len(p.routes) > 0 {
		p.size, p.time, p.expires = size, u.now, op.Message.Expires
		p.overhead = size - uint32(len(op.Message.Payload))
		u.s.hints.add(pos, p)
	}
	return pos, size
}

// settle removes a message.
func (u *unit) settle(op *broker.Op, q *queue) {
	c, i := q.find(op.Ref.Seq)
	there := c != nil && c.entries[i].state() != gone // else it was settled twice in one unit
	if !q.volatile {
		b := append(fields.AppendUints(u.record(recSettle), uint64(q.id)), byte(op.Reason))
		if there {
			b = fields.AppendUints(b, op.Ref.Seq, 1)
		}
		u.end(b)
	}
	if !there {
		return
	}
	q.remove(c, i, op.Reason)
	u.changed(q)
}

// changed has the waits of q looked at when the unit is committed.
func (u *unit) changed(q *queue) {
	if q.waits.any() {
		u.cm.touch(q, 0)
	}
}

// postpone moves the end of a lease, or gives the message back.
func (u *unit) postpone(op *broker.Op, q *queue) {
	c, i := q.find(op.Ref.Seq)
	if c == nil || c.entries[i].state() == gone {
		if !q.volatile {
			u.end(append(fields.AppendUints(u.record(recState), uint64(q.id)), kindBack, 0))
		}
		return // settled in the same unit
	}
	e := &c.entries[i]
	s := q.slotOf(c, i)
	s.attempt = max(s.attempt, op.Ref.Attempt) // of an earlier start, and its record was lost
	kind := kindLeased
	if op.All {
		kind = kindBack
		q.since.Returns++
	}
	if op.Kind == broker.OpReturn {
		kind = kindBack
		s.attempt = max(s.attempt, 1) - 1
	}
	if !q.volatile {
		b := append(fields.AppendUints(u.record(recState), uint64(q.id)), kind)
		u.end(fields.AppendUints(b, uint64(op.Until), op.Ref.Seq, uint64(s.attempt), uint64(s.rank)))
	}
	q.postpone(c, i, e, kind, op.Until, u.now)
	u.changed(q)
}

// postpone is what a state record says.
func (q *queue) postpone(c *chunk, i int, e *entry, kind byte, until, now int64) {
	s := q.slotOf(c, i)
	s.until = until
	switch {
	case kind == kindLeased:
		q.set(e, leased)
		q.leases.push(&q.slots, e.slot-1, uint64(until), 0)
		if until <= now {
			q.lapse(c, i, now)
		}
	case until > now && s.expires != 0 && s.expires <= now:
		q.expire(c, i) // its time ended while it was leased
	case until > now:
		q.set(e, delayed)
		q.delayed.push(&q.slots, e.slot-1, uint64(until), 0)
		q.noteTTL(c, i)
	default:
		q.lapse(c, i, now)
	}
}

// park keeps a message as dead.
func (u *unit) park(op *broker.Op, q *queue) {
	c, i := q.find(op.Ref.Seq)
	there := c != nil && c.entries[i].state() != gone
	var s slot
	if there {
		s = *q.slotOf(c, i)
	}
	if !q.volatile {
		b := fields.AppendUints(u.record(recPark), uint64(q.id), op.Ref.Seq, uint64(s.attempt), uint64(s.rank))
		u.end(binary.AppendUvarint(append(b, byte(op.Reason)), uint64(u.now)))
	}
	if there {
		q.park(c, i, op.Reason, u.now)
		u.changed(q)
	}
}

// park is what a park record says.
func (q *queue) park(c *chunk, i int, why broker.Reason, now int64) {
	e := &c.entries[i]
	if q.keyed {
		q.release(c, i)
	}
	s := q.slotOf(c, i)
	s.until = now
	q.set(e, dead)
	e.meta = e.meta&^reasonMask | uint32(why)<<reasonShift
	q.dead.push(&q.slots, e.slot-1, uint64(now), 0)
}

// put writes or deletes a key.
func (u *unit) put(op *broker.Op) {
	s := u.s
	s.rev++
	if !s.mem {
		if op.Value == nil {
			b := fields.AppendUints(append(u.record(recDelete), byte(op.Space)), s.rev, uint64(len(op.Key)))
			u.end(append(b, op.Key...))
		} else {
			b := fields.AppendUints(append(u.record(recPut), byte(op.Space)), s.rev, uint64(len(op.Key)))
			b = fields.AppendUints(append(b, op.Key...), uint64(len(op.Value)))
			u.end(append(b, op.Value...))
		}
	}
	u.cm.puts = append(u.cm.puts, s.keys.add(op.Space, op.Key, op.Value, s.rev))
	u.res.Rev = s.rev
}
