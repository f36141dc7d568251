package jetstream

import (
	"errors"
	"slices"
	"time"

	"millrace/broker"
)

// attendParts gives what is ready to the waits for parts, in turn. One that stands
// behind a wait for the whole queue has its turn later: what is ready is on its way
// to that one. The lock is held, here and below.
func (q *queue) attendParts() {
	if q.parts == nil || q.dropped || !q.begun {
		return
	}
	whole := false
	for _, x := range slices.Clone(q.waits) {
		if x.part == nil {
			whole = true
			continue
		}
		if whole && !x.hasty {
			continue
		}
		if picks := q.pick(x); len(picks) > 0 {
			q.unlist(x)
			x.timer.Stop()
			go q.fill(x, picks)
		} else if x.hasty && (x.part.whole || q.def.Paused) {
			q.unlist(x)
			q.hand(x)
		}
	}
}

// pick leases to x what is ready of its part.
func (q *queue) pick(x *waiter) (picks []*entry) {
	if q.def.Paused {
		return nil
	}
	room := max(x.w.Max-len(x.got), 1)
	if limit := q.def.MaxInFlight; limit > 0 {
		room = min(room, limit-int(q.count[leased]))
	}
	now := q.s.milli()
	bytes := x.bytes
	var over []*entry // not ready, or for too long
	x.part.ready.Scan(func(seq uint64, e *entry) bool {
		if len(picks) >= room {
			return false
		}
		there := q.entries[seq]
		end := q.endOfEntry(e)
		n := int(e.size.payload)
		switch {
		case there == nil && (seq <= q.delivered || q.gone.has(seq)), there != nil && (there != e || e.state != back && e.state != unclaimed):
			over = append(over, e)
		case end != 0 && end <= now: // the upkeep has it soon
		case !q.free(e):
		case x.w.MaxBytes > 0 && bytes > 0 && bytes+n > x.w.MaxBytes:
			return false
		default:
			bytes += n
			picks = append(picks, e)
		}
		return true
	})
	for _, e := range over {
		x.part.ready.Delete(e.seq)
	}
	return q.lendTo(x, picks)
}

// lendTo leases picks, until they are read. Of those with one key it takes the first.
func (q *queue) lendTo(x *waiter, picks []*entry) []*entry {
	d := max(x.w.Lease, lookMax)
	until := q.s.Now().Add(d).UnixMilli()
	return slices.DeleteFunc(picks, func(e *entry) bool {
		if !q.free(e) {
			return true
		}
		q.own(e)
		if q.entries[e.seq] == nil {
			q.keep(e)
		}
		e.picked++
		e.until = until
		e.disarm()
		e.set(q, leased)
		e.putOff(q, d, nil)
		return false
	})
}

// fill reads what was picked for x, and ends it. The lock is not held.
func (q *queue) fill(x *waiter, picks []*entry) {
	read, failed := q.readAll(picks)
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, e := range picks {
		switch err := failed[i]; {
		case q.entries[e.seq] != e || e.state != leased: // purged meanwhile
		case errors.Is(err, broker.ErrGone): // it is counted where it went
			e.disarm()
			q.withdraw(e)
			delete(q.entries, e.seq)
			q.tally(e, -1)
			q.passOn(e)
		case err != nil:
			x.w.Err = err
			e.undo()
			e.set(q, back)
		default:
			x.bytes += len(read[i].Payload)
			x.got = append(x.got, taken{e, read[i]})
		}
	}
	switch {
	case len(x.got) > 0:
		x.w.Err = nil
		q.hand(x)
	case q.dropped:
		x.w.Err = q.why()
		q.s.deliver(x.w)
	case x.w.Err != nil:
		q.s.deliver(x.w)
	default:
		q.waits = slices.Insert(q.waits, 0, x)
		x.part = q.partFor(x.w.Filter)
		q.await(x)
		q.attendParts()
	}
	q.pump()
}

// readAll reads picks, which are in order: neighbours with one request, from any
// replica, and the others each from the leader. The lock is not held.
func (q *queue) readAll(picks []*entry) ([]broker.Delivery, []error) {
	near := map[uint64]*stored{}
	first, span := picks[0].seq, picks[len(picks)-1].seq-picks[0].seq+1
	if n := len(picks); n > 1 && span <= uint64(4*n) {
		list, _ := q.s.batch(q.s.ctx, q.stream, first, int(span)) // what is missing is asked for below
		for _, m := range list {
			near[m.Seq] = m
		}
	}
	read := make([]broker.Delivery, len(picks))
	failed := make([]error, len(picks))
	places := make([]int, len(picks))
	for i := range places {
		places[i] = i
	}
	_ = parallel(places, func(i int) error { // each has its own error
		m := near[picks[i].seq]
		if m == nil {
			m, failed[i] = q.there(q.s.ctx, picks[i].seq)
		}
		if failed[i] == nil {
			read[i], failed[i] = q.delivery(m.Data, m.header, m.Time)
		}
		return nil
	})
	return read, failed
}

// await has a wait for a part end at its time.
func (q *queue) await(x *waiter) {
	until := x.w.Until.Sub(q.s.Now())
	if x.hasty = until <= 0; x.hasty {
		until = lookMax
	}
	x.timer = time.AfterFunc(until, func() { q.over(x) })
}
