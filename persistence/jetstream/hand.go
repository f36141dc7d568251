package jetstream

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"millrace/broker"
)

// hand leases what x got, in the order of the queue, and ends the wait. x is
// out of the line, and the lock is held.
func (q *queue) hand(x *waiter) {
	if x.timer != nil {
		x.timer.Stop()
	}
	slices.SortFunc(x.got, func(a, b taken) int { return cmp.Compare(a.e.seq, b.e.seq) })
	now := q.s.Now()
	until := now.Add(x.w.Lease)
	for i := range x.got {
		t := &x.got[i]
		q.since.Deliveries++
		t.e.until = until.UnixMilli()
		t.d.Ref, t.d.Until, t.d.State = t.e.ref(q), t.e.until, broker.Leased
		x.w.Got = append(x.w.Got, t.d)
	}
	switch {
	case len(x.got) == 0:
		q.s.deliver(x.w)
	case x.w.Consume:
		q.consume(x)
	case x.w.Lease <= 0:
		q.handBack(x)
	default:
		for i := range x.got {
			q.lease(x.got[i].e, x.w.Lease)
		}
		q.s.deliver(x.w)
	}
}

// lease has e come back after d.
func (q *queue) lease(e *entry, d time.Duration) {
	e.arm(q)
	if q.lastAttempt(e) || d != ackWait || e.picked > 0 {
		q.putOffFor(e, d)
	}
}

// lastAttempt reports whether the broker is told of the end of this one.
func (q *queue) lastAttempt(e *entry) bool { return q.def.LapseAt > 0 && e.attempt() >= q.def.LapseAt }

// putOffFor has JetStream keep e while its lease runs. The end of a last attempt is
// ours to tell.
func (q *queue) putOffFor(e *entry, d time.Duration) {
	if q.lastAttempt(e) {
		d += graceLease
	}
	e.putOff(q, d, nil)
}

// each waits for one answer for every message of x, then delivers.
func (q *queue) eachOf(x *waiter, ask func(e *entry, done func(error)), end func(e *entry, err error)) {
	left := atomic.Int32{}
	left.Store(int32(len(x.got)))
	for i := range x.got {
		e := x.got[i].e
		ask(e, func(err error) {
			q.mu.Lock()
			if err != nil {
				x.w.Err = err
			}
			end(e, err)
			q.mu.Unlock()
			if left.Add(-1) == 0 {
				if x.w.Err != nil {
					x.w.Got = x.w.Got[:0]
				}
				q.s.deliver(x.w)
			}
		})
	}
}

// consume removes what x got before it is delivered.
func (q *queue) consume(x *waiter) {
	for i := range x.got {
		x.got[i].e.set(q, leaving)
	}
	q.eachOf(x,
		func(e *entry, done func(error)) { e.ack(q, done) },
		func(e *entry, err error) {
			if err == nil && q.entries[e.seq] == e {
				q.lose(e, broker.ReasonAcked)
			} else if err != nil {
				e.set(q, back)
				q.doubtSettled(e, broker.ReasonAcked, false, err)
			}
		})
}

// handBack is a lease of no length: the attempt counts, and the message is
// ready again before it is delivered.
func (q *queue) handBack(x *waiter) {
	last := q.def.LapseAt
	for i := range x.got {
		if e := x.got[i].e; last == 0 || e.attempt() < last {
			e.set(q, back) // it may come again before the answer is here
		}
	}
	q.eachOf(x,
		func(e *entry, done func(error)) {
			if e.state == leased { // the last attempt
				e.putOff(q, holdFor, done)
				return
			}
			q.settlement(e, []byte("-NAK"), done)
		},
		func(e *entry, _ error) {
			if q.entries[e.seq] == e && e.state == leased {
				if after := q.comeBack(e, q.s.milli()); after != nil {
					after()
				}
			}
		})
}

// finish ends a wait that is out of the line and got nothing.
func (x *waiter) finish(q *queue, err error) {
	if x.timer != nil {
		x.timer.Stop()
	}
	q.mu.Lock()
	got := x.got
	x.got = nil
	if err == nil && len(got) > 0 { // its time came while messages did
		x.got = got
		q.hand(x)
		q.mu.Unlock()
		return
	}
	for _, t := range got {
		q.keepUnclaimed(t)
	}
	q.pump()
	q.mu.Unlock()
	x.w.Err = err
	q.s.deliver(x.w)
}
