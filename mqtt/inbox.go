package mqtt

import (
	"context"

	"millrace/broker"
)

// sharedFrom is the first packet id of a durable session that goes round. Those
// below are of the messages that the broker keeps for it: each has the id that
// its place in the backlog gives, so that it is sent again under the same one
// ([MQTT-4.4.0-1]) also after a kill -9, without a record of what was sent.
const sharedFrom = 49_152

// keptID is the packet id of the message at a place of the backlog. Two have the
// same one if they are 49,151 places apart: should the earlier one still be on its
// way, the later one gets an id of those that go round, which is recorded first.
func keptID(seq uint64) uint16 { return uint16((seq-1)%(sharedFrom-1)) + 1 }

// inboxPage is how many messages are taken, or read again, at a time.
const inboxPage = 64

// inbox is what the broker keeps for a client, on its way there: first what was
// sent on an earlier connection and not acknowledged, then what waits. It is the
// sink of a consumer. Guarded by session.mu.
type inbox struct {
	s       *session
	c       *broker.Consumer // nil while no subscription wants messages that are kept
	held    []arrival        // taken, and not written yet, in order
	starved bool             // the consumer was told that there is no room

	from  uint64 // the place after all that came
	again bool   // from there on there may be more that was sent before,
	busy  bool   // and somebody reads it

	numbers   map[uint64]uint16 // ids that were recorded, by place; nil for most
	numbering bool              // one is being recorded for the first of held
}

// id is the packet id of the message at a place. One that was recorded is free.
func (b *inbox) id(seq uint64) (id uint16, recorded bool) {
	if id, recorded = b.numbers[seq]; recorded {
		return id, true
	}
	return keptID(seq), false
}

// arrival is a message that is to be written.
type arrival struct {
	d     broker.Delivery
	terms broker.Terms
	dup   bool
}

// kept is a message of the backlog in the hands of the client.
type kept broker.Ref

// settled implements cargo: whatever the client answers, it has the message, or
// does not want it.
func (k *kept) settled(s *session, id uint16, _ reason, done func(error)) {
	s.acked(broker.Ref(*k), id, done)
	if id < sharedFrom {
		return
	}
	s.settlements().Unnumber(s.kept, k.Seq)
	s.mu.Lock()
	delete(s.inbox.numbers, k.Seq)
	s.mu.Unlock()
}

// acked removes a message that the client has. With done it is one of QoS 2,
// whose id a durable session remembers.
func (s *session) acked(r broker.Ref, id uint16, done func(error)) {
	if st := s.settlements(); done != nil && s.durable() {
		st.Handed(s.kept, r, id, done)
	} else {
		st.Ack(r, done)
	}
}

// settlements gathers what goes out with the next flush of the reader.
func (s *session) settlements() *broker.Settlements {
	if s.settling == nil {
		s.settling = s.c.srv.o.Broker.NewSettlements()
	}
	s.c.input.dirty = true
	return s.settling
}

// resume goes on, after CONNACK, where the connection before ended: MQTT 5
// section 4.4.
func (s *session) resume() error {
	if !s.durable() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	numbers, err := s.kept.Numbers(ctx)
	if err != nil {
		return &faultError{answerOf(err).code, "messages sent before cannot be read: " + err.Error(), closeQuota}
	}
	ids := s.kept.Released()
	s.mu.Lock()
	s.inbox.numbers = numbers
	for _, id := range numbers {
		s.window.promise(id)
	}
	for _, id := range ids {
		s.window.put(id, flight{state: wantPubcomp, recorded: true})
	}
	s.inbox.again = true
	s.mu.Unlock()
	for _, id := range ids {
		s.c.send(appendAck(nil, typePubrel, id, success, s.c.v5))
	}
	s.sendAgain()
	defer s.c.srv.o.Broker.Advance(func(yield func(string, bool) bool) {
		s.kept.Filters(func(filter string, o broker.SubscriptionOptions) bool { return yield(filter, o.QoS > 0) })
	})()
	s.kept.Filters(func(filter string, o broker.SubscriptionOptions) bool {
		s.reattach(filter, o)
		return true
	})
	if err := s.kept.Commit(ctx); err != nil { // of what is not allowed any more
		return &faultError{answerOf(err).code, "session was not changed", closeQuota}
	}
	s.recover(s.c.grace)
	s.c.grace = nil
	s.openInbox()
	s.kick()
	return nil
}

// reattach lets a subscription of before take live messages, and messages of
// queues, again.
func (s *session) reattach(filter string, o broker.SubscriptionOptions) {
	w := want{filter: filter, qos: o.QoS, noLocal: o.NoLocal, rap: o.RetainAsPublished, handling: 2}
	if from, ok := wantedFrom(filter); ok || isShared(filter) {
		var code reason
		if ok {
			code, _ = s.consume(o.ID, w, from)
		} else {
			code = s.subscribe(o.ID, w)
		}
		if code >= unspecified {
			s.kept.Unsubscribe(filter)
		}
		return
	}
	sub := s.subscription(&member{
		s: s, filter: filter, id: o.ID, qos: o.QoS, noLocal: o.NoLocal, rap: o.RetainAsPublished, handling: o.Handling,
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.kept.Reattach(sub) || s.closed {
		return
	}
	if len(s.subs) > 0 {
		s.multi.Store(true)
	}
	s.keep(sub)
}

// openInbox begins to take what waits, once something can wait.
func (s *session) openInbox() {
	if !s.durable() {
		return
	}
	s.mu.Lock()
	b := &s.inbox
	if b.c == nil && !s.closed {
		b.s = s
		b.c = s.kept.Receive(sink{s})
	}
	c := b.c
	s.mu.Unlock()
	if c != nil {
		c.Kick()
	}
}

// sink is the session as the sink of its backlog.
type sink struct{ s *session }

// Credit implements broker.ConsumerSink.
func (k sink) Credit() int {
	s := k.s
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.inbox
	room := s.window.size - len(s.window.out)
	if s.closed || b.again || len(b.held) > 0 || room <= 0 {
		b.starved = true
		return 0
	}
	return min(room, inboxPage)
}

// Take implements broker.ConsumerSink. What came before comes again where another node
// leads, and does not know what was sent just before: it is the client's, or waits to be.
func (k sink) Take(ds []broker.Delivery) {
	s := k.s
	s.mu.Lock()
	from := s.inbox.from
	s.mu.Unlock()
	for len(ds) > 0 && ds[0].Seq < from {
		ds = ds[1:]
	}
	if len(ds) == 0 {
		return
	}
	as := s.arrivals(ds, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.inbox
	b.from = max(b.from, ds[len(ds)-1].Seq+1)
	if len(b.held) == 0 { // also of one that is closed, which then gives it back
		b.held = as
	} else {
		b.held = append(b.held, as...)
	}
	if !s.closed {
		s.writeInbox()
	}
}

// Ended implements broker.ConsumerSink: the session was ended, and so is the
// connection.
func (k sink) Ended(error) {}

// Missed implements broker.BacklogSink: what did not come is sent as if again.
func (k sink) Missed() {
	s := k.s
	s.mu.Lock()
	s.inbox.again = !s.closed
	s.mu.Unlock()
	go func() {
		defer s.c.recovered()
		s.sendAgain()
	}()
}

// arrivals asks the broker how ds are to be delivered, and takes out those that
// are not.
func (s *session) arrivals(ds []broker.Delivery, dup bool) []arrival {
	as := make([]arrival, 0, len(ds))
	for i := range ds {
		terms, ok := s.kept.Terms(&ds[i])
		if !ok {
			s.c.srv.stats.drop(dropDenied)
			s.c.srv.keeper.drop(ds[i].Ref, broker.ReasonUndelivered)
			continue
		}
		as = append(as, arrival{d: ds[i], terms: terms, dup: dup})
	}
	return as
}

// writeInbox sends what was taken, as far as window and output allow. The
// caller holds mu.
func (s *session) writeInbox() {
	b := &s.inbox
	for len(b.held) > 0 && s.backlog.len() == 0 && !s.window.full() && !s.closed {
		a := &b.held[0]
		id, recorded := b.id(a.d.Seq)
		if !recorded && s.window.has(id) {
			s.renumber(a.d.Seq)
			return
		}
		p := pending{m: &a.d.Message, qos: a.terms.QoS, retain: a.terms.Retain, dup: a.dup, id: id, ids: a.terms.IDs}
		e := newEncoder(s.c.srv.o.Broker, p.m)
		if a.terms.ID != 0 {
			e.ids = append(e.ids[:0], a.terms.ID)
			p.ids = e.ids
		}
		p.cargo = (*kept)(&broker.Ref{Target: a.d.Target, Seq: a.d.Seq, Attempt: a.d.Attempt, Epoch: a.d.Epoch})
		sent := s.write(e, &p, false)
		expired := e.expired()
		e.free()
		if sent == unfit && recorded { // the record goes when the client comes back
			delete(s.window.promised, id)
			delete(b.numbers, a.d.Seq)
		}
		switch {
		case sent == noRoom:
			return
		case sent == unfit && expired:
			s.c.srv.keeper.drop(a.d.Ref, broker.ReasonExpired)
		case sent == unfit:
			s.c.srv.keeper.drop(a.d.Ref, broker.ReasonUndelivered)
		}
		*a = arrival{}
		b.held = b.held[1:]
	}
	if len(b.held) == 0 {
		b.held = nil
	}
}

// renumber finds another packet id for the next message, whose own is on its way
// with an earlier one, and has it recorded. The caller holds mu.
func (s *session) renumber(seq uint64) {
	if s.inbox.numbering {
		return
	}
	s.inbox.numbering = true
	id := s.window.next()
	s.window.promise(id)
	s.c.srv.keeper.renumber(s, seq, id)
}

// renumbered goes on with that message. The store calls it, so that the rest is
// left to whoever writes.
func (s *session) renumbered(seq uint64, id uint16, err error) {
	if err != nil {
		s.c.end(&faultError{unspecified, "packet id of a message could not be recorded: " + err.Error(), closeQuota})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.inbox
	if b.numbering = false; b.numbers == nil {
		b.numbers = make(map[uint64]uint16)
	}
	b.numbers[seq] = id
	s.c.wmu.Lock()
	s.c.out.blocked = true
	s.c.wmu.Unlock()
	s.writeInbox()
}

// thirst reports whether the inbox can take more, and has to say so. The caller
// holds mu.
func (b *inbox) thirst(w *window) bool {
	return b.c != nil && b.starved && !b.again && len(b.held) == 0 && !w.full()
}

// refill takes more, or reads more of what was sent before.
func (s *session) refill() {
	s.mu.Lock()
	b := &s.inbox
	again := b.again && !b.busy && len(b.held) == 0
	c := b.c
	if thirsty := b.thirst(&s.window); thirsty {
		b.starved = false
	} else {
		c = nil
	}
	s.mu.Unlock()
	if again {
		s.sendAgain()
	}
	if c != nil {
		c.Kick()
	}
}

// sendAgain reads page by page what the client was sent on earlier connections
// and did not acknowledge, and sends it, in its order.
func (s *session) sendAgain() {
	b := &s.inbox
	s.mu.Lock()
	for b.again && !b.busy && len(b.held) == 0 && !s.closed {
		b.busy = true
		from := b.from
		s.mu.Unlock()
		ds, err := s.kept.InFlight(context.Background(), from, inboxPage, nil)
		as := s.arrivals(ds, true)
		s.mu.Lock()
		b.busy = false
		if err != nil {
			s.c.end(&faultError{unspecified, "messages sent before cannot be read: " + err.Error(), closeQuota})
			break
		}
		if b.again = len(ds) > 0; b.again {
			b.from = ds[len(ds)-1].Seq + 1
		}
		b.held = append(b.held, as...)
		s.writeInbox()
	}
	c := b.c
	done := !b.again
	s.mu.Unlock()
	if done && c != nil {
		c.Kick()
	}
}

// end closes the consumer of a session that is closed, and returns what was
// taken and never sent as if it had not been taken.
func (s *session) endInbox() {
	s.mu.Lock()
	c := s.inbox.c
	s.mu.Unlock()
	if c != nil {
		c.Close()
	}
	back := s.c.srv.o.Broker.NewSettlements()
	s.mu.Lock()
	for i := range s.inbox.held {
		if a := &s.inbox.held[i]; !a.dup {
			back.Return(a.d.Ref, nil)
		}
	}
	s.inbox = inbox{}
	s.mu.Unlock()
	back.Submit()
}
