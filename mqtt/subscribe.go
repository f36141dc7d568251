package mqtt

import (
	"encoding/binary"
	"strings"

	"millrace/broker"
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
}

// isShared reports whether a filter is a shared subscription, section 4.8.2.
// The name is case-sensitive, like every topic.
func isShared[T string | []byte](filter T) bool {
	return len(filter) >= 7 && string(filter[:7]) == "$share/"
}

// laterForms are filters whose meaning is not built yet.
var laterForms = []string{"$stream/"}

// subscribe answers a SUBSCRIBE: each filter has a reason code of its own. In
// MQTT 3.1 a SUBACK cannot refuse. There we do as mosquitto does: what is not
// allowed is answered with the QoS asked for and delivers nothing, everything
// else that is refused closes the connection.
func (c *conn) subscribe(id uint16, subID uint32, ws []want) *faultError {
	codes := make([]byte, len(ws))
	var text string
	for i, w := range ws {
		code := quotaExceeded
		if i < c.srv.o.MaxFilters {
			var why string
			if code, why = c.subscribeOne(subID, w); why != "" {
				text = why
			}
		}
		if code == badFilter && !c.v5 && c.tooLong(w.filter) {
			return broken(badFilter, "filter is too long")
		}
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
	c.sendCodes(typeSuback, id, text, codes)
	c.session.kick()
	c.session.replayRetained() // section 3.8.4: after SUBACK, which says what was granted
	return nil
}

// subscribeOne answers the reason code of one filter, and a reason string for
// people where the code alone does not say it.
func (c *conn) subscribeOne(subID uint32, w want) (reason, string) {
	if isShared(w.filter) {
		group, rest, ok := strings.Cut(w.filter[7:], "/")
		if !ok || group == "" || strings.ContainsAny(group, "+#") || c.srv.o.Broker.CheckFilter(rest) != nil {
			return badFilter, ""
		}
		return noSharedSubs, ""
	}
	for _, form := range laterForms {
		if strings.HasPrefix(w.filter, form) {
			return implementation, "not built yet"
		}
	}
	if _, _, _, _, ok := queueFilter(w.filter); ok {
		return c.session.consume(subID, w)
	}
	if w.filter == "" || c.srv.o.Broker.CheckFilter(w.filter) != nil {
		return badFilter, ""
	}
	return c.session.subscribe(subID, w), ""
}

// subscribe adds or replaces one subscription, section 3.8.4: a new one with
// the same filter takes the place of the old without a gap.
func (s *session) subscribe(subID uint32, w want) reason {
	sub := &broker.Subscription{Filter: w.filter, Principal: s.who, Sink: s.c.srv, Member: &member{
		s: s, id: subID, qos: w.qos, noLocal: w.noLocal, rap: w.rap,
	}}
	s.mu.Lock()
	n, known := len(s.subs)+len(s.takes.by), s.subs[w.filter] != nil
	s.mu.Unlock()
	if !known && n >= s.c.srv.o.MaxSubs {
		return quotaExceeded
	}
	if n > 0 {
		s.multi.Store(true) // before the first delivery can see two
	}
	if err := s.c.srv.o.Broker.Subscribe(sub); err != nil {
		if a := answerOf(err); a.code != badTopic {
			return a.code
		}
		return badFilter
	}
	mark := s.c.srv.o.Broker.RetainedMark()
	s.mu.Lock()
	old := sub // if the session has ended meanwhile
	if !s.closed {
		if s.subs == nil {
			s.subs = map[string]*broker.Subscription{}
		}
		old = s.subs[w.filter]
		s.subs[w.filter] = sub
		if w.handling == 0 || w.handling == 1 && old == nil {
			s.replay.add(w.filter, sub.Member.(*member), mark)
		}
	}
	s.mu.Unlock()
	if old != nil {
		s.c.srv.o.Broker.Unsubscribe(old)
	}
	return reason(w.qos)
}

// tooLong reports whether a filter passes a limit, for which 3.1.1 closes.
func (c *conn) tooLong(filter string) bool {
	return len(filter) > c.srv.o.MaxTopicBytes || strings.Count(filter, "/") >= c.srv.o.MaxTopicLevels
}

// unsubscribe answers an UNSUBSCRIBE, section 3.10.4.
func (c *conn) unsubscribe(id uint16, filters []string) {
	codes := make([]byte, len(filters))
	for i, f := range filters {
		codes[i] = byte(c.session.unsubscribe(f))
	}
	if !c.v5 {
		codes = nil // 3.1.1: UNSUBACK has no payload
	}
	c.sendCodes(typeUnsuback, id, "", codes)
}

func (s *session) unsubscribe(filter string) reason {
	s.mu.Lock()
	sub := s.subs[filter]
	delete(s.subs, filter)
	s.mu.Unlock()
	if sub == nil {
		if s.unconsume(filter) {
			return success
		}
		return noSubscription
	}
	s.c.srv.o.Broker.Unsubscribe(sub)
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
