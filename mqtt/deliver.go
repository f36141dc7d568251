package mqtt

import (
	"cmp"
	"slices"

	"millrace/broker"
)

// Deliver takes a message for all MQTT subscribers that it matched; see
// broker.Sink. It only appends to what waits for each of them.
func (s *Server) Deliver(m *broker.Message, to []*broker.Subscription) {
	e := newEncoder(s.o.Broker, m)
	defer e.free()
	group := e.group[:0]
	single := true
	for _, t := range to {
		mb, ok := t.Member.(*member)
		if !ok {
			continue
		}
		if mb.group != nil {
			if !slices.Contains(e.groups, mb.group) { // once, however many members matched
				e.groups = append(e.groups, mb.group)
			}
			continue
		}
		group = append(group, mb)
		single = single && !mb.s.multi.Load()
	}
	e.group = group
	for _, g := range e.groups {
		g.deliver(m, to[0].Passed()) // such a message comes for its group alone
	}
	if single {
		for i := range group {
			group[i].s.deliver(e, group[i:i+1])
		}
		return
	}
	// MQTT 5 section 3.3.4: a client whose subscriptions overlap gets one copy.
	slices.SortStableFunc(group, func(a, b *member) int { return cmp.Compare(a.s.serial, b.s.serial) })
	for len(group) > 0 {
		n := 1
		for n < len(group) && group[n].s == group[0].s {
			n++
		}
		group[0].s.deliver(e, group[:n])
		group = group[n:]
	}
}

// deliver sends the message of e once, for the subscriptions by, all of s.
func (s *session) deliver(e *encoder, by []*member) {
	p := pending{m: e.m}
	ids, wanted := e.ids[:0], false
	for _, mb := range by {
		if mb.noLocal && e.m.Publisher == s.id { // section 3.8.3.1
			continue
		}
		wanted = true
		p.qos = max(p.qos, mb.qos)
		p.retain = p.retain || mb.rap
		if mb.id != 0 && !slices.Contains(ids, mb.id) {
			ids = append(ids, mb.id)
		}
	}
	e.ids = ids
	if !wanted {
		s.c.srv.stats.own.count(s.serial)
		return
	}
	p.qos = min(p.qos, e.m.QoS)
	p.retain = p.retain && e.m.Retain
	p.ids = ids
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replay.overtake(e.m)
	switch {
	case s.closed:
	case p.qos == 0:
		s.write(e, &p, true)
	case s.backlog.len() > 0 || s.window.full() || s.write(e, &p, false) == noRoom:
		p.ids = slices.Clone(ids)
		s.hold(p)
	}
}

// hold puts p into the backlog; the oldest make room. The caller holds mu.
func (s *session) hold(p pending) {
	o := s.c.srv.limits.Load()
	for b := &s.backlog; b.n > 0 && (b.n >= o.BacklogMessages || b.bytes+p.bytes() > o.BacklogBytes); {
		b.pop()
		s.c.drop(dropBacklog)
	}
	s.backlog.push(p)
}

// pump sends what waits, as far as window and output allow.
func (s *session) pump() {
	s.mu.Lock()
	s.drainBacklog()
	s.writeHeld()
	s.writeInbox()
	more, again := s.replay.waits(), s.inbox.again
	gs := s.eager()
	s.mu.Unlock()
	if again {
		s.sendAgain()
	}
	for _, g := range gs {
		g.pump()
	}
	if more {
		s.replayRetained()
	}
}

// drainBacklog sends from the backlog. The caller holds mu.
func (s *session) drainBacklog() {
	for s.backlog.len() > 0 && !s.window.full() && !s.closed {
		p := s.backlog.ring[s.backlog.head]
		e := newEncoder(s.c.srv.o.Broker, p.m)
		sent := s.write(e, &p, false)
		e.free()
		if sent == noRoom {
			return
		}
		s.backlog.pop()
	}
}

// written is what became of a write.
type written uint8

const (
	sent   written = iota
	noRoom         // in the output; for QoS 0 that is a drop
	unfit          // expired, or too large for the client: it was dropped
)

// write appends p to the client's output. The caller holds mu.
func (s *session) write(e *encoder, p *pending, shed bool) written {
	c := s.c
	if e.expired() {
		c.drop(dropExpired)
		return unfit
	}
	f, alias := s.aliases.choose(e.m.Topic, p.qos)
	h := e.head(c.v5, p.qos, f, p.ids)
	if limit := c.hello.maxPacket; limit > 0 && h.total > int(limit) { // section 3.1.2.11.4
		c.drop(dropTooLarge)
		return unfit
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.out.size+h.total > c.srv.o.MaxOutput && c.out.size > 0 {
		if shed {
			c.drop(dropShed)
			return noRoom
		}
		c.out.blocked = true
		return noRoom
	}
	if f == announced {
		s.aliases.assign(alias, e.m.Topic)
	}
	id := p.id
	if p.qos > 0 {
		on := flight{state: wantPuback, cargo: p.cargo, m: e.show()}
		if p.qos == 2 {
			on.state = wantPubrec
		}
		if id == 0 {
			id = s.window.take(on)
			p.id = id
		} else {
			s.window.put(id, on)
		}
	}
	c.out.publish(h, e.m.Payload, p, id, alias)
	c.put.count(h.b[0], h.total)
	c.put.payload += uint64(len(e.m.Payload))
	c.wrote(h.total)
	c.srv.o.Broker.CountOut(e.m.Topic, p.qos)
	return sent
}
