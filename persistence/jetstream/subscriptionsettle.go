package jetstream

import (
	"context"
	"errors"

	"millrace/broker"
	"millrace/persistence/ref"
)

// delivered finds the message that r is the newest delivery of. The lock is held,
// here and below.
func (b *subscription) delivered(r *broker.Ref) (*pending, error) {
	o := ref.Offset(r.Seq)
	ln := b.lane(o.Partition)
	if ln == nil {
		return nil, broker.ErrNotFound
	}
	if err := b.bringUp(ln, o.Offset, r); err != nil {
		return nil, err
	}
	e, ok := ln.open.Get(o.Offset)
	switch {
	case !ok || e.state == leaving:
		return nil, broker.ErrGone
	case !ref.Current(r, b.epoch(ln), e.attempt, e.here):
		return nil, broker.ErrStale
	}
	return e, nil
}

// bringUp takes the messages up to one that an earlier start of the process
// handed out, and whose lease was not recorded.
func (b *subscription) bringUp(ln *lane, offset uint64, r *broker.Ref) error {
	if offset < ln.next {
		return nil
	}
	_, next := ln.p.limits()
	if now := b.epoch(ln); r.Epoch >= now || ref.Moves(r.Epoch) != ln.moves || offset >= next || offset-ln.next >= ref.Reach {
		return broker.ErrStale
	}
	b.reach(ln, offset)
	return nil
}

// settleable says why an operation on a delivery is not possible. The lock is
// not held.
func (b *subscription) settleable(op *broker.Op) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.settling(op)
	return err
}

// settling returns the message of an operation on a delivery.
func (b *subscription) settling(op *broker.Op) (*pending, error) {
	e, err := b.delivered(&op.Ref)
	if err != nil {
		return nil, err
	}
	held := e.state == heldBack
	switch op.Kind {
	case broker.OpPark:
		if !held {
			return nil, broker.ErrStale
		}
	case broker.OpDefer, broker.OpReturn:
		if e.state == parked || held && !op.All {
			return nil, broker.ErrStale // its lease is over for good
		}
	default:
	}
	return e, nil
}

// apply does an operation, and calls done when it is recorded. The lock is not
// held.
func (b *subscription) apply(op *broker.Op, u *unit) {
	b.mu.Lock()
	var c change
	var err error
	switch op.Kind {
	case broker.OpSettleUpTo, broker.OpSeek:
		c = b.move(op, u)
	case broker.OpSettleAt:
		c, err = b.settleAt(op, u)
	default:
		c, err = b.settle(op, u)
	}
	b.attend()
	if err != nil || c.done == nil {
		b.mu.Unlock()
		u.done(err)
		return
	}
	after := b.record(c)
	b.mu.Unlock()
	after()
}

// settle does an operation on a delivery. The change is empty if nothing has to
// be recorded before it is answered.
func (b *subscription) settle(op *broker.Op, u *unit) (change, error) {
	e, err := b.settling(op)
	if err != nil {
		return change{}, err
	}
	switch op.Kind {
	case broker.OpReturn:
		e.attempt--
		b.set(e, back, 0)
		return change{}, nil
	case broker.OpPark:
		return b.park(e, op.Reason, u), nil
	case broker.OpDefer:
		if b.postpone(e, op); !op.All {
			return change{}, nil // a lease is no promise
		}
	default:
		return b.settleOne(e, op.Reason, u), nil
	}
	b.laneOf(e).touch(ref.Offset(e.seq).Offset, true)
	return change{done: u.done}, nil
}

// postpone moves the end of a lease, or gives the message back.
func (b *subscription) postpone(e *pending, op *broker.Op) {
	if op.All {
		b.since.Returns++
	}
	switch {
	case op.Until <= b.s.milli():
		b.comeBack(e)
	case op.All:
		b.set(e, delayed, op.Until)
	default:
		b.set(e, leased, op.Until)
	}
}

// park has e be dead.
func (b *subscription) park(e *pending, why broker.Reason, u *unit) change {
	e.why = why
	b.set(e, parked, b.s.milli())
	b.laneOf(e).touch(ref.Offset(e.seq).Offset, true)
	return change{done: func(err error) {
		if err != nil {
			b.mu.Lock()
			if e.state == parked { // it is told again
				b.set(e, parked, 0)
				b.over(e)
			}
			b.mu.Unlock()
		}
		u.done(err)
	}}
}

// settleOne removes e once that is recorded.
func (b *subscription) settleOne(e *pending, why broker.Reason, u *unit) change {
	was, until := e.state, e.until
	b.vanish(e)
	return change{done: func(err error) {
		b.mu.Lock()
		b.vanished(e, why, was, until, err)
		b.attend()
		b.mu.Unlock()
		u.done(err)
	}}
}

// vanish has e be settled in what is recorded from now on.
func (b *subscription) vanish(e *pending) {
	b.set(e, leaving, e.until)
	b.laneOf(e).touch(ref.Offset(e.seq).Offset, true)
}

// vanished removes e, or has it be again what it was if that could not be recorded.
func (b *subscription) vanished(e *pending, why broker.Reason, was state, until int64, err error) {
	ln, o := b.laneOf(e), ref.Offset(e.seq).Offset
	if there, _ := ln.open.Get(o); there != e || e.state != leaving {
		return // passed over meanwhile
	}
	if err == nil {
		b.remove(e, why)
		return
	}
	b.set(e, was, until)
	ln.touch(o, true)
}

// movable says why an operation that names offsets is not possible. The lock is
// not held.
func (b *subscription) movable(op *broker.Op) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range op.Offsets {
		ln := b.lane(o.Partition)
		if ln == nil {
			return broker.ErrNotFound
		}
		if _, next := ln.p.limits(); o.Offset > next || o.Offset == next && op.Kind != broker.OpSeek {
			return broker.ErrNotFound
		}
		if op.Kind != broker.OpSettleAt {
			continue
		}
		if o.Offset >= ln.next {
			if o.Offset-ln.next >= ref.Reach {
				return broker.ErrNotFound
			}
			b.reach(ln, o.Offset)
		}
		if e, ok := ln.open.Get(o.Offset); !ok || e.state == leaving {
			return broker.ErrGone
		}
	}
	return nil
}

// settleAt settles a message whoever has it.
func (b *subscription) settleAt(op *broker.Op, u *unit) (change, error) {
	o := op.Offsets[0]
	e, ok := b.lane(o.Partition).open.Get(o.Offset)
	if !ok || e.state == leaving {
		return change{}, broker.ErrGone
	}
	return b.settleOne(e, op.Reason, u), nil
}

// move settles up to an offset, or seeks, once that is recorded.
func (b *subscription) move(op *broker.Op, u *unit) change {
	seek := op.Kind == broker.OpSeek
	return change{
		move: func(h *head) {
			for _, o := range op.Offsets {
				h.move(o, seek)
			}
		},
		done: func(err error) {
			b.mu.Lock()
			for _, o := range op.Offsets {
				if ln := b.lane(o.Partition); err == nil && seek {
					b.seek(ln, o.Offset)
				} else if err == nil {
					u.count(b.settleUpTo(ln, o.Offset, op.Reason))
				}
			}
			b.attend()
			b.mu.Unlock()
			u.done(err)
		},
	}
}

// settleUpTo settles everything of a lane up to and including an offset.
func (b *subscription) settleUpTo(ln *lane, offset uint64, why broker.Reason) int {
	return b.removeBefore(ln, offset+1, why) + b.skip(ln, offset+1, why)
}

// seek has a lane go on at an offset.
func (b *subscription) seek(ln *lane, offset uint64) {
	b.removeBefore(ln, ln.next, broker.ReasonSkipped)
	b.skip(ln, offset, broker.ReasonSkipped)
	ln.next = offset
	ln.moves++
	clear(ln.changed)
}

// find returns the newest delivery of a message that is still there.
func (b *subscription) find(id broker.ID) (broker.Ref, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ln := range b.lanes {
		var found *pending
		ln.open.Scan(func(_ uint64, e *pending) bool {
			if e.here && e.id == id && e.attempt > 0 {
				found = e
			}
			return found == nil
		})
		if found != nil {
			return broker.Ref{Target: b.id, Seq: found.seq, Attempt: found.attempt, Epoch: b.epoch(ln)}, nil
		}
	}
	return broker.Ref{}, broker.ErrNotFound
}

// info implements target.
func (b *subscription) info(ctx context.Context) (broker.Info, error) {
	b.mu.Lock()
	c := &b.count
	in := broker.Info{
		Ready: c[back], Leased: c[leased] + c[leaving], Delayed: c[delayed], Held: c[heldBack], Dead: c[parked], Out: b.out, Activity: b.since,
	}
	for n := range uint32(b.of.width()) {
		ln := b.lane(n)
		first, next := ln.p.limits()
		at := broker.PartitionInfo{First: max(ln.next, first), Next: max(ln.next, first)}
		in.Ready += int64(next - min(at.Next, next))
		if o, _, ok := ln.open.Min(); ok {
			at.First = o
		}
		in.Partitions = append(in.Partitions, at)
	}
	b.mu.Unlock()
	in.In = uint64(in.Ready + in.Leased + in.Delayed + in.Held + in.Dead)
	for _, n := range in.Out {
		in.In += n
	}
	return in, b.age(ctx, &in)
}

// age says in in how old the oldest message is that is not settled.
func (b *subscription) age(ctx context.Context, in *broker.Info) error {
	for n, at := range in.Partitions {
		p := b.of.partition(uint32(n))
		if _, next := p.limits(); at.First >= next {
			continue
		}
		b.mu.Lock()
		known := b.lanes[n].oldest
		b.mu.Unlock()
		if known.at.IsZero() || known.offset != at.First {
			m, err := b.s.fetch(ctx, p.stream, getRequest{Seq: at.First + 1})
			if errors.Is(err, broker.ErrNotFound) {
				continue // retention was faster
			}
			if err != nil {
				return err
			}
			known = stamp{at.First, m.Time}
			b.mu.Lock()
			b.lanes[n].oldest = known
			b.mu.Unlock()
		}
		in.Oldest = older(in.Oldest, known.at.UnixMilli())
	}
	return nil
}
