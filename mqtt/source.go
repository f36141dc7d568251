package mqtt

import (
	"maps"
	"slices"

	"millrace/broker"
)

// source is what the broker keeps for a group that durable sessions are members
// of, as the sink of its consumer: the group takes as much as its members have
// room for.
type source struct {
	g   *group
	c   *broker.Consumer
	has func(*broker.Message) bool // whether a live message comes from here
}

// open begins to take from the broker's backlog, once there is one.
func (g *group) open() {
	g.mu.Lock()
	from := g.source
	g.mu.Unlock()
	if from == nil {
		from = &source{g: g}
		if from.c, from.has = g.srv.o.Broker.SharedConsumer(g.filter, from); from.c == nil {
			return
		}
		g.mu.Lock()
		if g.source != nil || g.ended {
			g.mu.Unlock()
			from.c.Close() // somebody was faster
			return
		}
		g.source = from
		g.mu.Unlock()
	}
	from.c.Kick()
}

// Credit implements broker.ConsumerSink. That something is wanted is said before
// the members are looked at: one that has room a moment later comes back.
func (f *source) Credit() int {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || g.backlog.len() > 0 {
		return 0 // what waits goes first, and then asks again
	}
	g.waiting.Store(1)
	room := 0
	for _, sub := range g.members {
		room += sub.Member.(*member).s.room()
	}
	if room > 0 {
		g.waiting.Store(0)
	}
	return min(room, inboxPage)
}

// room is how many messages the window has place for.
func (s *session) room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.backlog.len() > 0 {
		return 0
	}
	return max(0, s.window.size-len(s.window.out))
}

// Take implements broker.ConsumerSink.
func (f *source) Take(ds []broker.Delivery) {
	g := f.g
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range ds {
		m, ref := ds[i].Message, ds[i].Ref
		g.serial++
		g.backlog.push(pending{m: &m, cargo: &shared{g: g, m: &m, serial: g.serial, ref: &ref, extend: f.c.Shared()}})
	}
	if f.c.Shared() {
		g.srv.keeper.watch(false)
	}
	if !g.ended { // otherwise they go back with the rest
		g.send()
	}
}

// Ended implements broker.ConsumerSink: no durable session is a member any more.
// What the group holds is settled into the void.
func (f *source) Ended(error) {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	f.g.source = nil
	f.g.waiting.Store(int64(f.g.backlog.len()))
}

// leases appends those of the messages that wait for a member and have to be
// extended.
func (g *group) leases(refs []broker.Ref) []broker.Ref {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.backlog.len() {
		p := &g.backlog.ring[(g.backlog.head+i)%len(g.backlog.ring)]
		if sh, ok := p.cargo.(*shared); ok && sh.extend {
			refs = append(refs, *sh.ref)
		}
	}
	return refs
}

// openGroup has a group of this node take from a backlog that was made.
func (s *Server) openGroup(filter string) {
	s.mu.Lock()
	g := s.groups[filter]
	s.mu.Unlock()
	if g != nil {
		g.open()
	}
}

func (s *Server) allGroups() []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.groups))
}
