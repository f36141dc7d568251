package mqtt

import (
	"bytes"
	"strings"
	"time"

	"millrace/broker"
)

// connect is a CONNECT that keeps the rules of section 3.1.
type connect struct {
	v5        bool
	v31       bool // MQTT 3.1, which knows less than 3.1.1
	clean     bool
	keepAlive uint16
	id        string
	assigned  bool // id is ours
	user      string
	password  string
	will      *broker.Will
	// keeps says that there may be something of the client in the broker that
	// outlives the connection, so that the one before it must have ended first.
	keeps bool

	sessionExpiry  uint32
	receiveMaximum uint16 // 0 = not given
	maxPacket      uint32 // 0 = no limit
	aliasMax       uint16 // of aliases that we may use
	noProblemInfo  bool
	asksResponse   bool // wants Response Information
}

// parseConnect reads a CONNECT and keeps what it needs. On a fault the
// version says how to answer, as far as it was understood.
func parseConnect(body []byte) (c connect, f *faultError) {
	r := cursor{b: body}
	name, level := r.string(), r.byte()
	if r.err != nil {
		return c, r.err
	}
	if f := c.version(name, level); f != nil {
		return c, f
	}
	flags := r.byte()
	c.keepAlive = r.uint16()
	if f := c.flags(flags); f != nil && r.err == nil {
		return c, f
	}
	var p props
	if c.v5 {
		r.properties(&p, connectProps)
	}
	id := r.string()
	if flags&4 != 0 {
		c.readWill(&r, flags)
	}
	var user, password []byte
	if flags&0x80 != 0 {
		user = r.string()
	}
	if flags&0x40 != 0 {
		password = r.binary()
	}
	switch {
	case r.err != nil:
		return c, r.err
	case len(r.b) > 0:
		return c, broken(malformed, "bytes after the packet")
	case p.has(propAuthData) && !p.has(propAuthMethod):
		return c, broken(protocolError, "authentication data without a method")
	case p.has(propAuthMethod):
		return c, &faultError{badAuthMethod, "authentication method is not known", closeAuth}
	case len(user) > maxUserName, len(password) > maxPassword:
		return c, &faultError{badLogin, "user name or password is too long", closeAuth}
	}
	c.id, c.user, c.password = string(id), string(user), string(password)
	c.sessionExpiry, c.receiveMaximum, c.maxPacket = p.sessionExpiry, p.receiveMaximum, p.maxPacket
	c.aliasMax = p.aliasMax
	c.noProblemInfo = p.has(propRequestProblem) && p.requestProblem == 0
	c.asksResponse = p.requestResponse == 1
	c.keeps = !c.clean || c.sessionExpiry > 0 || c.will != nil
	return c, c.identify()
}

// version accepts MQTT 3.1, 3.1.1 and 5. Section 3.1.2.2: a level we do not know is
// answered with 0x84, or with code 1 in the words of 3.1.1.
func (c *connect) version(name []byte, level byte) *faultError {
	refused := &faultError{badVersion, "protocol version is not supported", closeProtocol}
	switch string(name) {
	case "MQTT":
		c.v5 = level >= 5 && level < 0x80
		if level == 4 || level == 5 {
			return nil
		}
		return refused
	case "MQIsdp":
		if c.v31 = level == 3; c.v31 {
			return nil
		}
		return refused
	default:
		return broken(unspecified, "protocol name is not MQTT")
	}
}

func (c *connect) flags(flags byte) *faultError {
	c.clean = flags&2 != 0
	switch {
	case flags&1 != 0:
		return broken(malformed, "reserved flag is set")
	case flags&4 == 0 && flags&0x38 != 0:
		return broken(malformed, "will flags without a will")
	case flags&0x18 == 0x18:
		return broken(malformed, "will QoS 3")
	case !c.v5 && flags&0xC0 == 0x40: // 3.1.1 section 3.1.2.9
		return broken(malformed, "password without user name")
	}
	return nil
}

// readWill reads the will; what its topic may be is decided at login.
func (c *connect) readWill(r *cursor, flags byte) {
	w := &broker.Will{Message: broker.Message{QoS: flags >> 3 & 3, Retain: flags&0x20 != 0}}
	var p props
	if c.v5 {
		r.properties(&p, willProps)
	}
	topic, payload := r.string(), r.binary()
	if r.err != nil {
		return
	}
	switch {
	case len(topic) == 0 || bytes.ContainsAny(topic, "+#"):
		r.fail(broken(badTopic, "will topic cannot be published to"))
		return
	case p.format == 1 && !validPayload(payload):
		r.fail(broken(badPayloadFormat, "will payload is not UTF-8"))
		return
	}
	w.Message.Topic, w.Message.Payload = string(topic), bytes.Clone(payload)
	w.Delay = time.Duration(p.willDelay) * time.Second
	mp := fromProps(&p)
	w.Expires, w.Expiry = mp.expires, mp.expiry
	if mp.apply(&w.Message); !validResponse(w.Message.ResponseTopic) {
		r.fail(broken(protocolError, "response topic has wildcards"))
		return
	}
	c.will = w
}

// identify checks the client id, and makes one where the client left it to us.
func (c *connect) identify() *faultError {
	bad := &faultError{badClientID, "client id is not acceptable", closeProtocol}
	switch {
	case len(c.id) > maxClientID:
		return bad
	case strings.ContainsFunc(c.id, isControl):
		return bad
	case c.id == "" && (c.v31 || !c.v5 && !c.clean): // 3.1.1 section 3.1.3.1
		return bad
	case c.id == "":
		c.id, c.assigned = newClientID(), true
	}
	return nil
}

// isControl reports the characters that a name in a log or a rule must not have.
func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
