package jetstream

import (
	"context"
	"errors"
	"time"

	"millrace/broker"
)

// deadBit marks the sequence of a dead message: it is one of the stream of the
// dead. scheduledBit does so for delayed ones, as far as browsing shows them.
const (
	deadBit      = 1 << 63
	scheduledBit = 1 << 62
)

// settleable checks an operation against what is known of its message. What
// this process does not know, JetStream may.
func (q *queue) settleable(op *broker.Op) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := op.Ref
	if r.Seq&deadBit != 0 {
		switch {
		case q.dead[r.Seq&^deadBit] == nil:
			return broker.ErrGone
		case op.Kind != broker.OpSettle:
			return broker.ErrStale
		}
		return nil
	}
	if r.Seq&scheduledBit != 0 {
		if op.Kind != broker.OpSettle {
			return broker.ErrStale
		}
		return nil
	}
	e := q.entries[r.Seq]
	switch {
	case e == nil && q.gone.has(r.Seq):
		return broker.ErrGone
	case e == nil:
		return nil
	case e.state == leaving: // its turn comes
		return nil
	case r.Attempt < e.attempt():
		return broker.ErrStale
	case op.Kind == broker.OpPark && e.state != heldBack,
		op.Kind == broker.OpDefer && !op.All && e.state == heldBack:
		return broker.ErrStale
	}
	return nil
}

// errLater is a claim that waits.
var errLater = errors.New("another settlement of the message is under way")

// claim marks the message of op as leaving, and returns where it stood. While another
// settlement of it is under way nobody knows whether it stays: then op is applied once
// that has ended. If it does not report true, it sees to the end of op.
func (u *unit) claim(q *queue, op *broker.Op) (*entry, state, bool) {
	e, was, err := q.claim(u.sub.s.ctx, op.Ref, func() {
		if err := q.settleable(op); err != nil {
			u.done(err)
			return
		}
		q.apply(op, u)
	})
	if err != nil && !errors.Is(err, errLater) {
		u.done(err)
	}
	return e, was, err == nil
}

// claim is that of a unit, and calls later in its turn if it is errLater. Of a message
// that is unknown here it makes an entry, if the stream has it.
func (q *queue) claim(ctx context.Context, r broker.Ref, later func()) (*entry, state, error) {
	q.mu.Lock()
	e := q.entries[r.Seq]
	known := e != nil
	q.mu.Unlock()
	if !known {
		m, err := q.there(ctx, r.Seq)
		if err != nil {
			return nil, 0, err
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return nil, 0, err
		}
		e = &entry{
			seq: r.Seq, state: leased, id: d.ID,
			queued: d.Queued, expires: d.Expires, size: sizeOf(&d.Message, m.Data), key: q.keyOf(&d.Message),
		}
		e.learn(&r)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch have := q.entries[r.Seq]; {
	case have != nil:
		if e = have; e.attempt() == 0 {
			e.learn(&r)
		}
	case known || q.gone.has(r.Seq):
		return nil, 0, broker.ErrGone
	case e.tries == 0:
		e.state = back
		q.keep(e)
	default:
		q.met(e)
	}
	if e.state == leaving {
		e.next = append(e.next, later)
		return nil, 0, errLater
	}
	if r.Attempt < e.attempt() { // it was handed out again while we looked for it
		return nil, 0, broker.ErrStale
	}
	was := e.state
	if was == unclaimed { // should it stay, it comes again
		was = back
	}
	e.set(q, leaving)
	e.disarm()
	return e, was, nil
}

// learn takes from a Ref what JetStream knows of a delivery of an earlier start; it
// has no number for one that the node picked.
func (e *entry) learn(r *broker.Ref) {
	if r.Epoch == 0 {
		e.picked = r.Attempt
		return
	}
	e.epoch, e.tries = uint64(r.Epoch), r.Attempt
}

// apply implements source.
func (q *queue) apply(op *broker.Op, u *unit) {
	s := q.s
	switch op.Kind {
	case broker.OpDefer:
		s.work.Go(func() { u.postpone(q, op) })
	case broker.OpReturn:
		q.mayAsk(op.Ref.Seq, func() { u.takeBack(q, op) })
	case broker.OpPurge:
		s.work.Go(func() { u.done(u.purge(q, op)) })
	default:
		u.settle(q, op)
	}
}

// settle removes a message for good.
func (u *unit) settle(q *queue, op *broker.Op) {
	s := u.sub.s
	if op.Ref.Seq&deadBit != 0 {
		s.work.Go(func() { u.done(q.bury(s.ctx, op.Ref.Seq&^deadBit, op.Reason)) })
		return
	}
	if op.Ref.Seq&scheduledBit != 0 {
		s.work.Go(func() { u.done(q.unsend(s.ctx, op.Ref.Seq&^scheduledBit, op.Reason)) })
		return
	}
	q.mayAsk(op.Ref.Seq, func() { u.acknowledge(q, op) })
}

// mayAsk runs f, which claims a message, on a goroutine if JetStream must be asked for
// it first.
func (q *queue) mayAsk(seq uint64, f func()) {
	q.mu.Lock()
	known := q.entries[seq] != nil
	q.mu.Unlock()
	if known {
		f()
		return
	}
	q.s.work.Go(f)
}

// acknowledge removes a message from the queue: by an acknowledgement if
// JetStream ever handed it out, else from the stream.
func (u *unit) acknowledge(q *queue, op *broker.Op) {
	e, was, ok := u.claim(q, op)
	if !ok {
		return
	}
	if op.Kind == broker.OpPark {
		was = heldBack
	}
	done := func(err error) {
		q.mu.Lock()
		switch {
		case err != nil: // it may come again
			e.set(q, was)
			e.arm(q)
			q.doubtSettled(e, op.Reason, op.Kind == broker.OpPark, err)
		case op.Kind == broker.OpPark:
			q.depart(e)
		default:
			q.lose(e, op.Reason)
		}
		q.pump()
		q.mu.Unlock()
		u.done(err)
	}
	e.ack(q, done)
}

// postpone moves the end of a lease, or gives the message back.
func (u *unit) postpone(q *queue, op *broker.Op) {
	if e, was, ok := u.claim(q, op); ok {
		u.done(q.postpone(e, was, op))
	}
}

// postpone is that of a unit, for the message that it claimed.
func (q *queue) postpone(e *entry, was state, op *broker.Op) error {
	now := q.s.Now()
	d := time.UnixMilli(op.Until).Sub(now)
	answer := make(chan error, 1)
	q.mu.Lock()
	if op.All {
		q.since.Returns++
	}
	last := q.def.LapseAt > 0 && e.attempt() >= q.def.LapseAt
	end := q.endOfEntry(e)
	expired := op.All && end != 0 && end <= now.UnixMilli()
	if d <= 0 && !last && !expired {
		e.set(q, back) // it may be handed out before the answer is here
		q.handOver(e, func(err error) { answer <- err })
		q.mu.Unlock()
		return <-answer
	}
	q.mu.Unlock()
	switch {
	case d <= 0 || expired:
		d = holdFor
	case last:
		d += graceLease
	}
	e.putOff(q, d, func(err error) { answer <- err })
	err := <-answer
	q.mu.Lock()
	var after func()
	switch {
	case q.entries[e.seq] != e:
		err = errors.Join(err, broker.ErrGone)
	case err != nil:
		e.set(q, was)
		e.arm(q)
	default:
		after = q.moved(e, op, now.UnixMilli(), expired)
	}
	q.mu.Unlock()
	if after != nil {
		after()
	}
	return err
}

// handOver has JetStream hand out e again, which is back, and calls done then.
func (q *queue) handOver(e *entry, done func(error)) {
	epoch := e.epoch
	q.settlement(e, []byte("-NAK"), func(err error) {
		q.mu.Lock()
		var after func()
		if q.entries[e.seq] == e && e.state == back && e.epoch == epoch {
			after = q.freed(e, q.s.milli())
		}
		q.mu.Unlock()
		if after != nil {
			after()
		}
		done(err)
	})
}

// moved has e stand where a Defer put it.
func (q *queue) moved(e *entry, op *broker.Op, now int64, expired bool) func() {
	e.until = op.Until
	switch {
	case expired:
		return q.expire(e)
	case op.Until <= now:
		return q.comeBack(e, now)
	case op.All:
		e.set(q, delayed)
	default:
		e.set(q, leased)
	}
	e.arm(q)
	q.pump()
	return nil
}
