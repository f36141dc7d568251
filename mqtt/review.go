package mqtt

import (
	"slices"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// reviewEvery is how often changes of users, keys and rules are looked at.
const reviewEvery = time.Second

// review brings a change of rights to the connections that are open: those of
// clients that are banned, or whose user or key ended, are closed; subscriptions
// that are not allowed any more are removed, and waiting messages with them. seen
// is the generation of which no connection is open yet.
func (s *Server) review(seen uint64) {
	var last time.Time
	for expelled := seen; ; {
		changed := s.auth.Changed()
		now := s.auth.Generation()
		if now != expelled {
			expelled = now
			s.expel()
		}
		var due <-chan time.Time // the rest costs more, and takes many changes at once
		if now != seen {
			due = time.After(time.Until(last.Add(reviewEvery)))
		}
		select {
		case <-s.stopped:
			return
		case <-changed:
		case <-due:
			seen, last = now, time.Now()
			for _, c := range s.loggedIn() {
				if c.stillWelcome() {
					c.session.review(s.auth)
					c.session.reviewQueues(s.auth)
				}
			}
		}
	}
}

// expel ends the connections of clients that are banned.
func (s *Server) expel() {
	for _, c := range s.loggedIn() {
		c.stillAllowed()
	}
}

// stillAllowed ends the connection if its client is banned.
func (c *conn) stillAllowed() bool {
	_, is := c.srv.auth.Banned(c.hello.id, c.hello.user, c.host)
	if is {
		c.end(&faultError{banned, "client is banned", closeAuth})
	}
	return !is
}

// stillWelcome ends the connection if its client is banned, or its user or key
// has ended.
func (c *conn) stillWelcome() bool {
	if !c.srv.auth.Valid(c.who) {
		c.end(&faultError{notAuthorized, "user or key has ended", closeAuth})
		return false
	}
	return c.stillAllowed()
}

// loggedIn lists the connections after login. The session of one that is about to be is
// not there yet; login itself asks whether rights have changed meanwhile.
func (s *Server) loggedIn() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := make([]*conn, 0, len(s.clients))
	for _, c := range s.clients {
		if c.open {
			cs = append(cs, c)
		}
	}
	return cs
}

// review asks about every subscription again. One that stays is made anew,
// because the broker decides then whether each of its deliveries is asked about.
func (s *session) review(a *auth.Auth) {
	s.mu.Lock()
	olds := make([]*broker.Subscription, 0, len(s.subs))
	for _, sub := range s.subs {
		olds = append(olds, sub)
	}
	s.mu.Unlock()
	for _, old := range olds {
		s.renew(old)
	}
	if f := s.commit(); f != nil {
		s.c.end(f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox.review(a, s)
	for range s.backlog.len() {
		p := s.backlog.pop()
		if a.Allow(s.who, auth.Subscribe, auth.TopicResource(p.m.Topic)) {
			s.backlog.push(p)
		} else {
			s.c.srv.stats.drop(dropDenied)
		}
	}
}

// renew replaces old, or removes it when nothing of it is allowed any more,
// unless the client has changed it meanwhile.
func (s *session) renew(old *broker.Subscription) {
	b, mb := s.c.srv.o.Broker, old.Member.(*member)
	if s.durable() && mb.group == nil {
		s.renewKept(old)
		return
	}
	now := &broker.Subscription{Filter: old.Filter, Share: old.Share, Principal: old.Principal, Sink: old.Sink, Member: mb}
	s.multi.Store(true)
	gone := b.Subscribe(now) != nil
	if g := mb.group; g != nil && !gone {
		s.c.srv.group(mb.filter)
		g.join(now)
	}
	s.mu.Lock()
	last := now
	if s.subs[mb.filter] == old {
		last = old
		if gone {
			delete(s.subs, mb.filter)
			s.unlist(mb.filter)
			s.regroup()
		} else {
			s.subs[mb.filter] = now
		}
	}
	s.mu.Unlock()
	if last == old || !gone {
		s.drop(last)
	}
}

// renewKept does the same for a subscription that is kept: the broker asks about
// what comes by it from now on.
func (s *session) renewKept(old *broker.Subscription) {
	mb := old.Member.(*member)
	now := s.subscription(mb)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.subs[mb.filter] != old:
	case s.kept.Reattach(now):
		s.subs[mb.filter] = now
	default:
		delete(s.subs, mb.filter)
		s.unlist(mb.filter)
	}
}

// review takes out what was taken and may not be sent any more. The caller holds
// session.mu.
func (b *inbox) review(a *auth.Auth, s *session) {
	b.held = slices.DeleteFunc(b.held, func(h arrival) bool {
		if h.dup || a.Allow(s.who, auth.Subscribe, auth.TopicResource(h.d.Topic)) {
			return false
		}
		s.c.srv.stats.drop(dropDenied)
		s.c.srv.keeper.drop(h.d.Ref, broker.ReasonUndelivered)
		return true
	})
}
