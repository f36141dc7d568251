package mqtt

import (
	"sync"
	"time"
)

// pace spreads new connections over time, Options.AcceptRate a second, so that
// a fleet that comes back at once does not take all of the machine. A second's
// worth may come at once. Nobody is refused: who is not taken yet waits in the
// backlog of the listener.
type pace struct {
	mu    sync.Mutex
	every time.Duration // 0 = no limit
	next  time.Time
}

func newPace(rate int) *pace {
	p := &pace{}
	p.set(rate)
	return p
}

// set changes the rate.
func (p *pace) set(rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.every = 0; rate > 0 {
		p.every = time.Second / time.Duration(rate)
	}
}

// take books one connection, and returns how long it has to wait.
func (p *pace) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.every == 0 {
		return 0
	}
	if floor := now.Add(p.every - time.Second); p.next.Before(floor) {
		p.next = floor
	}
	wait := max(0, p.next.Sub(now))
	p.next = p.next.Add(p.every)
	return wait
}

// try is take for who cannot wait.
func (p *pace) try(now time.Time) bool {
	p.mu.Lock()
	ok := p.every == 0 || !p.next.After(now)
	p.mu.Unlock()
	return ok && p.take(now) == 0
}

// admitIdentity counts c among the connections of its identity, if there is
// room. A client that takes its own place needs none; anonymous clients are
// nobody in particular.
func (s *Server) admitIdentity(c *conn) *faultError {
	limit, name := s.limits.Load().MaxPerIdentity, c.who.String()
	if c.who.Name == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.clients[c.hello.id]
	if limit > 0 && s.identities[name] >= limit && (old == nil || !same(old.who, c.who)) {
		return &faultError{quotaExceeded, "too many connections of the identity", closeIdentity}
	}
	s.identities[name]++
	c.counted = name
	return nil
}

// dropIdentity takes c out of the count. The caller holds mu.
func (s *Server) dropIdentity(c *conn) {
	if c.counted == "" {
		return
	}
	if s.identities[c.counted]--; s.identities[c.counted] <= 0 {
		delete(s.identities, c.counted)
	}
}

// overloaded refuses a login while memory is short.
func (s *Server) overloaded() *faultError {
	if s.o.Overloaded == nil || !s.o.Overloaded() {
		return nil
	}
	return &faultError{serverBusy, "memory limit is reached", closeOverload}
}
