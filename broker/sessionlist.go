package broker

import (
	"context"

	"millrace/broker/auth"
)

// SessionInfo is what there is to say about a session that outlives its
// connection.
type SessionInfo struct {
	ClientID string
	Owner    *auth.Principal
	Expiry   uint32 // seconds; NeverExpires
	Since    int64  // when its connection ended, Unix milliseconds; 0 = it has one
}

// Info describes the session as it is now.
func (s *Session) Info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SessionInfo{s.id, s.owner, s.expiry, s.since}
}

// Sessions lists the sessions that outlive their connections, in no order.
func (b *Broker) Sessions() []*Session {
	ss := &b.sessions
	ss.mu.Lock()
	defer ss.mu.Unlock()
	all := make([]*Session, 0, len(ss.byID))
	for _, s := range ss.byID {
		if s.durable && s.gone == nil {
			all = append(all, s)
		}
	}
	return all
}

// OnSessionEnded has f called with each session of which nothing is left. f must
// not block.
func (b *Broker) OnSessionEnded(f func(*Session)) {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	b.sessions.ended = f
}

// borrow takes a session without a connection, for a change by an operator, and
// ends it for good if end is set. It is false where there is none, or a
// connection has it.
func (ss *sessions) borrow(ctx context.Context, s *Session, end bool) (bool, error) {
	for {
		ss.mu.Lock()
		wait := s.gone
		if wait == nil {
			wait = s.busy
		}
		if wait == nil {
			free := !s.held && ss.byID[s.id] == s
			if free {
				s.held, s.due, s.busy = true, 0, make(chan struct{})
			}
			if free && end {
				s.gone = make(chan struct{})
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

// End ends a session that has no connection, as its expiry would: its will is
// published if it waits. It does nothing while a connection has the session.
func (s *Session) End(ctx context.Context) error {
	ss := &s.b.sessions
	free, err := ss.borrow(ctx, s, true)
	if !free || err != nil {
		return err
	}
	ss.mu.Lock()
	s.idle()
	ss.mu.Unlock()
	s.mu.Lock()
	will := s.will != nil
	s.mu.Unlock()
	return s.end(ctx, will)
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
	return was, s.away(ctx, func() error {
		was = s.Unsubscribe(filter)
		return s.Commit(ctx)
	})
}

// away does something to a session that has no connection.
func (s *Session) away(ctx context.Context, do func() error) error {
	ss := &s.b.sessions
	free, err := ss.borrow(ctx, s, false)
	if err != nil {
		return err
	}
	if !free {
		return errorf(Unavailable, ClientSubject, "client %q has just connected or gone; try again", s.id)
	}
	defer ss.letGo(s)
	return do()
}

// Backlog counts the messages that wait for the client, and those it was sent
// and has not acknowledged.
func (s *Session) Backlog(ctx context.Context) (waiting, inFlight int64) {
	t := Target(s.target.Load())
	if t == 0 {
		return 0, 0
	}
	info, err := s.b.store.Info(ctx, t)
	if err != nil {
		return 0, 0 // it has just ended
	}
	return info.Ready, info.Leased
}

// Pending appends up to limit messages that wait for the client, in their
// order, from the sequence on.
func (s *Session) Pending(ctx context.Context, from uint64, limit int, dst []Delivery) ([]Delivery, error) {
	t := Target(s.target.Load())
	if t == 0 {
		return dst, nil
	}
	dst, err := s.b.store.Read(ctx, t, Pos{Seq: from, States: Ready}, limit, dst)
	return dst, storeError(err)
}

// Ended reports whether the session is ending, or has ended.
func (s *Session) Ended() bool {
	s.b.sessions.mu.Lock()
	defer s.b.sessions.mu.Unlock()
	return s.gone != nil
}

// DeliveredQoS is the QoS with which a message of a session's backlog is delivered.
func DeliveredQoS(d *Delivery) byte { return byte(d.Tag & tagQoS) }
