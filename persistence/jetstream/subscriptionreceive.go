package jetstream

import (
	"slices"
	"time"

	"millrace/broker"
	"millrace/persistence/ref"
)

// unreadFor is how long a message that could not be read is not asked for again.
const unreadFor = time.Second

// asking is a Wait on a subscription.
type asking struct {
	w     *broker.Wait
	timer *time.Timer
	picks []pick
	hurry bool // a cancel came while its messages were read: it does not wait again
}

func (a *asking) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// receive implements target.
func (b *subscription) receive(w *broker.Wait) {
	a := &asking{w: w}
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Priv = a
	b.waits = append(b.waits, a)
	b.attend()
	b.stay(a)
}

// stay has a wait until its time, if it was not served. The lock is held, here and
// below.
func (b *subscription) stay(a *asking) {
	if !slices.Contains(b.waits, a) {
		return
	}
	d := a.w.Until.Sub(b.s.Now())
	if d <= 0 || b.dropped || a.hurry {
		if b.dropped {
			a.w.Err = b.why()
		}
		b.unlist(a)
		b.s.deliver(a.w)
		return
	}
	a.timer = time.AfterFunc(d, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.unlist(a) {
			b.s.deliver(a.w)
		}
	})
}

// why is the error of a subscription that ended.
func (b *subscription) why() error {
	if _, err := b.s.lookup(b.id); err != nil {
		return err
	}
	return broker.ErrClosed
}

// unlist takes a out of the line; it reports whether it was there.
func (b *subscription) unlist(a *asking) bool {
	i := slices.Index(b.waits, a)
	if i < 0 {
		return false
	}
	b.waits = slices.Delete(b.waits, i, i+1)
	return true
}

// cancel implements target.
func (b *subscription) cancel(w *broker.Wait) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := w.Priv.(*asking)
	if !ok || a.w != w {
		return false
	}
	if !b.unlist(a) {
		a.hurry = true
		return false
	}
	a.stop()
	return true
}

// arrived is told that the stream has more.
func (b *subscription) arrived() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attend()
}

// attend gives what is ready to the waits in turn. What they get is read on a
// goroutine for each that ends with the answer.
func (b *subscription) attend() {
	for len(b.waits) > 0 && !b.dropped && !b.def.Paused {
		a := b.waits[0]
		if b.pick(a); len(a.picks) == 0 {
			break
		}
		b.waits = slices.Delete(b.waits, 0, 1)
		a.stop()
		go b.fill(a)
	}
	b.tell()
}

// pick takes ready messages for a, up to its limits and the subscription's.
func (b *subscription) pick(a *asking) {
	room := max(a.w.Max, 1)
	if limit := b.def.MaxInFlight; limit > 0 && a.w.Lease > 0 && !a.w.Consume {
		room = min(room, limit-int(b.count[leased]))
	}
	b.turn++                                                        // every wait begins at another partition
	until := b.s.Now().Add(max(a.w.Lease, time.Minute)).UnixMilli() // until it was read
	for len(a.picks) < room {
		e := b.candidate()
		if e == nil {
			return
		}
		e.attempt++
		b.set(e, leased, until)
		a.picks = append(a.picks, pick{e: e, attempt: e.attempt, epoch: b.epoch(b.laneOf(e))})
	}
}

// candidate returns the message that is handed out next, or nil. What came back
// goes first, so that each partition keeps its order.
func (b *subscription) candidate() *pending {
	if _, e, ok := b.ready.Min(); ok {
		return e
	}
	n := b.of.width()
	for range n {
		b.turn %= n
		if ln := b.lane(uint32(b.turn)); ln != nil {
			first, next := ln.p.limits()
			b.cutOff(ln, first)
			if ln.next < next {
				return b.take(ln)
			}
		}
		b.turn++
	}
	return nil
}

// fill reads what was picked for a, and ends it, or has it wait on if there was
// nothing to be delivered.
func (b *subscription) fill(a *asking) {
	err := b.fetch(b.s.ctx, a.picks, a.w.MaxBytes)
	b.mu.Lock()
	var got []*pending
	for i := range a.picks {
		if p := &a.picks[i]; b.lend(p) {
			got = append(got, p.e)
		}
	}
	after := func() {}
	switch {
	case len(got) > 0:
		after = b.hand(a, got)
	case err != nil || b.dropped:
		if a.w.Err = err; b.dropped {
			a.w.Err = b.why()
		}
		after = func() { b.s.deliverNow(a.w) }
	default:
		a.picks = a.picks[:0]
		b.waits = slices.Insert(b.waits, 0, a)
	}
	b.attend()
	if len(a.picks) == 0 {
		b.stay(a)
	}
	b.mu.Unlock()
	after()
}

// lend decides about a message that was read, and reports whether it is delivered.
func (b *subscription) lend(p *pick) bool {
	e := p.e
	ln := b.laneOf(e)
	if there, _ := ln.open.Get(ref.Offset(e.seq).Offset); there != e || e.state != leased || e.attempt != p.attempt || b.epoch(ln) != p.epoch {
		return false // settled meanwhile, or passed over
	}
	switch p.fate {
	case delivered:
		e.here, e.id = true, p.d.ID
		return true
	case surplus:
		e.attempt--
		b.set(e, back, 0)
	case early:
		e.attempt--
		b.set(e, delayed, p.d.NotBefore)
	case expired:
		b.remove(e, broker.ReasonExpired)
		b.untold[broker.ReasonExpired]++
	case lost:
		b.remove(e, broker.ReasonRetention)
		b.untold[broker.ReasonRetention]++
	default: // unread: soon again
		e.attempt--
		b.set(e, delayed, b.s.milli()+unreadFor.Milliseconds())
	}
	return false
}

// hand leases what a got, and returns what ends it without the lock.
func (b *subscription) hand(a *asking, got []*pending) func() {
	w := a.w
	until := b.s.Now().Add(w.Lease).UnixMilli()
	b.since.Deliveries += uint64(len(got))
	for _, e := range got {
		b.set(e, leased, until)
	}
	for i, n := 0, 0; i < len(a.picks) && n < len(got); i++ {
		if p := &a.picks[i]; p.e == got[n] {
			n++
			b.address(&p.d, p.e)
			p.d.State = broker.Leased
			w.Got = append(w.Got, p.d)
		}
	}
	switch {
	case w.Consume:
		return b.consume(w, got)
	case w.Lease <= 0:
		for _, e := range got {
			b.comeBack(e)
		}
	}
	return func() { b.s.deliverNow(w) }
}

// consume settles what w got before it is delivered.
func (b *subscription) consume(w *broker.Wait, got []*pending) func() {
	for _, e := range got {
		b.vanish(e)
	}
	return b.record(change{done: func(err error) {
		b.mu.Lock()
		for _, e := range got {
			b.vanished(e, broker.ReasonAcked, back, 0, err)
		}
		b.attend()
		b.mu.Unlock()
		if err != nil {
			w.Got, w.Err = w.Got[:0], err
		}
		b.s.deliverNow(w)
	}})
}
