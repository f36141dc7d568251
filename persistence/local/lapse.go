package local

import "millrace/broker"

// advance does everything that is due in q at now: delays and leases that
// end, messages that expire, waits whose time is over (which go to l).
func (q *queue) advance(now int64, l *waitQueue) {
	if !q.s.bound.Load() {
		return
	}
	for n := q.delayed.top(&q.slots); n != nil && int64(n.key) <= now; n = q.delayed.top(&q.slots) {
		q.due(q.find(q.slots.all[n.slot].seq))
	}
	for n := q.leases.top(&q.slots); n != nil && int64(n.key) <= now; n = q.leases.top(&q.slots) {
		c, i := q.find(q.slots.all[n.slot].seq)
		q.since.Lapses++
		q.lapse(c, i, now)
	}
	q.expireDue(now)
	if ttl := q.def.TTL.Milliseconds(); ttl > 0 {
		for c, i := q.front(q.shown); c != nil && q.queuedAt(c, &c.entries[i])+ttl <= now; c, i = q.front(q.shown) {
			q.expire(c, i)
		}
	}
	if keep := q.def.DeadRetention.Milliseconds(); keep > 0 {
		for n := q.dead.top(&q.slots); n != nil && int64(n.key)+keep <= now; n = q.dead.top(&q.slots) {
			c, i := q.find(q.slots.all[n.slot].seq)
			q.discard(c, i, broker.ReasonRetention)
		}
	}
	if q.topics != nil && q.topics.check <= now {
		q.topics.tidy(now)
	}
	for q.waits.any() && q.waits.until[0].until <= now {
		wt := q.waits.until[0]
		q.waits.remove(wt)
		l.push(wt)
	}
}

// due makes a delayed message ready.
func (q *queue) due(c *chunk, i int) {
	e := &c.entries[i]
	s := q.slotOf(c, i)
	if q.exhausted(s) {
		q.hold(c, i, broker.ReasonAttempts)
		return
	}
	q.giveBack(c, i, max(s.until, e.time(c)))
}

// settlePlace gives a delayed publish its place: behind all that was queued
// before it was due. The clock of the store moves past that time, so that what
// is queued later is behind it also when the journal is read again.
func (q *queue) settlePlace(s *slot, now int64) {
	if s.place == 0 {
		s.rank = min(s.rank, now)
		s.place = q.placeAt(s.rank)
		q.s.after(s.rank)
	}
}

// time returns when an entry was published into its queue.
func (e *entry) time(c *chunk) int64 { return c.time + int64(e.queued) }

// exhausted reports whether the broker decides about a message instead of the
// next consumer.
func (q *queue) exhausted(s *slot) bool {
	return q.def.LapseAt > 0 && s.attempt >= q.def.LapseAt
}

// lapse ends the lease of a message.
func (q *queue) lapse(c *chunk, i int, now int64) {
	if q.exhausted(q.slotOf(c, i)) {
		q.hold(c, i, broker.ReasonAttempts)
		return
	}
	if q.keyed {
		q.release(c, i)
	}
	q.giveBack(c, i, now)
}

// giveBack makes a message that has a slot ready at its place, or expires it.
func (q *queue) giveBack(c *chunk, i int, now int64) {
	e := &c.entries[i]
	s := q.slotOf(c, i)
	q.settlePlace(s, now)
	if s.expires != 0 && s.expires <= now {
		q.expire(c, i)
		return
	}
	if ttl := q.def.TTL.Milliseconds(); ttl > 0 {
		end := q.queuedAt(c, e) + ttl
		if end <= now {
			q.expire(c, i)
			return
		}
		q.noteTTL(c, i)
	}
	q.comeBack(c, i)
}

// noteTTL notes when the queue's time to live ends a message that the cursor
// does not come to any more. One that was published with a delay has none yet.
func (q *queue) noteTTL(c *chunk, i int) {
	e := &c.entries[i]
	ttl := q.def.TTL.Milliseconds()
	if ttl <= 0 || q.slotOf(c, i).place == 0 {
		return
	}
	q.expiries.add(q.queuedAt(c, e)+ttl, c.base+uint64(i), true)
	if len(q.expiries.list) > 64 {
		q.expiries.sweep(q.expiries.live+int(q.count[returned]+q.count[blocked]+q.count[delayed]), func(x expiry) bool {
			c, i := q.chunks.find(x.seq)
			return c != nil && c.entries[i].state() != gone && (!x.ttl || c.entries[i].state() != leased)
		})
	}
}

// expireDue ends the messages whose time was noted and is over. One that is
// leased now ends when its lease does.
func (q *queue) expireDue(now int64) {
	for len(q.expiries.list) > 0 && q.expiries.list[0].time <= now {
		x := q.expiries.pop()
		c, i := q.chunks.find(x.seq)
		if c == nil {
			continue
		}
		e := &c.entries[i]
		switch e.state() {
		case waiting, returned, delayed, blocked:
			if ttl := q.def.TTL.Milliseconds(); x.ttl && (ttl == 0 || q.queuedAt(c, e)+ttl > now) {
				continue
			}
			q.expire(c, i)
		case leased, held, dead:
			if !x.ttl {
				q.slotOf(c, i).expires = x.time
			}
		default:
		}
	}
}

// expire ends a message whose time is over.
func (q *queue) expire(c *chunk, i int) {
	if q.def.ExpiryLapses {
		q.hold(c, i, broker.ReasonExpired)
		return
	}
	q.discard(c, i, broker.ReasonExpired)
}

// hold keeps a message for the broker, which is told.
func (q *queue) hold(c *chunk, i int, why broker.Reason) {
	e := &c.entries[i]
	s := q.slotOf(c, i)
	q.set(e, held)
	e.meta = e.meta&^reasonMask | uint32(why)<<reasonShift
	q.untold = append(q.untold, s.seq)
	q.s.teller.add(q)
}

// discard removes a message of the store's own accord. The record of it is
// written without haste: if it is lost, the message is discarded once more.
func (q *queue) discard(c *chunk, i int, why broker.Reason) {
	if !q.volatile {
		q.s.box.settle(q.id, c.base+uint64(i), why)
	}
	q.remove(c, i, why)
	q.toTell(why, 1)
}

// toTell has Events told that n messages are gone, unless an earlier process
// was told.
func (q *queue) toTell(why broker.Reason, n int) {
	if n > 0 && q.s.bound.Load() {
		q.dropt[why] += n
		q.s.teller.add(q)
	}
}

// makeRoom discards, or holds for the broker, the oldest messages until q is
// within its limits: ready ones first, then delayed ones, then dead ones, and
// only then what the unit at hand has brought.
func (q *queue) makeRoom() {
	for q.over(load{}) {
		c, i := q.victim()
		if c == nil {
			return
		}
		if q.def.OverflowLapses && c.entries[i].state() != dead {
			q.hold(c, i, broker.ReasonOverflow)
		} else {
			q.discard(c, i, broker.ReasonOverflow)
		}
	}
}

// victim returns the message that makes room next, or nil.
func (q *queue) victim() (*chunk, int) {
	if c, i := q.candidate(q.unit.first); c != nil {
		return c, i
	}
	for _, h := range [...]*heap{&q.delayed, &q.dead} {
		if seq, ok := h.topBefore(&q.slots, q.unit.first); ok {
			return q.chunks.find(seq)
		}
	}
	if c, i := q.candidate(q.next); c != nil {
		return c, i
	}
	if n := q.delayed.top(&q.slots); n != nil {
		return q.chunks.find(n.seq)
	}
	return nil, 0
}

// load is a number of messages and what they weigh, as limits count it.
type load struct{ messages, bytes, payload int64 }

func (l load) plus(m load) load {
	return load{l.messages + m.messages, l.bytes + m.bytes, l.payload + m.payload}
}

// beyond reports whether l is more than d allows.
func (l load) beyond(d *broker.Def) bool {
	return d.MaxMessages > 0 && l.messages > d.MaxMessages || d.MaxBytes > 0 && l.bytes > d.MaxBytes || d.MaxPayload > 0 && l.payload > d.MaxPayload
}

// loadOf is what q holds in one state.
func (q *queue) loadOf(s state) load { return load{q.count[s], q.bytes[s], q.payload[s]} }

// over reports whether q with more is beyond its limits. Held messages are on
// their way out and do not count.
func (q *queue) over(more load) bool {
	for s := waiting; s < states; s++ {
		if s != held {
			more = more.plus(q.loadOf(s))
		}
	}
	return more.beyond(q.def)
}

// fits reports whether more can be taken, if need be by making room.
func (q *queue) fits(more load) bool {
	return !q.over(more) || q.def.DropOldest && !more.plus(q.loadOf(leased)).beyond(q.def)
}

// nextEvent returns when something is due in q, 0 for never.
func (q *queue) nextEvent() int64 {
	var at int64
	sooner := func(t int64) {
		if at == 0 || t < at {
			at = t
		}
	}
	for _, h := range [...]*heap{&q.delayed, &q.leases} {
		if n := h.top(&q.slots); n != nil {
			sooner(int64(n.key))
		}
	}
	if n := q.dead.top(&q.slots); n != nil && q.def.DeadRetention > 0 {
		sooner(int64(n.key) + q.def.DeadRetention.Milliseconds())
	}
	if len(q.expiries.list) > 0 {
		sooner(q.expiries.list[0].time)
	}
	if q.waits.any() {
		sooner(q.waits.until[0].until)
	}
	if q.topics != nil {
		sooner(q.topics.check)
	}
	if ttl := q.def.TTL.Milliseconds(); ttl > 0 {
		if c, i := q.front(q.shown); c != nil {
			sooner(c.entries[i].time(c) + ttl)
		}
	}
	return at
}

// schedule sets the timer of q if it must look earlier than it will. A timer
// that comes too early finds nothing and is set anew, or not at all: that costs
// less than to move it with every lease that is settled in time.
func (q *queue) schedule() {
	if !q.s.bound.Load() {
		return
	}
	if at := q.nextEvent(); at != 0 && (q.wake == 0 || at < q.wake) {
		q.wake = at
		q.s.timers.set(q, at)
	}
}
