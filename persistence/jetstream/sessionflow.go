package jetstream

import (
	"slices"
	"time"

	"millrace/broker"
)

// receive implements target.
func (b *backlog) receive(w *broker.Wait) {
	x := &sessionWait{w: w}
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Priv = x
	if b.dropped {
		w.Err = broker.ErrGone
		b.s.deliver(w)
		return
	}
	b.waits = append(b.waits, x)
	b.serve()
	if !slices.Contains(b.waits, x) {
		return
	}
	if d := w.Until.Sub(b.s.Now()); d > 0 {
		x.timer = time.AfterFunc(d, func() { b.over(x) })
		return
	}
	b.unlist(x)
	b.s.deliver(w)
}

// over ends a wait whose time has come.
func (b *backlog) over(x *sessionWait) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unlist(x) {
		b.s.deliver(x.w)
	}
}

// unlist takes x out of the line; it reports whether x was there.
func (b *backlog) unlist(x *sessionWait) bool {
	i := slices.Index(b.waits, x)
	if i < 0 {
		return false
	}
	b.waits = slices.Delete(b.waits, i, i+1)
	if x.timer != nil {
		x.timer.Stop()
	}
	return true
}

// end ends a wait that is out of the line.
func (x *sessionWait) end(b *backlog, why error) {
	if x.timer != nil {
		x.timer.Stop()
	}
	x.w.Err = why
	b.s.deliver(x.w)
}

// cancel implements target.
func (b *backlog) cancel(w *broker.Wait) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	x, ok := w.Priv.(*sessionWait)
	return ok && x.w == w && b.unlist(x)
}

// serve gives what is ready to those who wait, in order of their arrival.
func (b *backlog) serve() {
	for len(b.waits) > 0 && b.begun && !b.dropped && !b.def.Paused {
		x := b.waits[0]
		got := b.collect(x.w)
		if len(got) == 0 {
			return
		}
		b.unlist(x)
		b.hand(x.w, got)
	}
}

// collect finds what w may have.
func (b *backlog) collect(w *broker.Wait) []*place {
	limit := w.Max
	if most := b.def.MaxInFlight; most > 0 {
		limit = min(limit, most-int(b.leased))
	}
	var got []*place
	now, bytes := b.s.milli(), 0
	for i := b.next; i < len(b.list) && len(got) < limit; i++ {
		p := b.list[i]
		switch n := int(p.at.size.payload); {
		case p.state != back:
			if len(got) == 0 {
				b.next = i + 1
			}
		case p.at.expires != 0 && p.at.expires <= now:
			b.soon(now) // it goes then
		case w.MaxBytes > 0 && len(got) > 0 && bytes+n > w.MaxBytes:
			return got
		default:
			bytes += n
			got = append(got, p)
		}
	}
	return got
}

// hand gives messages to w: leased, or gone, or ready again at once.
func (b *backlog) hand(w *broker.Wait, got []*place) {
	lease := w.Lease
	if w.Consume {
		lease = consumeLease
	}
	until := b.s.Now().Add(lease).UnixMilli()
	places := make([]place, len(got))
	for i, p := range got {
		p.tries++
		b.since.Deliveries++
		b.mark = max(b.mark, p.at.seq)
		b.set(p, leased, until)
		places[i] = *p
	}
	switch {
	case w.Consume:
		b.s.work.Go(func() { b.consume(w, places) })
		return
	case w.Lease <= 0:
		for _, p := range got {
			b.set(p, back, 0)
		}
	}
	if ms := atHand(places); ms != nil {
		b.fill(w, places, ms)
		b.s.deliver(w)
		return
	}
	b.s.work.Go(func() { b.bring(w, places, nil) })
}

// atHand returns the messages of places, or nil if one has to be fetched.
func atHand(places []place) []*broker.Message {
	ms := make([]*broker.Message, len(places))
	for i := range places {
		if ms[i] = places[i].at.m.Load(); ms[i] == nil {
			return nil
		}
	}
	return ms
}

func (b *backlog) fill(w *broker.Wait, places []place, ms []*broker.Message) {
	for i := range places {
		if ms[i] != nil {
			w.Got = append(w.Got, b.delivery(&places[i], ms[i]))
		}
	}
}

// bring fetches messages and delivers them. What cannot be fetched is given back,
// and what somebody took out of the log by hand is gone.
func (b *backlog) bring(w *broker.Wait, places []place, err error) {
	var ms []*broker.Message
	if err == nil {
		ms, err = b.s.sessions.messages(b.s.ctx, places)
	}
	if err == nil {
		b.fill(w, places, ms)
	}
	w.Err = err
	lost := 0
	b.mu.Lock()
	for i := range places {
		p := b.place(places[i].at.seq)
		switch {
		case p == nil || p.state != leased || p.tries != places[i].tries:
		case err != nil:
			p.tries--
			b.set(p, back, 0)
		case ms[i] == nil:
			lost++
			b.discard(p, broker.ReasonPurged)
		}
	}
	b.mu.Unlock()
	if lost > 0 {
		b.s.log.Error().Str("session", b.def.Name).Int("messages", lost).Msg("messages of a session are not in its log any more")
	}
	if err == nil && len(w.Got) == 0 {
		b.receive(w) // it waits on
		return
	}
	b.s.deliverNow(w)
}

// consumeLease is how long a wait that consumes has what it got before that is settled.
const consumeLease = time.Minute

// consume fetches messages, and delivers them once it is recorded that they are gone:
// nobody finds them in the log after that.
func (b *backlog) consume(w *broker.Wait, places []place) {
	ms, err := b.s.sessions.messages(b.s.ctx, places)
	if err != nil {
		b.bring(w, places, err)
		return
	}
	var got []place
	var with []*broker.Message
	b.mu.Lock()
	for i := range places {
		p := b.place(places[i].at.seq)
		switch {
		case p == nil || p.state != leased || p.tries != places[i].tries: // it was purged, or settled
		case ms[i] == nil:
			b.discard(p, broker.ReasonPurged)
		default:
			b.lose(p, broker.ReasonAcked)
			got, with = append(got, places[i]), append(with, ms[i])
		}
	}
	b.record(func(err error) {
		if w.Err = err; err == nil {
			b.fill(w, got, with)
		}
		if err == nil && len(got) == 0 {
			b.receive(w) // it waits on
			return
		}
		b.s.deliver(w)
	})
	b.mu.Unlock()
}

// settleable implements source.
func (b *backlog) settleable(op *broker.Op) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.place(op.Ref.Seq)
	switch {
	case op.Kind == broker.OpPurge:
		return nil
	case p == nil:
		return broker.ErrGone
	case op.Kind == broker.OpSettle: // by its one client, whichever node has sent it how often
		return nil
	case op.Ref.Attempt < p.tries, op.Kind == broker.OpPark:
		return broker.ErrStale // and nothing is ever held for the broker
	}
	return nil
}

// apply implements source.
func (b *backlog) apply(op *broker.Op, u *unit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if op.Kind == broker.OpPurge {
		u.u.Result.Count = b.purge(op.All)
		b.record(u.done)
		return
	}
	p := b.place(op.Ref.Seq)
	if p == nil {
		b.s.work.Go(func() { u.done(broker.ErrGone) })
		return
	}
	switch {
	case op.Kind == broker.OpSettle:
		b.lose(p, op.Reason)
		b.record(u.done)
		b.serve()
		return
	case op.Kind == broker.OpReturn:
		p.tries -= min(p.tries, 1)
		b.set(p, back, 0)
	case op.All && op.Until <= b.s.milli():
		b.since.Returns++
		b.set(p, back, 0)
	case op.All:
		b.since.Returns++
		b.set(p, delayed, op.Until)
	default:
		b.set(p, leased, op.Until)
	}
	b.serve()
	// What was sent is recorded soon: after a crash it is sent once more either way.
	b.s.work.Go(func() { u.done(nil) })
}

// purge takes out what is ready and delayed, with all also what is leased.
func (b *backlog) purge(all bool) (n int) {
	for _, p := range slices.Clone(b.list) {
		if p.state == back || p.state == delayed || all && p.state == leased {
			b.lose(p, broker.ReasonPurged)
			n++
		}
	}
	return n
}

// find implements source.
func (b *backlog) find(id broker.ID) (broker.Ref, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.list {
		if p.at.id == id && p.tries > 0 && p.state != leaving {
			return broker.Ref{Target: b.id, Seq: p.at.seq, Attempt: p.tries}, nil
		}
	}
	return broker.Ref{}, broker.ErrNotFound
}
