package mqtt

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clients"
	"millrace/router"
)

// list puts c into the index of clients, after its login.
func (c *conn) list() {
	c.srv.o.Clients.Put(c.session, c.facts())
}

// facts are what stays the same about c.
func (c *conn) facts() *clients.Facts {
	h := &c.hello
	f := &clients.Facts{
		ID: h.id, Username: h.user, Principal: c.who.String(), Listener: c.listener, Host: c.host,
		Version: 4, CleanStart: h.clean, KeepAlive: h.keepAlive, Connected: true,
		ConnectedAt: time.Now(), CreatedAt: time.Now(),
	}
	if _, port, err := net.SplitHostPort(c.remote); err == nil {
		f.Port, _ = strconv.Atoi(port) // what cannot be read is 0
	}
	switch {
	case h.v31:
		f.Version = 3
	case c.v5:
		f.Version = 5
	}
	if s := c.session; s.durable() {
		f.Expiry = h.expiry(&c.srv.o)
		if was, ok := c.srv.o.Clients.Get(h.id); ok && c.present {
			f.CreatedAt = was.Facts.CreatedAt
		}
	}
	return f
}

// delist takes c out of the index, or leaves there the session that waits for
// its client.
func (c *conn) delist() {
	s := c.session
	if s.durable() && !s.kept.Ended() && c.srv.o.Broker.Leads() {
		if was, ok := c.srv.o.Clients.Get(s.id); ok {
			f := *was.Facts
			f.Connected, f.DisconnectedAt = false, time.Now()
			away := newAway(s.kept, c.srv)
			c.srv.o.Clients.Replace(s, away, &f, away.Subscriptions())
			if s.kept.Ended() { // meanwhile
				c.srv.forgetAway(away)
				c.srv.stats.ended.Add(1)
			} else if s.kept.Elsewhere() {
				c.srv.forgetAway(away)
			}
			return
		}
	}
	if !s.durable() || s.kept.Ended() {
		c.srv.stats.ended.Add(1)
	}
	c.srv.o.Clients.Remove(s, s.id)
}

// listed puts a subscription into the index. The caller holds mu.
func (s *session) listed(mb *member) {
	s.c.srv.o.Clients.Subscribe(s, mb.view())
}

// unlist takes one out.
func (s *session) unlist(filter string) {
	s.c.srv.o.Clients.Unsubscribe(s, s.id, filter)
}

func (mb *member) view() clients.Subscription {
	return clients.Subscription{
		ClientID: mb.s.id, Filter: mb.filter, QoS: mb.qos, NoLocal: mb.noLocal, RetainAsPublished: mb.rap,
		RetainHandling: mb.handling, Durable: mb.s.durable(),
	}
}

// Subscriptions implements clients.Session.
func (s *session) Subscriptions() []clients.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]clients.Subscription, 0, len(s.subs)+len(s.takes.by))
	for _, sub := range s.subs {
		all = append(all, sub.Member.(*member).view())
	}
	for filter, t := range s.takes.by {
		all = append(all, clients.Subscription{ClientID: s.id, Filter: filter, QoS: t.qos, Durable: s.durable()})
	}
	slices.SortFunc(all, byKey)
	return all
}

// Numbers implements clients.Session.
func (s *session) Numbers() clients.Numbers {
	c := s.c
	o := &c.srv.o
	n := clients.Numbers{
		MaxSubscriptions: c.srv.limits.Load().MaxSubs, MaxWaiting: c.srv.limits.Load().BacklogMessages, MaxAwaitingRel: o.ReceiveMaximum,
		KeepAlive: uint16(time.Duration(c.keepAlive.Load()) * 2 / 3 / time.Second),
		Received:  c.received.numbers(), Sent: c.sent.numbers(),
	}
	n.Received.Dropped = c.lost.refused.Load()
	n.Sent.Full, n.Sent.Expired, n.Sent.TooLarge = c.lost.full.Load(), c.lost.expired.Load(), c.lost.tooLarge.Load()
	n.Sent.Dropped = n.Sent.Full + n.Sent.Expired + n.Sent.TooLarge + c.lost.shed.Load()
	c.acks.mu.Lock()
	n.AwaitingRel = len(c.acks.ids)
	c.acks.mu.Unlock()
	s.mu.Lock()
	n.Subscriptions = len(s.subs) + len(s.takes.by)
	n.Inflight, n.MaxInflight = len(s.window.out), s.window.size
	n.Waiting = s.backlog.len()
	s.mu.Unlock()
	if s.durable() {
		if i, err := s.kept.Backlog(context.Background()); err == nil { // else it has just ended
			n.Waiting += int(i.Ready + i.Delayed)
		}
	}
	return n
}

func (s *share) numbers() (t clients.Traffic) {
	t.Packets, t.Bytes = s.packets.Load(), s.bytes.Load()
	for i := range s.messages {
		t.Messages[i] = s.messages[i].Load()
	}
	return t
}

// Kick implements clients.Session.
func (s *session) Kick() <-chan struct{} {
	s.c.kicked.Store(true)
	s.c.end(&faultError{administrative, "kicked", closeKicked})
	return s.c.left
}

// Subscribe implements clients.Session. It decides as a SUBSCRIBE does; the
// client is not asked and learns by what it gets.
func (s *session) Subscribe(sub clients.Subscription) error {
	w := want{filter: sub.Filter, qos: sub.QoS, noLocal: sub.NoLocal, rap: sub.RetainAsPublished, handling: sub.RetainHandling}
	code, why := s.c.subscribeOne(0, w)
	switch {
	case code == badFilter:
		return &broker.Error{Kind: broker.Invalid, Subject: broker.FilterSubject, Message: "the filter is not valid"}
	case code == notAuthorized:
		return &broker.Error{Kind: broker.Forbidden, Message: s.who.String() + " may not subscribe to " + clip(sub.Filter)}
	case code == quotaExceeded:
		return &broker.Error{Kind: broker.Full, Message: "the client has as many subscriptions as it may have"}
	case code >= unspecified:
		return &broker.Error{Kind: broker.Invalid, Message: cmp.Or(why, "the subscription was refused")}
	}
	if f := s.commit(); f != nil {
		return &broker.Error{Kind: broker.Unavailable, Message: "the subscription was not recorded", Err: f}
	}
	s.kick()
	s.replayKept()
	s.openInbox()
	s.replayRetained()
	return nil
}

// Unsubscribe implements clients.Session.
func (s *session) Unsubscribe(filter string) bool {
	was := s.unsubscribe(filter) == success
	if f := s.commit(); f != nil {
		s.c.end(f) // as after an UNSUBSCRIBE
	}
	return was
}

// SetKeepAlive implements clients.Session.
func (s *session) SetKeepAlive(seconds uint16) error {
	c := s.c
	ka := time.Duration(seconds) * time.Second
	c.keepAlive.Store(int64(ka + ka/2))
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.stop.Load() {
		return clients.ErrOffline
	}
	_ = c.Conn.SetReadDeadline(past) // wakes the reader, which sees that it is early
	c.rearm.Store(true)              // and goes round until it knows why
	return nil
}

// Waiting implements clients.Session: what waits here, and what is kept in the
// broker behind it.
func (s *session) Waiting(after uint64, limit int) []clients.Held {
	if s.durable() {
		return pendingOf(s.kept, after, limit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []clients.Held
	b := &s.backlog
	for i := range b.n {
		if at := b.popped + uint64(i) + 1; at > after && len(all) < limit {
			p := &b.ring[(b.head+i)%len(b.ring)]
			all = append(all, clients.Held{Message: p.m, QoS: p.qos, Position: at})
		}
	}
	return all
}

// Inflight implements clients.Session.
func (s *session) Inflight(after uint64, limit int) []clients.Held {
	s.mu.Lock()
	all := make([]clients.Held, 0, len(s.window.out))
	for _, f := range s.window.out {
		if f.m != nil && f.serial > after {
			qos := byte(1)
			if f.state != wantPuback {
				qos = 2
			}
			all = append(all, clients.Held{Message: f.m, QoS: qos, Position: f.serial})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b clients.Held) int { return cmp.Compare(a.Position, b.Position) })
	return all[:min(limit, len(all))]
}

// away is a session whose client is not connected.
type away struct {
	s   *broker.Session
	srv *Server

	mu   sync.Mutex
	subs []clients.Subscription // in order of Key; also once the session has ended
}

// newAway is a session that waits, with the subscriptions it has.
func newAway(s *broker.Session, srv *Server) *away {
	a := &away{s: s, srv: srv}
	s.Filters(func(filter string, so broker.SubscriptionOptions) bool {
		a.subs = append(a.subs, clients.Subscription{
			ClientID: s.ClientID(), Filter: filter, QoS: so.QoS, NoLocal: so.NoLocal, RetainAsPublished: so.RetainAsPublished,
			RetainHandling: so.Handling, Durable: true,
		})
		return true
	})
	slices.SortFunc(a.subs, byKey)
	return a
}

func byKey(a, b clients.Subscription) int { return cmp.Compare(a.Key(), b.Key()) }

// adminTimeout is how long an operator's change of a session may take.
const adminTimeout = 10 * time.Second

// ourselves is the context of what the edge does for an operator, whose right
// was asked for.
func ourselves() context.Context {
	return auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.System})
}

// Subscriptions implements clients.Session.
func (a *away) Subscriptions() []clients.Subscription {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.subs)
}

// Numbers implements clients.Session.
func (a *away) Numbers() clients.Numbers {
	i, err := a.s.Backlog(context.Background())
	if err != nil { // it has just ended
		return clients.Numbers{}
	}
	return clients.Numbers{
		Subscriptions: len(a.Subscriptions()), MaxSubscriptions: a.srv.limits.Load().MaxSubs,
		Waiting: int(i.Ready + i.Delayed), MaxWaiting: a.srv.limits.Load().BacklogMessages, Inflight: int(i.Leased), MaxInflight: a.srv.o.MaxInflight,
		AwaitingRel: len(a.s.Received()), MaxAwaitingRel: a.srv.o.ReceiveMaximum,
	}
}

// Kick implements clients.Session.
func (a *away) Kick() <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends within adminTimeout
		defer close(done)
		ctx, cancel := context.WithTimeout(ourselves(), adminTimeout)
		defer cancel()
		err := a.srv.o.Broker.EndSession(ctx, a.s.ClientID())
		if k := broker.KindOf(err); err != nil && k != broker.NotFound && k != broker.Conflict { // it ended, or has just connected
			a.srv.o.Log.Warn().Str("client", clip(a.s.ClientID())).Err(err).Msg("session was not ended")
		}
	}()
	return done
}

// Subscribe implements clients.Session.
func (a *away) Subscribe(sub clients.Subscription) error {
	switch router.SpaceOf(sub.Filter) {
	case router.SpaceQueue, router.SpaceStream, router.SpaceShare:
		return clients.ErrOffline // messages of these go to whoever is there
	default: // it is kept with the session
	}
	if len(a.Subscriptions()) >= a.srv.limits.Load().MaxSubs {
		return &broker.Error{Kind: broker.Full, Message: "the client has as many subscriptions as it may have"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	err := a.s.SubscribeAway(ctx, sub.Filter, broker.SubscriptionOptions{
		QoS: sub.QoS, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished, Handling: sub.RetainHandling,
	})
	if err != nil {
		return err
	}
	sub.ClientID, sub.Durable = a.s.ClientID(), true
	a.mu.Lock()
	defer a.mu.Unlock()
	if i, known := slices.BinarySearchFunc(a.subs, sub, byKey); known {
		a.subs[i] = sub
	} else {
		a.subs = slices.Insert(a.subs, i, sub)
	}
	a.srv.o.Clients.Subscribe(a, sub)
	return nil
}

// Unsubscribe implements clients.Session.
func (a *away) Unsubscribe(filter string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	was, err := a.s.UnsubscribeAway(ctx, filter)
	if err != nil {
		a.srv.o.Log.Warn().Str("client", clip(a.s.ClientID())).Err(err).Msg("subscription was not removed")
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subs = slices.DeleteFunc(a.subs, func(sub clients.Subscription) bool { return sub.Filter == filter })
	a.srv.o.Clients.Unsubscribe(a, a.s.ClientID(), filter)
	return was
}

// SetKeepAlive implements clients.Session.
func (a *away) SetKeepAlive(uint16) error { return clients.ErrOffline }

// Waiting implements clients.Session.
func (a *away) Waiting(after uint64, limit int) []clients.Held { return pendingOf(a.s, after, limit) }

// Inflight implements clients.Session.
func (a *away) Inflight(after uint64, limit int) []clients.Held {
	ds, err := a.s.InFlight(context.Background(), after+1, limit, nil)
	if err != nil {
		return nil // it has just ended
	}
	return heldOf(ds)
}

// pendingOf lists what the broker keeps for a client.
func pendingOf(s *broker.Session, after uint64, limit int) []clients.Held {
	ds, err := s.Waiting(context.Background(), after+1, limit, nil)
	if err != nil {
		return nil // it has just ended
	}
	return heldOf(ds)
}

func heldOf(ds []broker.Delivery) []clients.Held {
	all := make([]clients.Held, len(ds))
	for i := range ds {
		all[i] = clients.Held{Message: &ds[i].Message, QoS: broker.DeliveredQoS(&ds[i]), Position: ds[i].Seq}
	}
	return all
}

// listAway puts the sessions that were kept over a restart into the index, and
// sees that those which end leave it. Of several nodes the one that leads has
// those that no client holds.
func (s *Server) listAway() {
	s.o.Broker.OnSessionEnded(func(kept *broker.Session) {
		if a := s.awayAs(kept); a != nil {
			s.forgetAway(a)
			s.stats.ended.Add(1)
		}
	})
	s.o.Broker.OnSessionMoved(func(kept *broker.Session) {
		if a := s.awayAs(kept); a != nil {
			s.forgetAway(a)
		}
		if s.o.Broker.Leads() && !kept.Elsewhere() {
			s.list(kept, kept.Info())
		}
	}, s.listKept)
	if s.o.Broker.Leads() {
		s.listKept()
	}
}

// listKept puts all sessions into the index that no client holds.
func (s *Server) listKept() {
	for info := range s.o.Broker.Sessions() {
		kept, _, err := s.o.Broker.Session(ourselves(), info.ClientID)
		if err != nil {
			continue // its time has just ended
		}
		if kept.Elsewhere() {
			continue
		}
		if a := s.list(kept, info); kept.Elsewhere() || kept.Ended() { // meanwhile
			s.forgetAway(a)
		}
	}
}

// list puts a session into the index, unless its client is in it.
func (s *Server) list(kept *broker.Session, info broker.SessionInfo) *away {
	a := newAway(kept, s)
	name, _ := strings.CutPrefix(info.Owner, "user:")
	if !s.o.Clients.Add(a, &clients.Facts{
		ID: info.ClientID, Username: name, Principal: info.Owner, Version: 5, Expiry: info.Expiry, DisconnectedAt: info.Disconnected,
	}) {
		return a
	}
	for _, sub := range a.Subscriptions() {
		s.o.Clients.Subscribe(a, sub)
	}
	return a
}

// awayAs finds a session in the index, if it is there as one that no client holds.
func (s *Server) awayAs(kept *broker.Session) *away {
	c, ok := s.o.Clients.Get(kept.ClientID())
	if !ok {
		return nil
	}
	if a, ok := c.Session.(*away); ok && a.s == kept {
		return a
	}
	return nil
}

// forgetAway takes a session that has ended out of the index.
func (s *Server) forgetAway(a *away) {
	id := a.s.ClientID()
	for _, sub := range a.Subscriptions() {
		s.o.Clients.Unsubscribe(a, id, sub.Filter)
	}
	s.o.Clients.Remove(a, id)
}
