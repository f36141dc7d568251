package broker

import (
	"slices"

	"millrace/broker/auth"
)

// Sink takes messages for live subscribers: one call for each message, with
// all of the sink's subscriptions that matched (one subscriber may appear more
// than once, by different filters). Calls for messages of one producer come in
// order; others run concurrently. It must not block, and to is only valid
// during the call.
type Sink interface {
	Deliver(m *Message, to []*Subscription)
}

// Subscription is a live interest in a filter. Its fields must not change
// between Subscribe and Unsubscribe.
type Subscription struct {
	Filter string
	// Share is the whole filter of a shared subscription, $share/GROUP/FILTER, of
	// which this is a member; its sink gives each message to one of them. "" = not shared.
	Share     string
	Principal *auth.Principal
	Sink      Sink
	Member    any // the sink's own

	// asked is set where something the filter matches is denied, so that every
	// delivery is asked about.
	asked bool
	seat  auth.Seat
	via   *via // where it is; nil: here, and that is all there is to know
}

func (*Subscription) destination() {}

// Subscribe adds s to the tree: every message published after it returned, on
// whatever node, reaches the sink; of several nodes it waits for, at most a
// second. It is Forbidden when nothing that the filter matches is
// allowed; where only part of it is, the rest is not delivered.
func (b *Broker) Subscribe(s *Subscription) error {
	if err := b.CheckFilter(s.Filter); err != nil {
		return err
	}
	r := auth.TopicResource(s.Filter)
	d := b.auth.Decide(s.Principal, auth.Subscribe, r)
	if !d.Allowed {
		return forbidden(s.Principal, auth.Subscribe, r, d.Rule)
	}
	s.asked = d.Overlap
	if b.peers != nil {
		b.peers.subscribe(s)
		return nil
	}
	b.tree.Insert(s.Filter, s)
	b.joined.Add(1)
	return nil
}

// Delivers reports whether s may be given a message that its filter matches, from
// those who may read its topic. A sink that keeps messages for later asks again.
func (s *Subscription) Delivers(readers *auth.Readers) bool {
	return !s.asked || readers.Include(s.Principal, &s.seat)
}

// Unsubscribe takes s out again. Messages under way may still be delivered.
func (b *Broker) Unsubscribe(s *Subscription) {
	if b.peers != nil {
		b.peers.unsubscribe(s)
		return
	}
	b.tree.Remove(s.Filter, s)
}

// latecomers adds to those that matched a retained message who has subscribed
// between that and its commit. They may have been given what was retained
// before, and whoever comes later is given this: see RetainedMark. A session
// whose backlog takes it gets it there, as if it had been found.
func (c *pending) latecomers(p *publish) []*Subscription {
	subs := c.subs[p.first:p.last]
	if !p.m.Retain || p.m.NotBefore > p.m.Published || c.b.joined.Load() == p.joined {
		return subs
	}
	known := make(map[*Subscription]bool, len(subs))
	for _, s := range subs {
		known[s] = true
	}
	c.found = c.b.tree.Match(p.m.Topic, c.found[:0])
	readers := c.b.auth.Readers(p.m.Topic)
	subs = slices.Clone(subs) // those of the next publish stand behind them
	for _, d := range c.found {
		switch d := d.(type) {
		case *Subscription:
			if !known[d] && !d.served(subs) && (d.via == nil || d.via.takes(p.m, clientsToo)) {
				subs = append(subs, d)
			}
		case *sessionSub:
			switch live := d.live.Load(); {
			case p.op >= 0 && d.s.in(c.batch.Ops[p.op].Routes) || !d.wants(p.m, &readers):
			case min(d.o.QoS, p.m.QoS) > 0:
				c.b.sessions.owe(d, p.m)
			case live != nil && !known[live]:
				subs = append(subs, live)
			}
		}
	}
	return subs
}

// served reports whether s is a member of a shared subscription of which one stands in
// subs.
func (s *Subscription) served(subs []*Subscription) bool {
	return s.Share != "" && slices.ContainsFunc(subs, func(x *Subscription) bool { return x.Share == s.Share })
}

// fanOut delivers m to the subscriptions it matched, sink by sink. It may
// reorder and shorten subs.
func (b *Broker) fanOut(m *Message, subs []*Subscription) {
	readers := b.auth.Readers(m.Topic)
	subs = slices.DeleteFunc(subs, func(s *Subscription) bool { return !s.Delivers(&readers) })
	for len(subs) > 0 {
		sink, n := subs[0].Sink, 1
		for i := n; i < len(subs); i++ { // gather this sink's at the front
			if subs[i].Sink == sink {
				subs[n], subs[i] = subs[i], subs[n]
				n++
			}
		}
		sink.Deliver(m, subs[:n])
		subs = subs[n:]
	}
}
