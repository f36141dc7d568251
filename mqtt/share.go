package mqtt

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"millrace/broker"
)

// group is the clients of one shared subscription, MQTT 5 section 4.8.2: each
// message goes to one of them. What none has room for waits here, and goes to
// the first that has.
type group struct {
	srv    *Server
	filter string // with "$share/GROUP/"
	refs   int    // subscriptions; under Server.mu

	// waiting is what is in backlog. Over a source it is also 1 where that may have
	// been told that there is no room: whoever has room next asks it again.
	waiting atomic.Int64

	mu      sync.Mutex
	members []*broker.Subscription
	turn    int
	serial  uint64
	backlog backlog
	source  *source // nil while all members are of clean sessions
	ended   bool    // the last subscription is gone
}

// shared is a message of a group in the hands of one member.
type shared struct {
	g      *group
	m      *broker.Message
	serial uint64
	ref    *broker.Ref // in the broker's backlog of the group; nil for a live message
	extend bool        // its lease ends unless it is extended
	passed bool        // on, by another node: it stays on this one
	sent   bool        // to a member, under group.mu
}

// settled implements cargo. Section 4.8.2: a message that a member refuses is
// not given to another.
func (sh *shared) settled(s *session, id uint16, _ reason, done func(error)) {
	switch {
	case sh.ref != nil:
		s.acked(*sh.ref, id, done)
	case done != nil:
		done(nil)
	}
}

// lost removes a message that no member gets.
func (sh *shared) lost(why broker.Reason) {
	if sh.ref != nil {
		sh.g.srv.keeper.drop(*sh.ref, why)
	}
}

// passOn gives a message that no member here has room for to another node.
func (sh *shared) passOn() bool {
	return sh.ref == nil && !sh.passed && sh.g.srv.o.Broker.PassOn(sh.g.filter, sh.m)
}

// sharedFilter returns the filter behind "$share/GROUP/" of a valid filter.
func sharedFilter(filter string) string {
	_, rest, _ := strings.Cut(filter[len("$share/"):], "/")
	return rest
}

// group returns the group of a shared filter, for one subscription more.
func (s *Server) group(filter string) *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[filter]
	if g == nil {
		g = &group{srv: s, filter: filter}
		s.groups[filter] = g
	}
	g.refs++
	return g
}

// unref gives up what group returned. With the last one, what waits is dropped.
func (g *group) unref() {
	s := g.srv
	s.mu.Lock()
	g.refs--
	last := g.refs == 0
	if last {
		delete(s.groups, g.filter)
	}
	s.mu.Unlock()
	if last {
		g.end()
	}
}

// end gives what the broker keeps for the group back, and drops the rest.
func (g *group) end() {
	g.mu.Lock()
	g.ended = true
	from := g.source
	g.mu.Unlock()
	if from != nil {
		from.c.Close()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.backlog.len() > 0 {
		g.putBack([]pending{g.backlog.pop()}, dropEnded)
	}
	g.backlog = backlog{}
	g.waiting.Store(0)
}

// putBack returns messages to the broker's backlog, where there is one, and
// drops the others.
func (g *group) putBack(ps []pending, why dropReason) {
	for i := range ps {
		switch sh := ps[i].cargo.(*shared); {
		case sh.passOn():
		case sh.ref == nil:
			g.srv.stats.drop(why)
		case sh.sent:
			g.srv.keeper.refuse(*sh.ref)
		default:
			g.srv.keeper.giveBack(nil, []broker.Ref{*sh.ref})
		}
	}
}

// join adds a subscription. It may take what waits.
func (g *group) join(sub *broker.Subscription) {
	g.mu.Lock()
	g.members = append(g.members, sub)
	g.mu.Unlock()
	g.open()
	g.pump()
}

// leave removes a subscription. Others go on with back, which are messages
// that its client did not acknowledge, oldest first.
func (g *group) leave(sub *broker.Subscription, back []pending) {
	g.mu.Lock()
	g.members = slices.DeleteFunc(g.members, func(m *broker.Subscription) bool { return m == sub })
	for _, p := range slices.Backward(back) {
		g.backlog.pushFront(p)
	}
	if n := g.backlog.len(); n > 0 {
		g.waiting.Store(int64(n))
	}
	g.mu.Unlock()
	g.pump()
	g.unref()
}

// takeBack gives messages to others that a client received as a member which
// it is not any more.
func (g *group) takeBack(ps []pending) {
	s := g.srv
	s.mu.Lock()
	if s.groups[g.filter] != g {
		s.mu.Unlock()
		g.putBack(ps, dropEnded)
		return
	}
	g.refs++
	s.mu.Unlock()
	g.leave(nil, ps)
}

// deliver gives m to a member. One that another node has passed on stays here.
func (g *group) deliver(m *broker.Message, passed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.source != nil && g.source.has(m) {
		return // it comes from there
	}
	g.serial++
	o := g.srv.limits.Load()
	p := pending{m: m, cargo: &shared{g: g, m: m, serial: g.serial, passed: passed}}
	for b := &g.backlog; b.n > 0 && (b.n >= o.BacklogMessages || b.bytes+p.bytes() > o.BacklogBytes); {
		g.putBack([]pending{b.pop()}, dropBacklog)
	}
	g.backlog.push(p)
	g.send()
}

// pump sends what waits.
func (g *group) pump() {
	if g.waiting.Load() == 0 {
		return
	}
	g.mu.Lock()
	g.send()
	from := g.source
	g.mu.Unlock()
	if from != nil {
		from.c.Kick()
	}
}

// send gives out the backlog, oldest first, until no member has room. The
// caller holds mu. That something waits is said before the members are looked
// at, so that one which has room a moment later comes back.
func (g *group) send() {
	for n := g.backlog.len(); n > 0; n = g.backlog.len() {
		g.waiting.Store(int64(n))
		p := g.backlog.ring[g.backlog.head]
		e := newEncoder(g.srv.o.Broker, p.m)
		given := g.give(e, p)
		e.free()
		if !given {
			return
		}
		g.backlog.pop()
		if n == 1 && g.source == nil {
			g.waiting.Store(0)
		}
	}
}

// give sends p to the member with the least in flight that has room, in turn
// among equals, or else to another node with members. It answers false when p has
// to wait; QoS 0 does not.
func (g *group) give(e *encoder, p pending) bool {
	readers := g.srv.auth.Readers(p.m.Topic)
	var best *broker.Subscription
	var tried []*session // that said they had room, and had none
	for {
		best = nil
		least, at, allowed := 0, 0, len(g.members) == 0
		for i := range g.members {
			k := (g.turn + i) % len(g.members)
			sub := g.members[k]
			if !sub.Delivers(&readers) {
				continue
			}
			allowed = true
			mb := sub.Member.(*member)
			if slices.Contains(tried, mb.s) {
				continue
			}
			if n, room := mb.s.load(min(mb.qos, p.m.QoS)); room && (best == nil || n < least) {
				best, least, at = sub, n, k
			}
		}
		switch {
		case !allowed:
			p.cargo.(*shared).lost(broker.ReasonUndelivered)
			g.srv.stats.drop(dropDenied)
			return true
		case best == nil && p.cargo.(*shared).passOn():
			return true
		case best == nil && p.m.QoS > 0:
			return false
		case best == nil:
			g.srv.stats.drop(dropShed)
			return true
		}
		mb := best.Member.(*member)
		if mb.s.offer(e, mb, p) {
			g.turn = at + 1
			return true
		}
		tried = append(tried, mb.s)
	}
}

// load says how much is on its way to the client, and whether it can take a
// message of the given QoS.
func (s *session) load(qos byte) (n int, room bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(s.window.out) + s.backlog.len()
	return n, !s.closed && (qos == 0 || s.backlog.len() == 0 && !s.window.full())
}

// offer sends p for the subscription mb, if there is room.
func (s *session) offer(e *encoder, mb *member, p pending) bool {
	p.qos = min(mb.qos, p.m.QoS)
	p.retain = mb.rap && p.m.Retain
	if mb.id != 0 {
		p.ids = []uint32{mb.id}
	}
	sh := p.cargo.(*shared)
	if p.qos == 0 {
		p.cargo = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || p.qos > 0 && (s.backlog.len() > 0 || s.window.full()) {
		return false
	}
	switch s.write(e, &p, false) {
	case noRoom:
		return false
	case unfit:
		sh.lost(broker.ReasonUndelivered)
	case sent:
		if sh.sent = true; p.qos == 0 {
			sh.lost(broker.ReasonAcked) // there is nothing to wait for
		}
	}
	return true
}

// unacked takes the messages of groups out of a window that ends, by group and
// in their order. Section 4.8.2, [MQTT-4.8.2-5]: one of QoS 2 that was sent
// must not go to another client.
func (s *session) unacked() map[*group][]pending {
	var all map[*group][]pending
	for _, f := range s.window.out {
		sh, ok := f.cargo.(*shared)
		switch {
		case !ok:
		case f.state != wantPuback:
			sh.lost(broker.ReasonUndelivered)
			s.c.srv.stats.drop(dropEnded)
		default:
			if all == nil {
				all = map[*group][]pending{}
			}
			all[sh.g] = append(all[sh.g], pending{m: sh.m, cargo: sh})
		}
	}
	for _, ps := range all {
		slices.SortFunc(ps, func(a, b pending) int {
			return cmp.Compare(a.cargo.(*shared).serial, b.cargo.(*shared).serial)
		})
	}
	return all
}

// eager returns the groups of s for which something waits. The caller holds mu.
func (s *session) eager() []*group {
	var gs []*group
	for _, g := range s.groups {
		if g.waiting.Load() > 0 {
			gs = append(gs, g)
		}
	}
	return gs
}
