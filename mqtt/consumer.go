package mqtt

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clients"
	"millrace/router"
)

// prefetch is how many messages of queues one connection holds at most; its
// Receive Maximum may say less.
const prefetch = 100

// consumers are the queues and streams that a session receives from. Its credit is one for
// all of them. Guarded by session.mu.
type consumers struct {
	by      map[string]*taking // by filter
	out     int                // messages taken and not settled
	held    []*leased          // of these, what is not written yet, in order
	starved bool               // a queue was told that there is no credit
}

// taking is one subscription to a queue or stream, and the sink of its consumer.
type taking struct {
	wanted
	s     *session
	c     *broker.Consumer
	id    uint32 // Subscription Identifier; under session.mu, like the rest
	qos   byte
	ended bool
	// returning is how many messages go back: before they are in their place, those
	// behind them are not asked for.
	returning int
}

// leased is a message of a queue in the hands of the client, or on its way there.
type leased struct {
	of      *taking
	d       broker.Delivery
	fixed   bool   // its lease ends by itself
	id      uint16 // packet id, once it was sent
	again   bool   // on an earlier connection
	exactly bool   // in QoS 2
}

// consume subscribes to a queue or stream. What it is given comes after SUBACK.
func (s *session) consume(subID uint32, w want, o wanted) (reason, string) {
	b := s.c.srv.o.Broker
	if o.start == "" {
		o.start = w.start
	}
	switch {
	case !o.valid(b):
		return badFilter, ""
	case w.qos == 0:
		return implementation, "a " + o.kind() + " needs QoS 1 or 2: the acknowledgement is what takes a message out"
	}
	t := &taking{wanted: o, s: s, id: subID, qos: w.qos}
	s.mu.Lock()
	if old := s.takes.by[w.filter]; old != nil { // again, with other options
		if !s.c.srv.auth.Allow(s.who, auth.Consume, o.resource()) {
			s.mu.Unlock()
			return notAuthorized, "the " + o.kind() + " may not be consumed any more" // review ends it
		}
		old.id, old.qos = subID, w.qos
		s.mu.Unlock()
		if s.durable() {
			s.kept.Remember(w.filter, w.options(subID))
		}
		return reason(w.qos), ""
	}
	n := len(s.subs) + len(s.takes.by)
	s.mu.Unlock()
	if n >= s.c.srv.limits.Load().MaxSubs {
		return quotaExceeded, ""
	}
	ctx, cancel := context.WithTimeout(auth.WithPrincipal(context.Background(), s.who), endTimeout)
	defer cancel()
	from, err := o.open(ctx, b, s.id)
	if err == nil && o.selects() && !o.stream {
		from, err = from.Part(o.rest)
	}
	if err == nil {
		t.c, err = from.Consume(t)
	}
	if err != nil {
		text := "the " + o.kind() + " cannot be received from"
		if e, ok := errors.AsType[*broker.Error](err); ok {
			text = e.Message
		}
		return answerOf(err).code, text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		if s.takes.by == nil {
			s.takes.by = map[string]*taking{}
		}
		s.takes.by[w.filter] = t
		s.c.srv.o.Clients.Subscribe(s, clients.Subscription{ClientID: s.id, Filter: w.filter, QoS: w.qos, Durable: s.durable()})
	}
	if s.durable() {
		s.kept.Remember(w.filter, w.options(subID))
	}
	return reason(w.qos), ""
}

// kick lets every queue see the credit.
func (s *session) kick() {
	s.mu.Lock()
	s.takes.starved = false
	ts := make([]*taking, 0, len(s.takes.by))
	for _, t := range s.takes.by { // in no order: none is always the first
		ts = append(ts, t)
	}
	s.mu.Unlock()
	for _, t := range ts {
		t.c.Kick()
	}
}

// Credit implements broker.ConsumerSink: each queue may take its part of what
// the connection has left.
func (t *taking) Credit() int {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || t.ended || t.returning > 0 {
		return 0
	}
	left := min(s.window.size, prefetch) - s.takes.out
	if left <= 0 {
		s.takes.starved = true
		return 0
	}
	return max(1, left/len(s.takes.by))
}

// Take implements broker.ConsumerSink. Several queues may have been asked for
// the same last message: what is too much goes back.
func (t *taking) Take(ds []broker.Delivery) {
	s := t.s
	fixed := t.c.Fixed()
	var surplus []broker.Ref
	s.mu.Lock()
	for i := range ds {
		if t.stream && t.selects() && !router.Match(t.rest, ds[i].Topic) { // the cursor goes on without it
			s.c.srv.keeper.drop(ds[i].Ref, broker.ReasonSkipped)
			continue
		}
		if s.closed || t.ended || s.takes.out >= min(s.window.size, prefetch) {
			s.takes.starved = true
			surplus = append(surplus, ds[i].Ref)
			continue
		}
		s.takes.out++
		s.takes.held = append(s.takes.held, &leased{of: t, d: ds[i], fixed: fixed})
	}
	s.writeHeld()
	t.returning += len(surplus)
	s.mu.Unlock()
	s.c.srv.keeper.giveBack(t, surplus)
	s.c.srv.keeper.watch(fixed)
}

// returned is called when a message is back in its place.
func (t *taking) returned(error) {
	t.s.mu.Lock()
	t.returning--
	again := t.returning == 0
	t.s.mu.Unlock()
	if again {
		t.s.c.srv.keeper.kick(t)
	}
}

// Ended implements broker.ConsumerSink: the queue was deleted. What was taken
// of it is settled into the void.
func (t *taking) Ended(error) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.ended = true
	if s.takes.by[t.filter] == t {
		delete(s.takes.by, t.filter)
		s.unlist(t.filter)
	}
}

// writeHeld sends what was taken and waits. The caller holds mu.
func (s *session) writeHeld() {
	tk := &s.takes
	for len(tk.held) > 0 && s.backlog.len() == 0 && !s.window.full() && !s.closed {
		l := tk.held[0]
		m := l.message(s.c.v5)
		p := pending{m: m, qos: max(1, min(l.of.qos, m.QoS)), dup: l.again, id: l.id, cargo: l}
		l.exactly = p.qos == 2
		if l.of.id != 0 {
			p.ids = []uint32{l.of.id}
		}
		e := newEncoder(s.c.srv.o.Broker, m)
		sent := s.write(e, &p, false)
		e.free()
		if sent == noRoom {
			return
		}
		tk.held = tk.held[1:]
		if l.id = p.id; l.exactly && s.durable() {
			s.c.srv.keeper.note(s.kept, l.id)
		}
		if sent == unfit { // expired, or too large for this client: others may try
			tk.out--
			s.c.srv.keeper.refuse(l.d.Ref)
		}
	}
}

// message is the delivery as the client sees it: under the name of the queue
// that it subscribed to, by which libraries find the handler.
func (l *leased) message(v5 bool) *broker.Message {
	m := l.d.Message // a copy
	m.Topic = l.of.topic
	if l.of.deep {
		m.Topic += "/" + l.d.Topic
	}
	if v5 {
		m.Properties = append(slices.Clip(m.Properties),
			broker.Property{Name: "original-topic", Value: l.d.Topic},
			broker.Property{Name: "message-id", Value: l.d.ID.String()},
			broker.Property{Name: "delivery-count", Value: strconv.FormatUint(uint64(l.d.Attempt), 10)},
			broker.Property{Name: "enqueue-time", Value: broker.Time(l.d.Queued).Format("2006-01-02T15:04:05.000Z07:00")})
	}
	if v5 && l.of.stream {
		m.Properties = append(m.Properties,
			broker.Property{Name: "partition", Value: strconv.FormatUint(uint64(l.d.Partition), 10)},
			broker.Property{Name: "offset", Value: strconv.FormatUint(l.d.Offset, 10)})
	}
	return &m
}

// settled implements cargo: the client's word is an ack or, from 0x80 on, a
// nack. It goes out with the next flush of the reader.
func (l *leased) settled(s *session, id uint16, code reason, done func(error)) {
	if code < unspecified {
		s.acked(l.d.Ref, id, done)
	} else {
		s.settlements().Nack(l.d.Ref)
		if l.exactly && s.durable() {
			s.settlements().Complete(s.kept, id)
		}
	}
	s.mu.Lock()
	s.takes.out--
	starved := s.takes.starved
	s.mu.Unlock()
	if starved {
		s.kick()
	}
}

// settle hands over what the client has settled. The reader calls it.
func (s *session) settle() {
	if s.settling != nil {
		s.settling.Submit()
		s.settling = nil
	}
	if s.durable() {
		s.refill()
	}
}

// release ends the takings ts: nothing is taken any more, and what the client
// was never sent goes back, as if it had not been taken.
func (s *session) release(ts ...*taking) {
	for _, t := range ts {
		t.c.Close()
	}
	back := s.c.srv.o.Broker.NewSettlements()
	s.mu.Lock()
	s.takes.held = slices.DeleteFunc(s.takes.held, func(l *leased) bool {
		if !slices.Contains(ts, l.of) {
			return false
		}
		s.takes.out--
		back.Return(l.d.Ref, nil)
		return true
	})
	s.mu.Unlock()
	back.Submit()
}

// unconsume ends the subscription to a queue. What the client holds it may
// still settle.
func (s *session) unconsume(filter string) bool {
	s.mu.Lock()
	t := s.takes.by[filter]
	if t != nil {
		t.ended = true
		delete(s.takes.by, filter)
		s.unlist(filter)
	}
	s.mu.Unlock()
	if t == nil {
		return false
	}
	s.release(t)
	s.kick() // the others have a larger part now
	return true
}

// reviewQueues ends what is not allowed any more.
func (s *session) reviewQueues(a *auth.Auth) {
	s.mu.Lock()
	var gone []string
	for f, t := range s.takes.by {
		if !a.Allow(s.who, auth.Consume, t.resource()) {
			gone = append(gone, f)
		}
	}
	s.mu.Unlock()
	for _, f := range gone {
		s.unconsume(f)
	}
}

// leases appends the deliveries of s whose leases have to be extended.
func (s *session) leases(refs []broker.Ref) []broker.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.takes.held {
		if !l.fixed {
			refs = append(refs, l.d.Ref)
		}
	}
	for _, f := range s.window.out {
		switch l := f.cargo.(type) {
		case *leased:
			if !l.fixed {
				refs = append(refs, l.d.Ref)
			}
		case *shared:
			if l.extend {
				refs = append(refs, *l.ref)
			}
		}
	}
	return refs
}

// extendEvery is how often leases are extended: a third of what they last.
const extendEvery = broker.ConsumerLease / 3
