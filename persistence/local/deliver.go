package local

import (
	"errors"
	"slices"
	"time"

	"millrace/broker"
)

// pick is a message that was taken for a wait, as far as the queue knows it.
type pick struct {
	seq, pos uint64
	queued   int64
	until    int64
	rank     int64
	body     []byte
	size     uint32
	attempt  uint32
	epoch    uint32
	fate     fate
}

// serve hands what is ready to the waits in turn; those served go to l.
func (q *queue) serve(now int64, l *waitQueue) {
	if q.topics != nil {
		q.serveParts(now, l)
		return
	}
	for wt := q.waits.first; wt != nil; wt = q.waits.first {
		if q.pick(wt, now) == 0 {
			return
		}
		q.waits.remove(wt)
		l.push(wt)
	}
}

// serveParts is serve when some wait for a part of the queue: of those for whom
// there is something, the one who came first.
func (q *queue) serveParts(now int64, l *waitQueue) {
	var stalled []*part
	for whole := true; ; {
		wt, p := q.waits.first, q.topics.roused.first()
		if !whole {
			wt = nil
		}
		if p != nil && (wt == nil || p.turn < wt.arrival) {
			wt = p.waits.first
		}
		if wt == nil {
			break
		}
		switch {
		case q.pick(wt, now) > 0:
			q.waits.remove(wt)
			l.push(wt)
		case wt.part == nil:
			whole = false
		default:
			q.topics.roused.drop()
			if !p.dry(q) {
				stalled = append(stalled, p) // it is not committed yet, or not to be had now
			}
		}
	}
	for _, p := range stalled {
		q.topics.roused.add(p)
	}
}

// pick takes ready messages for wt, up to its limits and the queue's, and
// returns how many.
func (q *queue) pick(wt *waiter, now int64) int {
	w := wt.w
	if q.def.Paused {
		return 0
	}
	room := max(w.Max, 1)
	if q.def.MaxInFlight > 0 && w.Lease > 0 && !w.Consume {
		room = min(room, q.def.MaxInFlight-int(q.count[leased]))
	}
	if q.source != nil {
		q.source.turn++ // every wait begins at another partition
	}
	size := 0
	for len(wt.picks) < room {
		c, i := q.candidateFor(wt, q.shown)
		if c == nil {
			break
		}
		e := &c.entries[i]
		if w.MaxBytes > 0 && size > 0 && size+int(e.size) > w.MaxBytes {
			break
		}
		if q.keyed && !q.acquire(c, i) {
			continue
		}
		size += int(e.size)
		wt.picks = append(wt.picks, q.take(c, i, w, now))
	}
	return len(wt.picks)
}

// take moves one entry into the hands of w.
func (q *queue) take(c *chunk, i int, w *broker.Wait, now int64) pick {
	e := &c.entries[i]
	p := pick{seq: c.base + uint64(i), pos: e.pos, size: e.size, queued: q.queuedAt(c, e)}
	p.epoch = q.era(p.seq)
	if c.bodies != nil {
		p.body = c.bodies[i]
	}
	q.since.Deliveries++
	if w.Consume && q.source == nil {
		p.attempt = q.attempt(e) + 1
		if !q.volatile && e.pos != 0 {
			q.s.live.add(e.pos, int64(e.size)) // until the record of it is written
		}
		q.remove(c, i, broker.ReasonAcked)
		return p
	}
	s := q.slotOf(c, i)
	s.attempt++
	s.until = now + w.Lease.Milliseconds()
	if w.Consume {
		s.until = now + time.Hour.Milliseconds() // until it was read, and is removed
	}
	p.attempt, p.until, p.rank = s.attempt, s.until, s.rank
	e.meta |= metaHanded
	q.set(e, leased)
	q.leases.push(&q.slots, e.slot-1, uint64(s.until), 0)
	return p
}

// handOut delivers the waits of l, and goes on with those whose sinks ask
// again meanwhile. No lock is held.
func (s *Store) handOut(l *waitQueue) {
	for wt := l.pop(); wt != nil; wt = l.pop() {
		w := wt.w
		if p := wt.p.Load(); p != nil {
			s.fillRead(wt, p)
		} else if w.Err == nil && len(wt.picks) > 0 {
			switch s.fill(wt, l); {
			case len(w.Got) > 0 && w.Consume && !wt.q.Load().volatile:
				s.box.consume(wt)
				continue
			case len(w.Got) == 0 && w.Err == nil: // of a subscription: nothing could be delivered now
				s.register(wt, l)
				continue
			}
		}
		s.deliver(wt, l)
	}
}

// deliver calls the sink of wt. After that the wait is its caller's, unless it
// asked again.
func (s *Store) deliver(wt *waiter, l *waitQueue) {
	clear(wt.picks)
	wt.picks = wt.picks[:0]
	wt.phase.Store(delivering)
	wt.w.Sink.Deliver(wt.w)
	for !wt.phase.CompareAndSwap(delivering, atRest) {
		wt.hurry.Store(false) // it was of the wait that is over; a Cancel of the next one comes after the phase
		if wt.phase.CompareAndSwap(again, registered) {
			s.register(wt, l)
			return
		}
	}
}

// fill reads the messages that were picked, and starts their leases.
func (s *Store) fill(wt *waiter, l *waitQueue) {
	w, q := wt.w, wt.q.Load()
	w.Got = slices.Grow(w.Got, len(wt.picks))
	wt.load.begin(q, wt.picks, w.MaxBytes)
	defer wt.load.end()
	for i := range wt.picks {
		p := &wt.picks[i]
		w.Got = append(w.Got, broker.Delivery{})
		d := &w.Got[len(w.Got)-1]
		err := wt.load.message(wt.picks, i, d)
		if err == nil && q.source != nil {
			p.judge(&d.Message, s.milli())
		}
		if err == nil && p.fate == deliver {
			q.address(d, p)
			d.State = broker.Leased
			continue
		}
		w.Got = w.Got[:len(w.Got)-1]
		if p.fate != deliver {
			continue
		}
		p.fate = unread
		if !errors.Is(err, broker.ErrGone) {
			// The message keeps its lease: it is tried again when that ends.
			s.log.Error().Err(err).Str("queue", q.name).Msg("message cannot be read")
			w.Err = err
		}
	}
	if len(w.Got) > 0 {
		w.Err = nil
	}
	if !w.Consume || q.source != nil {
		s.startLeases(wt, l)
	}
}

// startLeases lets the leases of w.Got run from now, and has them recorded.
func (s *Store) startLeases(wt *waiter, l *waitQueue) {
	w, q := wt.w, wt.q.Load()
	now := s.milli()
	until := now + w.Lease.Milliseconds()
	got := w.Got
	q.mu.Lock()
	for i := range wt.picks {
		p := &wt.picks[i]
		c, j := q.find(p.seq)
		if c == nil || c.entries[j].state() != leased || q.attempt(&c.entries[j]) != p.attempt || q.era(p.seq) != p.epoch {
			c = nil // purged meanwhile, or a lease of no length that ended
		}
		if p.fate != deliver {
			if c != nil {
				q.setAside(c, j, p)
			}
			continue
		}
		d := &got[0]
		got = got[1:]
		switch {
		case c == nil:
			continue
		case w.Consume:
			q.remove(c, j, broker.ReasonAcked)
			continue
		}
		e := &c.entries[j]
		sl := q.slotOf(c, j)
		if sl.id = d.ID; q.source != nil {
			sl.expires = d.Expires
		}
		if d.Until = until; p.until != until {
			sl.until = until
			q.leases.leave(&q.slots, e.slot-1)
			q.leases.push(&q.slots, e.slot-1, uint64(until), 0)
		}
		if !q.volatile {
			q.s.box.lease(q.id, p.seq, p.attempt, until, p.rank)
		}
		if w.Lease <= 0 {
			q.lapse(c, j, now)
		}
	}
	if w.Lease <= 0 || q.source != nil {
		q.serve(now, l)
	}
	q.schedule()
	q.mu.Unlock()
}
