package broker

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"

	"millrace/broker/auth"
	"millrace/router"
)

// SubscriptionOptions are those of MQTT 5 section 3.8.3.1, and the
// Subscription Identifier.
type SubscriptionOptions struct {
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	Handling          byte // Retain Handling
	ID                uint32
}

// sessionSub is one subscription of a session, in the topic tree also while
// its client is away.
type sessionSub struct {
	s      *Session
	filter string
	o      SubscriptionOptions
	asked  atomic.Bool // see Subscription
	seat   auth.Seat
	// live takes messages of QoS 0 while the client is connected; see connect.
	live atomic.Pointer[Subscription]
}

func (*sessionSub) destination() {}

// routed reports whether messages that match go to the session's backlog: those
// of shared subscriptions and of queues come another way.
func (d *sessionSub) routed() bool {
	switch router.SpaceOf(d.filter) {
	case router.SpaceQueue, router.SpaceStream, router.SpaceShare:
		return false
	default:
		return true
	}
}

// shared reports whether the subscription makes the session a member of a group.
func (d *sessionSub) shared() bool { return router.SpaceOf(d.filter) == router.SpaceShare }

// connect lets live take messages of QoS 0, also those of other nodes. It returns
// what to await until they know.
func (d *sessionSub) connect(live *Subscription) (version uint64) {
	if d.live.Swap(live) != nil || d.s.b.peers == nil {
		return 0
	}
	return d.s.b.peers.want(wishOf(d.filter, d.o.QoS > 0))
}

// disconnect is the reverse.
func (d *sessionSub) disconnect() {
	if d.live.Swap(nil) != nil && d.s.b.peers != nil {
		d.s.b.peers.unwant(wishOf(d.filter, d.o.QoS > 0))
	}
}

// Filters are the subscriptions of the session, by filter.
func (s *Session) Filters(f func(filter string, o SubscriptionOptions) bool) {
	s.mu.Lock()
	subs := slices.Clone(s.subs)
	s.mu.Unlock()
	for _, d := range subs {
		if !f(d.filter, d.o) {
			return
		}
	}
}

// find returns where the subscription to a filter is, or would be. The caller
// holds mu.
func (s *Session) find(filter string) (int, bool) {
	return slices.BinarySearchFunc(s.subs, filter, func(d *sessionSub, f string) int { return cmp.Compare(d.filter, f) })
}

// Subscribe adds a subscription, or replaces the one with its filter without a
// gap, and is recorded by Commit. live gets what comes in QoS 0; its filter and
// principal are the session's. It is Forbidden as in Broker.Subscribe.
func (s *Session) Subscribe(ctx context.Context, live *Subscription, o SubscriptionOptions) error {
	b := s.b
	if err := b.CheckFilter(live.Filter); err != nil {
		return err
	}
	r := auth.TopicResource(live.Filter)
	dec := b.auth.Decide(s.owner, auth.Subscribe, r)
	if !dec.Allowed {
		return forbidden(s.owner, auth.Subscribe, r, dec.Rule)
	}
	if o.QoS > 0 {
		if err := s.needTarget(ctx); err != nil {
			return err
		}
	}
	live.asked = dec.Overlap
	d := &sessionSub{s: s, filter: live.Filter, o: o}
	d.asked.Store(live.asked)
	version := d.connect(live)
	s.add(d)
	b.peers.await(version)
	return nil
}

// Remember adds a subscription that is none to topics, as one to a queue, so
// that the client finds it when it comes back.
func (s *Session) Remember(filter string, o SubscriptionOptions) {
	s.add(&sessionSub{s: s, filter: filter, o: o})
}

// add puts d in its place, and the one that it replaces away.
func (s *Session) add(d *sessionSub) {
	s.lock()
	i, known := s.find(d.filter)
	s.place(d, i, known)
	s.changes = append(s.changes, sessionPut{subscriptionKey(s.id, d.filter), d.o.encode()})
	s.mu.Unlock()
}

// Unsubscribe removes a subscription and is recorded by Commit. It reports
// whether there was one. What it had matched is delivered all the same.
func (s *Session) Unsubscribe(filter string) bool {
	d := s.remove(filter)
	if d != nil && d.shared() {
		ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
		defer cancel()
		s.report("shared subscription was not ended", s.b.leaveGroup(ctx, filter))
	}
	return d != nil
}

func (s *Session) remove(filter string) *sessionSub {
	s.lock()
	defer s.mu.Unlock()
	i, known := s.find(filter)
	if !known {
		return nil
	}
	d := s.leaveOut(i)
	s.changes = append(s.changes, sessionPut{subscriptionKey(s.id, filter), nil})
	return d
}

// Commit records what Subscribe and Unsubscribe have changed: only then may the
// client be told. After an error the changes hold, and the next Commit tries again.
func (s *Session) Commit(ctx context.Context) error {
	s.lock()
	none := len(s.changes) == 0
	s.mu.Unlock()
	if none {
		return nil
	}
	var changes []sessionPut
	err := s.write(ctx, Durable, func(b *Batch) {
		changes, s.changes = s.changes, nil
		s.encodeChanges(b, changes)
	})
	if err != nil {
		s.lock()
		s.changes = append(changes, s.changes...)
		s.mu.Unlock()
		return err
	}
	return s.b.keepGroups(ctx, changes)
}

// Reattach gives a subscription that was there when the client came back the
// one that takes its messages of QoS 0. It reports whether the subscription is
// still allowed; one that is not is removed, which Commit records.
func (s *Session) Reattach(live *Subscription) bool {
	dec := s.b.auth.Decide(s.owner, auth.Subscribe, auth.TopicResource(live.Filter))
	if !dec.Allowed {
		s.Unsubscribe(live.Filter)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.find(live.Filter)
	if !known {
		return false
	}
	live.asked = dec.Overlap
	s.subs[i].asked.Store(live.asked)
	s.subs[i].connect(live)
	return true
}

// needTarget defines the session's backlog if it has none yet.
func (s *Session) needTarget(ctx context.Context) error {
	if s.target.Load() != 0 {
		return nil
	}
	d := s.b.sessionDef(s.id)
	if s.tenure != nil {
		if err := s.b.sessions.dropLoose(ctx, s.id); err != nil {
			return err
		}
		d.Expect = NewTarget
	}
	t, err := s.b.store.Define(ctx, d)
	if err != nil {
		return storeError(err)
	}
	s.target.Store(uint64(t))
	return nil
}
