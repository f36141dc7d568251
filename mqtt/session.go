package mqtt

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"millrace/broker"
	"millrace/broker/auth"
)

// session is what a client has here while it is connected: subscriptions, and
// messages on their way to it.
type session struct {
	id     string
	who    *auth.Principal
	serial uint64 // of this process; orders the sessions of one fan-out
	c      *conn
	kept   *broker.Session // what the broker keeps of it; nil for most clean ones
	// multi says that the session had two subscriptions at a time, ever: a
	// message under way may still hold both, so that it is never taken back.
	multi atomic.Bool

	mu      sync.Mutex
	subs    map[string]*broker.Subscription // by filter, as the client wrote it
	groups  []*group                        // of the shared ones among them
	window  window
	backlog backlog
	replay  replay
	aliases *aliases // nil = none
	takes   consumers
	inbox   inbox
	closed  bool

	settling *broker.Settlements // the reader's: what the client settled since the last flush
}

// member is one subscription of a session, as the broker hands it back.
type member struct {
	s       *session
	filter  string // as the client wrote it
	group   *group // nil unless it is shared
	id      uint32 // Subscription Identifier, 0 = none
	qos     byte
	noLocal bool
	rap     bool // Retain As Published
	// handling is Retain Handling, for whoever asks.
	handling byte
}

// same reports whether a and b are one identity: a session belongs to an
// identity and a client id, and nobody else may take it over.
func same(a, b *auth.Principal) bool { return a.Kind == b.Kind && a.Name == b.Name }

// register gives c its session and its client id. A connection with the same
// id ends: MQTT 5 section 3.1.4, [MQTT-3.1.4-3].
func (s *Server) register(ctx context.Context, c *conn) *faultError {
	s.mu.Lock()
	old := s.clients[c.hello.id]
	for met := (*conn)(nil); old != nil && old != met; old = s.clients[c.hello.id] {
		s.mu.Unlock()
		if !c.here() { // old is its next connection, it may be
			return leftEarly()
		}
		met = old
		s.mu.Lock()
	}
	if old != nil && !same(old.who, c.who) {
		s.mu.Unlock()
		return &faultError{badClientID, "client id is in use by another identity", closeAuth}
	}
	s.serial++
	c.session = &session{id: c.hello.id, who: c.who, serial: s.serial, c: c}
	c.since = s.o.Broker.Now().UnixMilli()
	c.session.window.init(s.sendWindow(c))
	c.session.aliases = newAliases(min(int(c.hello.aliasMax), s.o.MaxAliases))
	s.clients[c.hello.id] = c
	s.mu.Unlock()
	if old != nil {
		c.srv.stats.takenOver.Add(1)
		if c.hello.clean {
			c.srv.stats.discarded.Add(1)
		}
		s.takeOver(c, old)
		old.end(&faultError{takenOver, "client id connected again", closeTakenOver})
		if f := c.succeed(ctx, old); f != nil {
			return f
		}
	}
	return c.openSession(ctx)
}

// leftEarly is why a CONNECT whose client did not wait for the answer takes nothing.
func leftEarly() *faultError {
	return &faultError{success, "the client left before its connect was answered", closeClient}
}

// takeOver tells that c takes the place of old, and whether the two are rivals.
func (s *Server) takeOver(c, old *conn) {
	fight := s.fight(c, old.remote)
	if fight != noFight {
		s.o.Alarms.RaiseFor(rivalAlarm, "rival_clients", rivalText,
			map[string]any{"client_id": c.hello.id, "address": c.remote, "other_address": old.remote})
	}
	s.events.takenOver(c, old, fight != noFight)
}

// succeed takes the place of old: now, and not when its reader has noticed. Only
// what is kept in the broker has to be handed over in order.
func (c *conn) succeed(ctx context.Context, old *conn) *faultError {
	if !old.hello.keeps {
		old.session.close()
		return nil
	}
	select {
	case <-old.left:
		return nil
	case <-ctx.Done():
		return &faultError{serverUnavailable, "the connection before does not end", closeServer}
	}
}

// expiry is how long the client wants its session to outlive the connection.
func (h *connect) expiry(o *Options) uint32 {
	if !h.v5 && !h.clean {
		return o.SessionExpiryV3
	}
	return h.sessionExpiry
}

// openSession asks the broker for what it keeps of the client.
func (c *conn) openSession(ctx context.Context) *faultError {
	h, s := &c.hello, c.session
	expiry := h.expiry(&c.srv.o)
	kept, present, err := c.srv.o.Broker.OpenSession(ctx, broker.SessionOptions{
		ClientID: h.id, Principal: c.who, Clean: h.clean, Expiry: expiry, Will: h.will, Since: c.since, Here: c.here,
	})
	if err != nil && !c.here() {
		return leftEarly()
	}
	switch broker.KindOf(err) {
	case broker.Conflict:
		return &faultError{badClientID, "client id has a session of another identity", closeAuth}
	case broker.Full:
		return &faultError{quotaExceeded, "the store is full and takes no new session", closeQuota}
	case broker.Unavailable, broker.Unknown: // it comes again
		return &faultError{serverUnavailable, err.Error(), closeServer}
	default:
		if err != nil {
			c.srv.log.Error().Str("client", clip(h.id)).Err(err).Msg("session was not opened")
			return &faultError{serverUnavailable, "session was not opened", closeServer}
		}
	}
	if present {
		c.srv.stats.resumed.Add(1)
	} else {
		c.srv.stats.created.Add(1)
	}
	if kept != nil && kept.Moved() {
		c.srv.arrived(c)
	}
	c.grace = c.srv.reclaim(h.id)
	if c.grace != nil && !present {
		c.srv.giveUp(c.grace)
		c.grace = nil
	}
	c.present = present
	if kept != nil { // else whoever takes the client id over may be closing s by now
		c.srv.stats.kept.Add(1)
		s.kept = kept
	}
	if s.durable() {
		s.window.share()
		for _, id := range kept.Received() {
			c.acks.restore(id, idRestored)
		}
		for _, id := range kept.Claimed() {
			c.acks.restore(id, idClaimed)
		}
	}
	return nil
}

// durable reports whether the session outlives its connection.
func (s *session) durable() bool { return s.kept != nil && s.kept.Durable() }

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
	g := s.entrust(back)
	unacked := s.unacked()
	s.groups = nil
	s.window = window{}
	stop := s.replay.end()
	s.mu.Unlock()
	stop()
	back.Submit()
	s.endInbox()
	if g != nil {
		s.c.srv.await(s.id, g, s.graceTime())
	}
	s.release(slices.Collect(maps.Values(takes))...)
	for filter := range takes {
		s.unlist(filter)
	}
	for _, sub := range subs {
		g := sub.Member.(*member).group
		s.unlist(sub.Member.(*member).filter)
		if g != nil || !s.durable() {
			s.c.srv.o.Broker.Unsubscribe(sub)
		}
		if g != nil {
			g.leave(sub, unacked[g])
			delete(unacked, g)
		}
	}
	for g, ps := range unacked { // of groups that it had left before
		g.takeBack(ps)
	}
}
