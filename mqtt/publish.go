package mqtt

import (
	"bytes"
	"math"
	"time"
	"unicode/utf8"

	"millrace/broker"
	"millrace/broker/auth"
)

// messageProps are the properties of a message as we keep them: copies.
type messageProps struct {
	contentType, response string
	correlation           []byte
	user                  []broker.Property
	utf8                  bool
	expires               bool
	expiry                uint32 // seconds
}

func fromProps(p *props) messageProps {
	m := messageProps{utf8: p.format == 1, expires: p.has(propExpiry), expiry: p.expiry}
	if p.set == 0 {
		return m
	}
	m.contentType, m.response = string(p.contentType), string(p.responseTopic)
	m.correlation = bytes.Clone(p.correlation)
	if len(p.user) > 0 {
		m.user = make([]broker.Property, len(p.user))
		for i, u := range p.user {
			m.user[i] = broker.Property{Name: string(u.name), Value: string(u.value)}
		}
	}
	return m
}

// apply puts the properties into m; the expiry is up to the caller.
func (p *messageProps) apply(m *broker.Message) {
	m.ContentType, m.ResponseTopic, m.Correlation = p.contentType, p.response, p.correlation
	m.Properties, m.UTF8 = p.user, p.utf8
}

// validPayload is what Payload Format Indicator 1 promises, section 3.3.2.3.2.
func validPayload(b []byte) bool { return utf8.Valid(b) }

// validResponse reports whether a response topic has no wildcards, section 3.3.2.3.5.
func validResponse[T string | []byte](topic T) bool {
	for i := range len(topic) {
		if topic[i] == '+' || topic[i] == '#' {
			return false
		}
	}
	return true
}

// publish takes one PUBLISH. What is refused here, and what the broker
// refuses later, is acked in its place among the others.
func (c *conn) publish(p *publish) *faultError {
	c.got.payload += uint64(len(p.payload))
	t, f := c.resolve(p)
	if f != nil {
		return f
	}
	switch {
	case len(p.payload) > c.srv.o.MaxPayload:
		return &faultError{packetTooLarge, "payload is too large", closeQuota}
	case !validResponse(p.props.responseTopic):
		return broken(protocolError, "response topic has wildcards")
	}
	if c.acks.repeated(c, p) {
		c.srv.stats.inUse.Add(1)
		return nil
	}
	if p.qos > 0 && c.v5 && c.acks.count() >= c.srv.o.ReceiveMaximum {
		c.srv.stats.overMaximum.Add(1)
		return &faultError{receiveMaximum, "receive maximum exceeded", closeQuota}
	}
	switch {
	case t.reserved:
		c.drop(dropReserved)
		c.logDenied()
		return c.refuse(p, badTopic)
	case p.props.format == 1 && !validPayload(p.payload):
		c.drop(dropFormat)
		return c.refuse(p, badPayloadFormat)
	}
	if !c.meter(p) {
		c.srv.stats.overQuota.Add(1)
		return c.refuse(p, quotaExceeded)
	}
	if p.qos > 0 {
		c.acks.expect(p)
	}
	c.got.asked++
	c.retaining = c.retaining || p.retain
	if p.qos == 2 && c.session.durable() {
		c.producer.PublishOnce(c.message(t.name, p), 2, c.session.kept, p.id, p.dup)
	} else {
		c.producer.Publish(c.message(t.name, p), uint64(p.qos))
	}
	c.input.dirty = true
	return nil
}

// ratePatience is how long a publish of MQTT 5 waits for its rate before it is
// refused. Others have no word for that and wait.
const ratePatience = 5 * time.Second

// meter books a publish at the rates of the identity, and reads no further for
// as long as it is over them. It reports whether the publish may go on.
func (c *conn) meter(p *publish) bool {
	patience := ratePatience
	if !c.v5 || p.qos == 0 {
		patience = math.MaxInt64
	}
	wait, ok := c.srv.auth.Reserve(c.who, auth.Usage{Messages: 1, Bytes: len(p.payload)}, patience)
	if wait > 0 {
		c.srv.stats.limited.Add(1)
	}
	if ok && wait > 0 {
		c.flush() // what came before does not wait
		c.pause(wait)
	}
	return ok
}

// refuse answers a publish that goes nowhere. 3.1.1 has no negative ack: a
// refusal looks like an ack, or closes the connection. QoS 0 has no answer.
func (c *conn) refuse(p *publish, code reason) *faultError {
	if !c.v5 && (p.qos > 0 || c.srv.o.CloseOnDeny) {
		if code != badTopic || c.srv.o.CloseOnDeny {
			return &faultError{code, "publish was refused", closeProtocol}
		}
		code = success
	}
	if p.qos > 0 {
		c.acks.refused(c, p, code)
	}
	return nil
}

// logDenied tells of refused publishes of one client, at most every 10 s.
func (c *conn) logDenied() {
	now := c.srv.o.Broker.Now().Unix()
	if last := c.denied.Load(); now-last >= 10 && c.denied.CompareAndSwap(last, now) {
		c.srv.log.Warn().Str("client", clip(c.hello.id)).Str("remote", c.remote).Msg("publish refused")
	}
}

// message copies p out of the read buffer.
func (c *conn) message(name string, p *publish) *broker.Message {
	m := &broker.Message{
		Topic: name, Payload: p.payload, QoS: p.qos, Retain: p.retain, Publisher: c.session.id,
	}
	if c.input.big == nil { // otherwise the packet has memory of its own
		m.Payload = bytes.Clone(p.payload)
	}
	if p.props.set != 0 {
		mp := fromProps(&p.props)
		mp.apply(m)
		if mp.expires {
			m.Expires = c.srv.o.Broker.Now().UnixMilli() + int64(mp.expiry)*1000
		}
		m.DedupKey = idempotencyKey(m.Properties)
	}
	return m
}

// idempotencyKey is what the header Idempotency-Key is over HTTP: a publish
// repeated under it within five minutes is stored once.
func idempotencyKey(ps []broker.Property) string {
	for i := range ps {
		if ps[i].Name == "idempotency-key" {
			return ps[i].Value
		}
	}
	return ""
}

// topic is a topic name that was checked.
type topic struct {
	name     string
	reserved bool
}

// topicCache keeps the last topics of one connection: a device publishes to
// few, and so the name is neither copied nor checked again.
type topicCache struct {
	at   [4]topic
	next uint8
}

// resolve applies the topic alias of section 3.3.2.3.4 and checks the name.
func (c *conn) resolve(p *publish) (*topic, *faultError) {
	name := p.topic
	if p.props.has(propAlias) {
		a := int(p.props.alias)
		if a == 0 || a > c.srv.o.MaxAliases {
			return nil, broken(badAlias, "topic alias is out of range")
		}
		if c.aliases == nil {
			c.aliases = make([]string, c.srv.o.MaxAliases+1)
		}
		if len(name) == 0 {
			if c.aliases[a] == "" {
				return nil, broken(protocolError, "topic alias is not known")
			}
			return c.lookup(c.aliases[a])
		}
		t, f := c.lookup(string(name))
		if f == nil {
			c.aliases[a] = t.name
		}
		return t, f
	}
	if len(name) == 0 {
		return nil, broken(protocolError, "topic is empty")
	}
	for i := range c.topics.at {
		if t := &c.topics.at[i]; t.name == string(name) {
			return t, nil
		}
	}
	return c.lookup(string(name))
}

// lookup checks a name that may be new to the connection.
func (c *conn) lookup(name string) (*topic, *faultError) {
	tc := &c.topics
	for i := range tc.at {
		if tc.at[i].name == name {
			return &tc.at[i], nil
		}
	}
	t := topic{name: name}
	if err := c.srv.o.Broker.CheckPublishTopic(name); err != nil {
		if name[0] != '$' {
			return nil, broken(badTopic, "topic name is not valid")
		}
		t.reserved = true
	}
	at := &tc.at[tc.next%uint8(len(tc.at))]
	tc.next++
	*at = t
	return at, nil
}
