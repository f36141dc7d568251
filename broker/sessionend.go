package broker

import (
	"context"
	"errors"
	"time"
)

// Here is how a connection lets its session go, and how a session ends.

// Close ends the hold of a connection. A will that was not taken back is
// published, now or after its delay; a session that does not outlive its
// connection ends. While the broker goes down nothing of that is done: it comes
// after the next start, as if the process had been killed.
func (s *Session) Close(ctx context.Context, goingDown bool) {
	s.detach()
	s.lock()
	expiry, will := s.expiry, s.will
	lost := s.tenure != nil && s.tenure.lost
	s.mu.Unlock()
	switch {
	case lost:
		s.b.sessions.letGo(s)
	case goingDown:
		s.leave(ctx, 0)
	case expiry == 0 || !s.durable:
		s.b.sessions.ending(s)
		s.report("session was not ended", s.end(ctx, will != nil))
	case will != nil && will.Delay > 0:
		s.leave(ctx, min(will.Delay, lifetime(expiry)))
	default:
		if will != nil {
			s.publishWill(ctx)
		}
		s.leave(ctx, 0)
	}
}

// leave records that the connection ended, and has the session woken when its
// time, or that of its will, is over.
func (s *Session) leave(ctx context.Context, delay time.Duration) {
	ss := &s.b.sessions
	now := ss.now()
	s.lock()
	s.willDue, s.endDue, s.since = 0, 0, now
	if delay > 0 {
		s.willDue = now + delay.Milliseconds()
	}
	if s.durable && s.expiry != NeverExpires {
		s.endDue = now + lifetime(s.expiry).Milliseconds()
	}
	if s.tenure != nil {
		s.tenure.holder = holder{}
		s.timeWill()
	}
	s.mu.Unlock()
	if s.durable || s.tenure != nil {
		s.report("end of a connection was not recorded", s.record(ctx, Lazy))
	}
	ss.letGo(s)
}

// letGo makes s free to be held again.
func (ss *sessions) letGo(s *Session) {
	if s.tenure != nil && !ss.putAway(s) {
		return
	}
	s.principal().Rest()
	s.rest()
	ss.mu.Lock()
	s.held = false
	s.idle()
	ss.schedule(s)
	ss.mu.Unlock()
}

// idle says that the broker does not hold s any more. The caller holds mu.
func (s *Session) idle() {
	if s.wait != nil && !s.ending {
		close(s.wait)
		s.wait = nil
	}
}

// ending says that s will be ended by the caller, who holds it.
func (ss *sessions) ending(s *Session) {
	ss.mu.Lock()
	if !s.ending {
		s.idle()
		s.wait, s.ending = make(chan struct{}), true
	}
	ss.mu.Unlock()
}

// forget takes s out of the books; whoever waits for its end goes on.
func (ss *sessions) forget(s *Session) {
	ss.mu.Lock()
	delete(ss.byID, s.id)
	if s.ending {
		close(s.wait)
	}
	ended := ss.ended
	ss.mu.Unlock()
	if ended != nil {
		ended(s)
	}
}

// end removes s with everything that belongs to it. The caller holds it, and
// said that it is ending. Its will is published if it was owed. It is errLost, and
// nothing was removed, where another node has taken the session meanwhile.
func (s *Session) end(ctx context.Context, will bool) error {
	s.detach()
	if will {
		s.publishWill(ctx)
	}
	s.lock()
	subs, small, was := s.subs, s.small, *s.affairs
	rev, willRev := s.revision(), s.willRevision()
	s.subs, *s.affairs = nil, affairs{}
	s.mu.Unlock()
	c, level := newCommit(), Lazy
	if s.durable {
		level = Durable
		c.Put(SpaceSessions, s.id, nil, rev)
	}
	if was.willStored {
		c.Put(SpaceSessions, willKey(s.id), nil, willRev)
	}
	for _, d := range subs {
		if d.routed() {
			s.b.tree.Remove(d.filter, d)
		}
		if !small {
			c.Put(SpaceSessions, subscriptionKey(s.id, d.filter), nil, 0)
		}
		if d.shared() {
			s.report("shared subscription was not ended", s.b.leaveGroup(ctx, d.filter))
		}
	}
	for id := range was.received {
		c.Put(SpaceSessions, receivedKey(s.id, id), nil, 0)
		delete(was.claimed, id)
	}
	for id := range was.claimed {
		c.Put(SpaceSessions, receivedKey(s.id, id), nil, 0)
	}
	for _, id := range was.released {
		c.Put(SpaceSessions, releasedKey(s.id, id), nil, 0)
	}
	for seq := range was.numbers {
		c.Put(SpaceSessions, numberKey(s.id, seq), nil, 0)
	}
	err := c.store(ctx, s.b.store, level)
	if errors.Is(err, ErrConflict) && s.tenure != nil {
		s.b.sessions.lose(s) //nolint:contextcheck // the connection's end outlives the caller
		s.b.sessions.letGo(s)
		return errLost
	}
	s.b.sessions.forget(s)
	if t := Target(s.target.Load()); t != 0 && err == nil {
		err = storeError(s.b.store.Drop(ctx, t))
	}
	return err
}

// detach makes live deliveries stop.
func (s *Session) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.subs {
		d.disconnect()
	}
}

// lifetime is an expiry as a duration; NeverExpires is longer than any delay.
func lifetime(expiry uint32) time.Duration { return time.Duration(expiry) * time.Second }
