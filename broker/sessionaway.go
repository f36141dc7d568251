package broker

import "context"

// OnSessionEnded has f called with each session of which nothing is left. f must
// not block.
func (b *Broker) OnSessionEnded(f func(*Session)) {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	b.sessions.ended = f
}

// OnSessionMoved has moved called with each session that clients of other nodes
// hold, or have left, when that was recorded there; and led, on a goroutine of its
// own, when this node leads from now on. moved must not block. Neither is called
// where there is no Cluster.
func (b *Broker) OnSessionMoved(moved func(*Session), led func()) {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	b.sessions.moved, b.sessions.led = moved, led
}

// Leads reports whether what is done once for all nodes is this one's to do, as
// showing the sessions that no client holds. It is always true on a lone node.
func (b *Broker) Leads() bool { return b.leads() }

// Elsewhere reports whether a client holds the session on another node.
func (s *Session) Elsewhere() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heldBy()
	return h != (holder{}) && h != s.b.sessions.self
}

// borrow takes a session without a connection, for a change by an operator. It is
// false where a connection has it, or nothing is left of it.
func (ss *sessions) borrow(ctx context.Context, s *Session) (bool, error) {
	for {
		ss.mu.Lock()
		wait := s.wait
		if wait == nil || s.ending {
			free := !s.held && !s.ending && ss.byID[s.id] == s
			if free {
				s.held, s.due, s.wait = true, 0, make(chan struct{})
			}
			ss.mu.Unlock()
			return free, nil
		}
		ss.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return false, gaveUp(ctx)
		}
	}
}

// silent stands for the connection of a session that has none.
type silent struct{}

// Deliver implements Sink.
func (silent) Deliver(*Message, []*Subscription) {}

// SubscribeAway subscribes a session that has no connection, as if its client
// had, and records that. It is Unavailable while a connection has the session.
func (s *Session) SubscribeAway(ctx context.Context, filter string, o SubscriptionOptions) error {
	return s.away(ctx, func() error {
		s.mu.Lock()
		_, known := s.find(filter)
		s.mu.Unlock()
		owner := s.principal()
		if err := s.Subscribe(ctx, &Subscription{Filter: filter, Principal: owner, Sink: silent{}}, o); err != nil {
			return err
		}
		s.detach()
		if err := s.Commit(ctx); err != nil {
			return err
		}
		if o.QoS == 0 || o.Handling == 2 || o.Handling == 1 && known {
			return nil
		}
		var ms []*Message
		err := s.b.Retained(ctx, owner, filter, func(m *Message) bool {
			if m.QoS > 0 {
				ms = append(ms, m)
			}
			return true
		})
		if err != nil {
			return err
		}
		return s.Replay(ctx, filter, ms)
	})
}

// UnsubscribeAway is the reverse, and reports whether there was such a subscription.
func (s *Session) UnsubscribeAway(ctx context.Context, filter string) (was bool, err error) {
	err = s.away(ctx, func() error {
		was = s.Unsubscribe(filter) //nolint:contextcheck // it waits for nothing
		return s.Commit(ctx)
	})
	return was, err
}

// away does something to a session that has no connection.
func (s *Session) away(ctx context.Context, do func() error) error {
	ss := &s.b.sessions
	free, err := ss.borrow(ctx, s)
	if err != nil {
		return err
	}
	if !free {
		return errorf(Unavailable, ClientSubject, "client %q has just connected or gone; try again", s.id)
	}
	defer ss.letGo(s)
	s.mu.Lock()
	elsewhere := s.heldBy() != (holder{})
	s.mu.Unlock()
	if elsewhere {
		return errorf(Unavailable, ClientSubject, "client %q is connected to another node; ask that one", s.id)
	}
	return do()
}

// Ended reports whether the session is ending, or has ended.
func (s *Session) Ended() bool {
	s.b.sessions.mu.Lock()
	defer s.b.sessions.mu.Unlock()
	return s.ending
}

// DeliveredQoS is the QoS with which a message of a session's backlog is delivered.
func DeliveredQoS(d *Delivery) byte { return byte(d.Tag & tagQoS) }
