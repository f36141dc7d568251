package mqtt

import (
	"context"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// will is the message that a client leaves behind, MQTT 5 section 3.1.2.5.
type will struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool
	delay   time.Duration
	props   messageProps
}

// delayed is a will whose delay runs. So far it lives in memory only.
type delayed struct {
	who   *auth.Principal
	timer *time.Timer
}

// checkWill decides at CONNECT what can be decided then: the topic's grammar,
// and the right to publish there. The right is asked again when it is sent.
func (s *Server) checkWill(who *auth.Principal, w *will) *faultError {
	switch {
	case len(w.payload) > s.o.MaxPayload:
		return &faultError{packetTooLarge, "will is too large", closeQuota}
	case s.o.Broker.CheckTopic(w.topic) != nil:
		return broken(badTopic, "will topic cannot be published to")
	case !s.auth.Allow(who, auth.Publish, auth.TopicResource(w.topic)):
		return &faultError{notAuthorized, "will topic is not allowed", closeAuth}
	}
	return nil
}

// sendWill publishes the will of c, which has ended without a DISCONNECT of
// the kind that takes it back, at once or after its delay. The delay is cut to
// the session expiry that the client asked for, section 3.1.3.2.2.
func (s *Server) sendWill(c *conn) {
	w := c.will
	delay := min(w.delay, time.Duration(c.hello.sessionExpiry)*time.Second)
	if delay > 0 && s.delayWill(c, w, delay) {
		return
	}
	s.publishWill(c.hello.id, c.who, w)
}

// delayWill puts off the will of c; false means that it is due now.
func (s *Server) delayWill(c *conn, w *will, delay time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return true // a will that waits for its time ends with the process
	}
	if now := s.clients[c.hello.id]; now != nil && same(now.who, c.who) { // it is back already
		return true
	}
	if len(s.wills) >= maxDelayedWills {
		return false
	}
	id := c.hello.id
	d := &delayed{who: c.who}
	d.timer = time.AfterFunc(delay, func() {
		s.mu.Lock()
		due := s.wills[id] == d && !s.closing
		if due {
			delete(s.wills, id)
			s.conns.Add(1)
		}
		s.mu.Unlock()
		if due {
			defer s.conns.Done()
			s.publishWill(id, d.who, w)
		}
	})
	s.wills[id] = d
	return true
}

// cancelWill drops the delayed will of a client that came back. The caller
// holds mu.
func (s *Server) cancelWill(c *conn) {
	if d := s.wills[c.hello.id]; d != nil && same(d.who, c.who) {
		d.timer.Stop()
		delete(s.wills, c.hello.id)
	}
}

// publishWill sends a will through the normal path, as the client it is of:
// the right to publish is that of now.
func (s *Server) publishWill(id string, who *auth.Principal, w *will) {
	m := &broker.Message{Topic: w.topic, Payload: w.payload, QoS: w.qos, Retain: w.retain, Publisher: id}
	w.props.apply(m, time.Now())
	ctx, cancel := context.WithTimeout(auth.Unmetered(auth.WithPrincipal(context.Background(), who)), willTimeout)
	defer cancel()
	if _, err := s.o.Broker.Publish(ctx, m); err != nil {
		s.stats.drop(dropWill)
		s.log.Warn().Str("client", clip(id)).Str("topic", clip(w.topic)).Err(err).Msg("will was not published")
	}
}
