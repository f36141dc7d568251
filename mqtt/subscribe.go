package mqtt

import (
	"context"
	"encoding/binary"
	"strings"

	"millrace/broker"
	"millrace/router"
)

// want is one filter of a SUBSCRIBE with its options, section 3.8.3.1.
type want struct {
	filter  string
	qos     byte
	noLocal bool
	rap     bool
	// handling is Retain Handling: 0 sends retained messages, 1 only to a
	// subscription that is new, 2 never.
	handling byte
	start    string // where the cursor of a stream begins; see startProperty
}

// isShared reports whether a filter is a shared subscription, section 4.8.2.
// The name is case-sensitive, like every topic.
func isShared[T string | []byte](filter T) bool {
	return len(filter) >= 7 && string(filter[:7]) == "$share/"
}

// subscribe answers a SUBSCRIBE: each filter has a reason code of its own. In
// MQTT 3.1 a SUBACK cannot refuse. There we do as mosquitto does: what is not
// allowed is answered with the QoS asked for and delivers nothing, everything
// else that is refused closes the connection.
func (c *conn) subscribe(id uint16, subID uint32, ws []want) *faultError {
	c.awaitRetained()
	if len(ws) > 1 {
		defer c.session.advance(ws)()
	}
	codes := make([]byte, len(ws))
	var text string
	for i, w := range ws {
		code := quotaExceeded
		if i < c.srv.limits.Load().MaxFilters {
			var why string
			if code, why = c.subscribeOne(subID, w); why != "" {
				text = why
			}
		}
		if code == badFilter && !c.v5 && c.tooLong(w.filter) {
			return broken(badFilter, "filter is too long")
		}
		c.countAnswer(code)
		switch {
		case code < unspecified || c.v5:
		case !c.hello.v31:
			code = v3Refused
		case code == notAuthorized:
			code = reason(w.qos)
		default:
			return &faultError{code, "subscription was refused", closeProtocol}
		}
		codes[i] = byte(code)
	}
	if f := c.session.commit(); f != nil {
		return f
	}
	c.sendCodes(typeSuback, id, text, codes)
	c.session.kick()
	c.session.replayKept()
	c.session.openInbox()
	c.session.replayRetained() // section 3.8.4: after SUBACK, which says what was granted
	return nil
}

// awaitRetained returns when the retained messages that the client has published
// are there: to its next subscription they are of the past.
func (c *conn) awaitRetained() {
	if !c.retaining {
		return
	}
	c.retaining = false
	c.flush()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = c.srv.o.Broker.Settled(ctx) // their own outcome says what failed
}

// advance has other nodes told of all filters of a SUBSCRIBE at once.
func (s *session) advance(ws []want) (release func()) {
	return s.c.srv.o.Broker.Advance(func(yield func(string, bool) bool) {
		for _, w := range ws {
			if !yield(w.filter, s.durable() && w.qos > 0) {
				return
			}
		}
	})
}

// countAnswer counts a filter by its reason code.
func (c *conn) countAnswer(code reason) {
	if code < unspecified || code == notAuthorized {
		c.got.asked++
	}
	if code >= unspecified {
		c.srv.stats.badSubscribes.Add(1)
	}
	if code == notAuthorized {
		c.srv.stats.deniedSubscribes.Add(1)
	}
}

// subscribeOne answers the reason code of one filter, and a reason string for
// people where the code alone does not say it.
func (c *conn) subscribeOne(subID uint32, w want) (reason, string) {
	if o, ok := wantedFrom(w.filter); ok {
		return c.session.consume(subID, w, o)
	}
	if isShared(w.filter) && c.srv.o.Broker.CheckFilter(w.filter) == nil {
		if rest := sharedFilter(w.filter); router.Reserved(rest) && router.SpaceOf(rest) != router.SpaceSys && router.SpaceOf(rest) != router.SpaceEvents {
			return implementation, "only topics can be shared"
		}
	}
	if w.filter == "" || c.srv.o.Broker.CheckFilter(w.filter) != nil {
		return badFilter, ""
	}
	return c.session.subscribe(subID, w), ""
}

// subscribe adds or replaces one subscription, section 3.8.4: a new one with
// the same filter takes the place of the old without a gap.
func (s *session) subscribe(subID uint32, w want) reason {
	if s.durable() && isShared(w.filter) {
		w.qos = min(w.qos, 1) // so that it can go to another while the client is away, [MQTT-4.8.2-5]
	}
	mb := &member{s: s, filter: w.filter, id: subID, qos: w.qos, noLocal: w.noLocal, rap: w.rap, handling: w.handling}
	sub := s.subscription(mb)
	s.mu.Lock()
	n, known := len(s.subs)+len(s.takes.by), s.subs[w.filter] != nil
	s.mu.Unlock()
	if !known && n >= s.c.srv.limits.Load().MaxSubs {
		return quotaExceeded
	}
	if isShared(w.filter) {
		mb.group, sub.Filter, sub.Share = s.c.srv.group(w.filter), sharedFilter(w.filter), w.filter
	}
	if n > 0 {
		s.multi.Store(true) // before the first delivery can see two
	}
	if err := s.enter(sub, w); err != nil {
		if mb.group != nil {
			mb.group.unref()
		}
		if a := answerOf(err); a.code != badTopic {
			return a.code
		}
		return badFilter
	}
	mark := s.c.srv.o.Broker.RetainedMark()
	if mb.group != nil {
		mb.group.join(sub)
	}
	s.mu.Lock()
	old := sub // if the session has ended meanwhile
	if !s.closed {
		old = s.keep(sub)
		switch {
		case mb.group != nil: // section 3.8.3.1: no retained messages
			s.regroup()
		case w.handling == 0 || w.handling == 1 && old == nil:
			s.replay.add(w.filter, mb, mark)
		}
	}
	s.mu.Unlock()
	if old != nil {
		s.drop(old)
	}
	return reason(w.qos)
}

// subscription is mb as the broker wants it.
func (s *session) subscription(mb *member) *broker.Subscription {
	return &broker.Subscription{Filter: mb.filter, Principal: s.who, Sink: s.c.srv, Member: mb}
}

// enter makes the broker know a subscription: the session's, if that is kept.
func (s *session) enter(sub *broker.Subscription, w want) error {
	if !s.durable() {
		return s.c.srv.o.Broker.Subscribe(sub)
	}
	if !isShared(w.filter) {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		return s.kept.Subscribe(ctx, sub, w.options(sub.Member.(*member).id))
	}
	if err := s.c.srv.o.Broker.Subscribe(sub); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	err := s.kept.Share(ctx, w.filter, w.options(sub.Member.(*member).id))
	if err != nil {
		s.c.srv.o.Broker.Unsubscribe(sub)
	}
	return err
}

func (w *want) options(id uint32) broker.SubscriptionOptions {
	return broker.SubscriptionOptions{QoS: w.qos, NoLocal: w.noLocal, RetainAsPublished: w.rap, Handling: w.handling, ID: id}
}

// keep puts sub in its place, and returns the one that it replaces. The caller
// holds mu.
func (s *session) keep(sub *broker.Subscription) (old *broker.Subscription) {
	if s.subs == nil {
		s.subs = map[string]*broker.Subscription{}
	}
	mb := sub.Member.(*member)
	old = s.subs[mb.filter]
	s.subs[mb.filter] = sub
	s.listed(mb)
	return old
}

// commit has what was changed in a session that is kept recorded: before the
// client is told.
func (s *session) commit() *faultError {
	if !s.durable() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if err := s.kept.Commit(ctx); err != nil {
		return &faultError{answerOf(err).code, "subscriptions were not recorded", closeQuota}
	}
	return nil
}

// drop takes a subscription of s out of the broker and of its group. In a
// session that is kept it was replaced, or removed, there.
func (s *session) drop(sub *broker.Subscription) {
	g := sub.Member.(*member).group
	if g != nil || !s.durable() {
		s.c.srv.o.Broker.Unsubscribe(sub)
	}
	if g != nil {
		g.leave(sub, nil)
	}
}

// regroup lists the groups anew. The caller holds mu.
func (s *session) regroup() {
	s.groups = s.groups[:0]
	for _, sub := range s.subs {
		if g := sub.Member.(*member).group; g != nil {
			s.groups = append(s.groups, g)
		}
	}
}

// tooLong reports whether a filter passes a limit, for which 3.1.1 closes.
func (c *conn) tooLong(filter string) bool {
	return len(filter) > c.srv.o.MaxTopicBytes || strings.Count(filter, "/") >= c.srv.o.MaxTopicLevels
}

// unsubscribe answers an UNSUBSCRIBE, section 3.10.4.
func (c *conn) unsubscribe(id uint16, filters []string) *faultError {
	codes := make([]byte, len(filters))
	for i, f := range filters {
		codes[i] = byte(c.session.unsubscribe(f))
	}
	if f := c.session.commit(); f != nil {
		return f
	}
	if !c.v5 {
		codes = nil // 3.1.1: UNSUBACK has no payload
	}
	c.sendCodes(typeUnsuback, id, "", codes)
	return nil
}

func (s *session) unsubscribe(filter string) reason {
	s.mu.Lock()
	sub := s.subs[filter]
	delete(s.subs, filter)
	s.unlist(filter)
	if sub != nil && isShared(filter) {
		s.regroup()
	}
	s.mu.Unlock()
	if s.durable() {
		s.kept.Unsubscribe(filter)
	}
	if sub == nil {
		if s.unconsume(filter) {
			return success
		}
		return noSubscription
	}
	s.drop(sub)
	return success
}

// sendCodes writes SUBACK or UNSUBACK, sections 3.9 and 3.11. The reason
// string is left out where it does not fit or is not wanted.
func (c *conn) sendCodes(kind byte, id uint16, text string, codes []byte) {
	rest := binary.BigEndian.AppendUint16(nil, id)
	if c.v5 {
		limit := int(c.hello.maxPacket)
		size := 1 + 4 + 2 + 4 + len(text) + len(codes)
		if text == "" || c.hello.noProblemInfo || limit > 0 && size > limit {
			rest = append(rest, 0)
		} else {
			rest = appendVarint(rest, uint32(3+len(text)))
			rest = appendString(append(rest, propReasonString), text)
		}
	}
	rest = append(rest, codes...)
	b := appendVarint([]byte{kind << 4}, uint32(len(rest)))
	if limit := int(c.hello.maxPacket); limit > 0 && len(b)+len(rest) > limit {
		c.end(&faultError{packetTooLarge, "answer is larger than the client takes", closeQuota})
		return
	}
	c.send(append(b, rest...))
}
