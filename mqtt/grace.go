package mqtt

import (
	"cmp"
	"slices"
	"time"

	"millrace/broker"
)

// grace is what the client of a durable session was given of queues and had not
// settled when its connection ended: for a while it stays the client's, so that
// one that comes back settles under the same packet ids.
type grace struct {
	kept  *broker.Session
	ls    []*leased // by queue, in their order
	last  uint16    // of the window's ids that go round
	timer *time.Timer
}

// entrust takes the messages of queues out of a window that ends, if the client
// may come back for them. The caller holds mu.
func (s *session) entrust(back *broker.Settlements) *grace {
	g := &grace{kept: s.kept, last: s.window.last}
	wait := s.graceTime()
	for _, f := range s.window.out {
		l, ok := f.cargo.(*leased)
		switch {
		case !ok:
		case wait == 0:
			back.GiveBack(l.d.Ref)
		default:
			l.again = true
			g.ls = append(g.ls, l)
		}
	}
	if len(g.ls) == 0 {
		return nil
	}
	slices.SortFunc(g.ls, func(a, b *leased) int {
		return cmp.Or(cmp.Compare(a.d.Target, b.d.Target), cmp.Compare(a.d.Seq, b.d.Seq))
	})
	return g
}

// graceTime is how long messages of queues stay the client's.
func (s *session) graceTime() time.Duration {
	if !s.durable() {
		return 0
	}
	return min(s.c.srv.o.LeaseGrace, time.Duration(s.kept.Expiry())*time.Second)
}

// await keeps g until the client is back, or its time is over.
func (s *Server) await(id string, g *grace, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		wait = 0
	}
	s.graces[id] = g
	s.conns.Add(1)
	g.timer = time.AfterFunc(wait, func() {
		defer s.conns.Done()
		s.mu.Lock()
		due := s.graces[id] == g
		if due {
			delete(s.graces, id)
		}
		s.mu.Unlock()
		if due {
			s.giveUp(g)
		}
	})
}

// reclaim takes what waits for the client id, if something does.
func (s *Server) reclaim(id string) *grace {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.graces[id]
	if g == nil {
		return nil
	}
	delete(s.graces, id)
	if g.timer.Stop() {
		s.conns.Done()
	}
	return g
}

// endGraces gives back what waits for clients. The caller holds mu.
func (s *Server) endGraces() {
	for _, g := range s.graces {
		g.timer.Reset(0)
	}
}

// giveUp returns to their queues what the client did not come back for. A QoS 2
// message that was sent is released when it does.
func (s *Server) giveUp(g *grace) {
	back := s.o.Broker.NewSettlements()
	for _, l := range g.ls {
		l.giveUp(back, g.kept)
	}
	back.Submit()
}

func (l *leased) giveUp(back *broker.Settlements, kept *broker.Session) {
	back.GiveBack(l.d.Ref)
	if l.exactly {
		back.Abandon(kept, l.id)
	}
}

// recover goes on with what waited for the client: under the subscription that
// it came by, and the packet id that it was sent under.
func (s *session) recover(g *grace) {
	if g == nil {
		return
	}
	back := s.c.srv.o.Broker.NewSettlements()
	s.mu.Lock()
	s.window.last = g.last
	for _, l := range g.ls {
		t := s.takes.by[l.of.filter]
		if t == nil || s.closed {
			l.giveUp(back, s.kept)
			continue
		}
		s.takes.out++
		s.takes.held = append(s.takes.held, &leased{of: t, d: l.d, fixed: l.fixed, id: l.id, again: true, exactly: l.exactly})
	}
	s.writeHeld()
	s.mu.Unlock()
	back.Submit()
	s.c.srv.keeper.watch(false)
}
