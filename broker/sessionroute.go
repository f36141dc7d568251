package broker

import (
	"context"
	"slices"

	"millrace/broker/auth"
)

// What a route to a session says about the message there: its QoS, its retain
// flag, and the Subscription Identifier of the subscription that matched. Where
// several did, or the identifier is too large, the subscriptions of the time of
// delivery are asked.
const (
	tagQoS     = 3
	tagRetain  = 1 << 2
	tagReplay  = 1 << 3 // retained, for a new subscription
	tagSeveral = 1 << 4
	tagID      = 5 // shift
	maxTagID   = 1<<27 - 1
)

// tag is the word for a message that only d matched.
func (d *sessionSub) tag(qos byte, retain bool) uint32 {
	t := uint32(qos)
	if retain {
		t |= tagRetain
	}
	if d.o.ID > maxTagID {
		return t | tagSeveral
	}
	return t | d.o.ID<<tagID
}

// own reports whether m is of the client itself, which does not want it back:
// MQTT 5 section 3.8.3.1.
func (d *sessionSub) own(m *Message) bool { return d.o.NoLocal && m.Publisher == d.s.id }

// may reports whether the client may have a message that the filter matches,
// from those who may read its topic.
func (d *sessionSub) may(readers *auth.Readers) bool {
	return !d.asked.Load() || readers.Include(d.s.principal(), &d.seat)
}

// wants reports whether m, which the filter matches, is for the client.
func (d *sessionSub) wants(m *Message, readers *auth.Readers) bool {
	return !d.own(m) && d.may(readers)
}

// route appends the one route of m to the session, or changes it when another
// subscription has made it: MQTT 5 section 3.3.4, one copy at the highest QoS.
func (d *sessionSub) route(m *Message, routes []Route) []Route {
	t := d.tag(min(d.o.QoS, m.QoS), m.Retain && d.o.RetainAsPublished)
	to := Target(d.s.target.Load())
	if d.s.multi.Load() {
		for i := range routes {
			if r := &routes[i]; r.Target == to {
				r.Tag = merge(r.Tag, t)
				return routes
			}
		}
	}
	return append(routes, Route{Target: to, Tag: t})
}

// merge is the tag of a message that two subscriptions matched.
func merge(a, b uint32) uint32 {
	qos, flags := max(a&tagQoS, b&tagQoS), (a|b)&(tagRetain|tagSeveral)
	if a>>tagID != b>>tagID {
		return qos | flags | tagSeveral
	}
	return qos | flags | a&^(1<<tagID-1)
}

// toLive appends the part of d that is there while the client is connected.
func (d *sessionSub) toLive(subs []*Subscription) []*Subscription {
	if live := d.live.Load(); live != nil {
		subs = append(subs, live)
	}
	return subs
}

// toRest looks at the subscriptions among found that take m, which is of a
// higher QoS, in QoS 0, and may not be the only ones of their sessions: where
// another one made a route, that is the one copy.
func toRest(m *Message, readers *auth.Readers, found []destination, routes []Route, subs []*Subscription) []*Subscription {
	for _, f := range found {
		d, ok := f.(*sessionSub)
		if !ok || d.o.QoS > 0 || !d.s.multi.Load() || !d.wants(m, readers) {
			continue
		}
		to := Target(d.s.target.Load())
		if i := slices.IndexFunc(routes, func(r Route) bool { return r.Target == to }); i >= 0 {
			routes[i].Tag |= tagSeveral
		} else {
			subs = d.toLive(subs)
		}
	}
	return subs
}

// in reports whether one of the routes leads to the session's backlog.
func (s *Session) in(routes []Route) bool {
	to := Target(s.target.Load())
	return to != 0 && slices.ContainsFunc(routes, func(r Route) bool { return r.Target == to })
}

// principal is whose the session is.
func (s *Session) principal() *auth.Principal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owner
}

// Terms are how a message of a session's backlog is delivered.
type Terms struct {
	QoS    byte
	Retain bool
	ID     uint32   // the Subscription Identifier, if there is one
	IDs    []uint32 // if there are several
}

// Terms says how d, of the session's backlog, is delivered. It is false when the
// client may not have it any more, or has a newer one in its place.
func (s *Session) Terms(d *Delivery) (Terms, bool) {
	t := Terms{QoS: byte(d.Tag & tagQoS), Retain: d.Tag&(tagRetain|tagReplay) != 0, ID: d.Tag >> tagID}
	if !s.b.auth.Allow(s.principal(), auth.Subscribe, auth.TopicResource(d.Topic)) {
		return t, false
	}
	if d.Tag&tagReplay != 0 && d.Attempt <= 1 && !s.b.stillRetained(&d.Message) {
		return t, false // the client has the newer one, or it comes
	}
	if d.Tag&tagSeveral != 0 {
		t.ID, t.IDs = 0, s.identifiers(&d.Message)
	}
	return t, true
}

// identifiers are those of the subscriptions that match m now.
func (s *Session) identifiers(m *Message) []uint32 {
	var ids []uint32
	readers := s.b.auth.Readers(m.Topic)
	for _, d := range s.b.tree.Match(m.Topic, nil) {
		sub, ok := d.(*sessionSub)
		if ok && sub.s == s && sub.o.ID != 0 && sub.wants(m, &readers) && !slices.Contains(ids, sub.o.ID) {
			ids = append(ids, sub.o.ID)
		}
	}
	return ids
}

// stillRetained reports whether m is the retained message of its topic.
func (b *Broker) stillRetained(m *Message) bool {
	now, err := b.retained.get(context.Background(), m.Topic, 0)
	return err != nil && !isGone(err) || err == nil && now.ID == m.ID
}

// owedRetained is a retained message for a subscription that was not there when
// the message was matched, and was when it was committed.
type owedRetained struct {
	d *sessionSub
	m *Message
}

// maxOwed is how many there may be, which is more than can come together.
const maxOwed = 10_000

// owe has m put into the backlog of d's session soon. It does not block.
func (ss *sessions) owe(d *sessionSub, m *Message) {
	if d.o.Handling == 2 {
		return
	}
	ss.mu.Lock()
	full := len(ss.owed) >= maxOwed
	if !full {
		ss.owed = append(ss.owed, owedRetained{d, m})
	}
	ss.mu.Unlock()
	if full {
		ss.b.log.Warn().Str("client", d.s.id).Int("waiting", maxOwed).Msg("retained message was not given to a new subscription")
		return
	}
	select {
	case ss.wake <- struct{}{}:
	default:
	}
}

// pay does what owe has promised.
func (ss *sessions) pay() {
	ss.mu.Lock()
	owed := ss.owed
	ss.owed = nil
	ss.mu.Unlock()
	for _, o := range owed {
		ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
		o.d.s.report("retained message was not given to a new subscription", o.d.s.Replay(ctx, o.d.filter, []*Message{o.m}))
		cancel()
	}
}

// Replay puts retained messages into the backlog, for the subscription to
// filter, and waits until they are recorded.
func (s *Session) Replay(ctx context.Context, filter string, ms []*Message) error {
	s.mu.Lock()
	i, known := s.find(filter)
	var d *sessionSub
	if known {
		d = s.subs[i]
	}
	s.mu.Unlock()
	if d == nil || len(ms) == 0 {
		return nil
	}
	c := newCommit()
	for _, m := range ms {
		c.Publish(m, Route{Target: Target(s.target.Load()), Tag: d.tag(min(d.o.QoS, m.QoS), false) | tagReplay})
	}
	return c.store(ctx, s.b.store, Durable)
}
