package broker

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"millrace/broker/auth"
)

// SessionInfo is what management shows of a session.
type SessionInfo struct {
	ClientID      string
	Owner         string // as user:dev
	Connected     bool
	Expiry        uint32    // seconds
	Disconnected  time.Time // zero while connected
	Subscriptions int
	Awaiting      int // packet ids of QoS 2 publishes that are not released
	Releasing     int // packet ids of QoS 2 deliveries whose PUBCOMP is to come
	Will          bool
}

// Sessions yields the sessions that outlive their connections, in order of
// client id, each as it is when its turn comes.
func (b *Broker) Sessions() iter.Seq[SessionInfo] {
	return func(yield func(SessionInfo) bool) {
		ss := &b.sessions
		ss.mu.Lock()
		ids := slices.Sorted(maps.Keys(ss.byID))
		ss.mu.Unlock()
		for _, id := range ids {
			if s := ss.named(id); s != nil && !yield(s.Info()) {
				return
			}
		}
	}
}

// named finds a session that outlives its connection, and is not ending.
func (ss *sessions) named(id string) *Session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s := ss.byID[id]; s != nil && s.durable && !s.ending {
		return s
	}
	return nil
}

// Info is what management shows of the session.
func (s *Session) Info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := SessionInfo{
		ClientID: s.id, Owner: s.owner.String(), Connected: s.since == 0, Expiry: s.expiry, Disconnected: Time(s.since),
		Subscriptions: len(s.subs),
	}
	if s.affairs != nil {
		i.Awaiting, i.Releasing, i.Will = len(s.received), len(s.released), s.will != nil
	}
	return i
}

// Session finds one by its client id. Its methods that hold a connection are
// not for the caller.
func (b *Broker) Session(ctx context.Context, id string) (*Session, SessionInfo, error) {
	if err := b.may(ctx, auth.View, auth.Server); err != nil {
		return nil, SessionInfo{}, err
	}
	s := b.sessions.named(id)
	if s == nil {
		return nil, SessionInfo{}, noSession(id)
	}
	return s, s.Info(), nil
}

func noSession(id string) error {
	return errorf(NotFound, ClientSubject, "client %q has no session", id)
}

// Backlog counts what waits for the client, what it was sent, and what became of
// the rest.
func (s *Session) Backlog(ctx context.Context) (Info, error) {
	t := Target(s.target.Load())
	if t == 0 {
		return Info{}, nil
	}
	i, err := s.b.store.Info(ctx, t)
	return i, storeError(err)
}

// Waiting appends up to limit messages to dst that wait for the client, from the
// sequence on, in their order.
func (s *Session) Waiting(ctx context.Context, from uint64, limit int, dst []Delivery) ([]Delivery, error) {
	return s.read(ctx, Pos{Seq: from, States: Ready | Delayed}, limit, dst)
}

// EndSession ends a session that no connection holds, with everything that is
// its. A will that is owed is published. Errors: Forbidden, NotFound, Conflict
// while a connection holds it, whose edge has to end that first.
func (b *Broker) EndSession(ctx context.Context, id string) error {
	if err := b.may(ctx, auth.Manage, auth.Server); err != nil {
		return err
	}
	s, err := b.sessions.take(ctx, id)
	if err != nil {
		return err
	}
	return s.end(ctx, true)
}

// take takes a session to end it.
func (ss *sessions) take(ctx context.Context, id string) (*Session, error) {
	for {
		ss.mu.Lock()
		s := ss.byID[id]
		switch {
		case s == nil || !s.durable || s.ending:
			ss.mu.Unlock()
			return nil, noSession(id)
		case s.wait != nil:
			wait := s.wait
			ss.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, gaveUp(ctx)
			}
		case s.held:
			ss.mu.Unlock()
			return nil, errorf(Conflict, ClientSubject, "client %q is connected", id)
		}
		s.held, s.due, s.wait, s.ending = true, 0, make(chan struct{}), true
		ss.mu.Unlock()
		return s, nil
	}
}
