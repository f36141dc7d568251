package mqtt

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"millrace/broker"
	"millrace/broker/auth"
)

// session is what a client has here: subscriptions, and messages on their way
// to it. So far it lives as long as its connection.
type session struct {
	id     string
	who    *auth.Principal
	serial uint64 // of this process; orders the sessions of one fan-out
	c      *conn
	// multi says that the session had two subscriptions at a time, ever: a
	// message under way may still hold both, so that it is never taken back.
	multi atomic.Bool

	mu      sync.Mutex
	subs    map[string]*broker.Subscription // by filter
	window  window
	backlog backlog
	replay  replay
	takes   consumers
	closed  bool

	settling *broker.Settlements // the reader's: what the client settled since the last flush
}

// member is one subscription of a session, as the broker hands it back.
type member struct {
	s       *session
	id      uint32 // Subscription Identifier, 0 = none
	qos     byte
	noLocal bool
	rap     bool // Retain As Published
}

// same reports whether a and b are one identity: a session belongs to an
// identity and a client id, and nobody else may take it over.
func same(a, b *auth.Principal) bool { return a.Kind == b.Kind && a.Name == b.Name }

// register gives c its session and its client id. A connection with the same
// id ends: MQTT 5 section 3.1.4, [MQTT-3.1.4-3].
func (s *Server) register(c *conn) *faultError {
	s.mu.Lock()
	old := s.clients[c.hello.id]
	if old != nil && !same(old.who, c.who) {
		s.mu.Unlock()
		return &faultError{badClientID, "client id is in use by another identity", closeAuth}
	}
	s.serial++
	c.session = &session{id: c.hello.id, who: c.who, serial: s.serial, c: c}
	c.session.window.init(s.sendWindow(c))
	s.clients[c.hello.id] = c
	s.cancelWill(c)
	s.mu.Unlock()
	if old != nil {
		old.end(&faultError{takenOver, "client id connected again", closeTakenOver})
		old.session.close() // now, and not when its reader has noticed
	}
	return nil
}

// sendWindow is how many QoS > 0 messages may be on their way to the client,
// MQTT 5 section 3.1.2.11.3.
func (s *Server) sendWindow(c *conn) int {
	switch n := int(c.hello.receiveMaximum); {
	case !c.v5:
		return s.o.MaxInflightV3
	case n > 0:
		return min(n, s.o.MaxInflight)
	default:
		return s.o.MaxInflight
	}
}

// unregister forgets c, unless its id was taken over.
func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	if s.clients[c.hello.id] == c {
		delete(s.clients, c.hello.id)
	}
	s.mu.Unlock()
}

// close ends the session: nothing more is delivered to it.
func (s *session) close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	subs, takes := s.subs, s.takes.by
	s.subs, s.takes.by = nil, nil
	if n := s.backlog.len(); n > 0 {
		s.c.srv.stats.dropped[dropEnded].Add(int64(n))
	}
	s.backlog = backlog{}
	back := s.c.srv.o.Broker.NewSettlements()
	for _, f := range s.window.out {
		if l, ok := f.cargo.(*leased); ok {
			back.GiveBack(l.d.Ref)
		}
	}
	s.window = window{}
	stop := s.replay.end()
	s.mu.Unlock()
	stop()
	back.Submit()
	s.release(slices.Collect(maps.Values(takes))...)
	for _, sub := range subs {
		s.c.srv.o.Broker.Unsubscribe(sub)
	}
}
