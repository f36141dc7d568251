package jetstream

import (
	"slices"
	"time"

	"millrace/broker"
	"millrace/router"
)

// unclaimedFor is how long a message that reached nobody stays at hand. The next wait
// gets it before anything that comes later, which JetStream, that has its own order of
// what is given back, would not promise. Its lease there runs meanwhile. What nobody
// asks for goes back to JetStream, in its order, and nothing is asked for until that
// is done.
const unclaimedFor = 100 * time.Millisecond

// keepUnclaimed keeps a message that was on its way to somebody. The lock is held, here
// and below.
func (q *queue) keepUnclaimed(t taken) {
	t.e.undo()
	t.e.set(q, unclaimed)
	q.unclaimed.Set(t.e.seq, t)
	switch {
	case q.dropped:
		q.letGo()
	case !q.letting:
		q.letting = true
		time.AfterFunc(unclaimedFor, q.nobodyAsks)
	}
}

// attend gives what is unclaimed to the waits, in its order, and reports whether there
// was anything.
func (q *queue) attend() bool {
	if q.unclaimed.Len() == 0 || q.passing > 0 {
		return false
	}
	now := q.s.milli()
	for from := uint64(0); len(q.waits) > 0; {
		var t taken
		q.unclaimed.Ascend(from, func(_ uint64, next taken) bool {
			t = next
			return false
		})
		if t.e == nil {
			break
		}
		from = t.e.seq + 1
		if end := q.endOfEntry(t.e); end == 0 || end > now {
			q.serve(t)
		} else if after := q.expire(t.e); after != nil {
			after()
		}
	}
	return true
}

// mayLease reports whether one more message may be in flight.
func (q *queue) mayLease() bool {
	return q.def.MaxInFlight == 0 || q.count[leased] < int64(q.def.MaxInFlight)
}

// serve gives a message to the first in the line that takes it, and reports whether
// there is one.
func (q *queue) serve(t taken) bool {
	for i := 0; i < len(q.waits) && !q.def.Paused && q.mayLease(); i++ {
		x := q.waits[i]
		if x.part != nil && !router.Match(x.part.filter, t.d.Topic) {
			continue
		}
		n := len(t.d.Payload)
		if x.w.MaxBytes > 0 && len(x.got) > 0 && x.bytes+n > x.w.MaxBytes {
			q.waits = slices.Delete(q.waits, i, i+1)
			q.hand(x) // full
			i--
			continue
		}
		if t.e.state == unclaimed { // JetStream does not know of this delivery
			t.e.picked++
		}
		t.e.set(q, leased)
		x.bytes += n
		x.got = append(x.got, t)
		if len(x.got) >= x.w.Max {
			q.waits = slices.Delete(q.waits, i, i+1)
			q.hand(x)
		}
		return true
	}
	return false
}

// nobodyAsks is called a while after something was left at hand.
func (q *queue) nobodyAsks() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letting = false
	q.letGo()
}

// letGo gives what is at hand back to JetStream.
func (q *queue) letGo() {
	for {
		_, t, ok := q.unclaimed.PopMin()
		if !ok {
			return
		}
		if q.unown(t.e); q.dropped {
			t.e.set(q, back)
			q.settlement(t.e, []byte("-NAK"), nil)
			continue
		}
		q.passBack(t.e)
	}
}

// passBack has JetStream hand out e before what comes behind it: nothing is asked for
// until it has e in its place, which is behind what was passed back before.
func (q *queue) passBack(e *entry) {
	e.set(q, back)
	q.passing++
	q.handOver(e, func(error) { q.passed() }) // after an error it comes when its lease there ends
}

// passed goes on after a message was given back, and its place is known.
func (q *queue) passed() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.passing--
	q.pump()
}

// takeBack undoes a delivery that reached nobody: the message is read again, for the next
// that asks.
func (u *unit) takeBack(q *queue, op *broker.Op) {
	s := u.sub.s
	e, _, ok := u.claim(q, op)
	if !ok {
		return
	}
	q.mu.Lock()
	q.passing++
	q.mu.Unlock()
	s.work.Go(func() {
		err := q.readBack(e)
		q.passed()
		u.done(err)
	})
}

// readBack has e unclaimed, or back if it cannot be read.
func (q *queue) readBack(e *entry) error {
	var d broker.Delivery
	m, err := q.there(q.s.ctx, e.seq)
	if err == nil {
		d, err = q.delivery(m.Data, m.header, m.Time)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.entries[e.seq] != e:
		return broker.ErrGone
	case err != nil:
		e.undo()
		q.passBack(e)
		return err
	}
	q.keepUnclaimed(taken{e, d})
	return nil
}
