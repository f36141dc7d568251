package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"millrace/broker/auth"
)

// newClientID makes an id of 128 random bits for a client that has none.
func newClientID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	return "auto-" + base64.RawURLEncoding.EncodeToString(b[:])
}

// greet takes the first packet, and answers a CONNECT that is accepted.
func (c *conn) greet(body []byte) error {
	hello, f := parseConnect(body)
	c.hello = hello
	c.v5, c.spoke = hello.v5, true
	if f == nil && c.v5 && c.input.loose {
		f = broken(malformed, "packet length is not minimal")
	}
	if f != nil {
		return f
	}
	c.srv.leaveWaiting(c)
	if f := c.login(); f != nil {
		return f
	}
	b, limit := c.connack(c.responseInformation()), int(hello.maxPacket)
	if limit > 0 && len(b) > limit {
		b = c.connack("")
	}
	if limit > 0 && len(b) > limit { // section 3.1.2.11.4
		return &faultError{packetTooLarge, "CONNACK is larger than the client takes", closeProtocol}
	}
	c.send(b)
	c.greeted = true
	c.srv.events.connected(c)
	return c.session.resume()
}

// connack is the CONNACK that accepts, section 3.2. What is not said has its
// default, which we keep: everything is available. Without Response Information
// it is below 128 bytes.
func (c *conn) connack(responseInformation string) []byte {
	present := byte(0)
	if c.present && !c.hello.v31 {
		present = 1
	}
	if !c.v5 {
		return []byte{typeConnack << 4, 2, present, byte(success)}
	}
	o, be := &c.srv.o, binary.BigEndian
	p := make([]byte, 0, 64)
	if c.hello.assigned {
		p = appendString(append(p, propAssignedID), c.hello.id)
	}
	if keepAlive, ours := c.serverKeepAlive(); ours {
		p = be.AppendUint16(append(p, propServerKeepAlive), keepAlive)
	}
	p = be.AppendUint16(append(p, propReceiveMaximum), uint16(o.ReceiveMaximum))
	p = be.AppendUint16(append(p, propAliasMaximum), uint16(o.MaxAliases))
	p = be.AppendUint32(append(p, propMaxPacket), uint32(o.MaxPacket))
	p = append(p, propSharedAvailable, 1)
	if responseInformation != "" {
		p = appendString(append(p, propResponseInfo), responseInformation)
	}
	rest := appendVarint([]byte{present, byte(success)}, uint32(len(p)))
	b := appendVarint(append(make([]byte, 0, len(p)+8), typeConnack<<4), uint32(len(rest)+len(p)))
	return append(append(b, rest...), p...)
}

// responseInformation is the topic below which the client may have answers sent
// to it, MQTT 5 section 3.2.2.3.15: where it asks for that, and its id cannot
// name more than itself.
func (c *conn) responseInformation() string {
	text := c.srv.o.ResponseInformation
	if !c.hello.asksResponse || strings.Contains(text, "%c") && strings.ContainsAny(c.hello.id, "/+#") {
		return ""
	}
	if text = strings.ReplaceAll(text, "%c", c.hello.id); len(text) > c.srv.o.MaxTopicBytes {
		return ""
	}
	return text
}

// login decides about a CONNECT that is well-formed: who it is, whether the
// will is allowed, and whose the client id is.
func (c *conn) login() *faultError {
	ctx, cancel := context.WithTimeout(context.Background(), loginTimeout)
	defer cancel()
	h := &c.hello
	if f := c.srv.overloaded(); f != nil {
		return f
	}
	seen := c.srv.auth.Generation()
	who, err := c.identify(ctx)
	h.password = ""
	if err != nil {
		return c.loginFault(err)
	}
	c.who = who
	if f := c.srv.admitIdentity(c); f != nil {
		return f
	}
	if h.will != nil {
		if f := c.srv.checkWill(who, h.will); f != nil {
			return f
		}
	}
	if f := c.srv.rivals.hold(c); f != nil {
		return f
	}
	if f := c.srv.register(ctx, c); f != nil {
		return f
	}
	c.agreeKeepAlive()
	c.producer = c.srv.o.Broker.NewProducer(who, c.outcomes)
	h.will = nil
	c.lastRead = time.Now()
	c.srv.mu.Lock()
	c.open = true
	c.srv.mu.Unlock()
	c.srv.stats.opened()
	if who.Kind == auth.Anonymous {
		c.srv.stats.anonymous.Add(1)
	}
	c.list()
	if c.srv.auth.Generation() != seen {
		c.stillWelcome() // a review may have come before it was registered
	}
	return nil
}

// identify finds out who it is: whom its certificate names, or whom its
// credentials prove.
func (c *conn) identify(ctx context.Context) (*auth.Principal, error) {
	h := &c.hello
	if c.via.user != "" {
		return c.srv.auth.LoginCertificate(c.via.user, h.user, h.id, c.host)
	}
	return c.srv.auth.Login(ctx, h.user, h.password, h.id, c.host, c.anonOK)
}

// loginFault translates an error of auth, and logs it: who, from where, never
// with what.
func (c *conn) loginFault(err error) *faultError {
	f := &faultError{badLogin, "login was refused", closeAuth}
	_, delayed := errors.AsType[*auth.DelayedError](err)
	switch {
	case errors.Is(err, auth.ErrBanned):
		f.code = banned
	case errors.Is(err, auth.ErrOtherIdentity):
		f.code = notAuthorized
	case errors.Is(err, auth.ErrUnauthenticated):
	case delayed:
		f.code = connectionRate
	case errors.Is(err, auth.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		f.code = serverBusy
	default:
		f.code = serverUnavailable
		c.srv.log.Error().Str("remote", c.remote).Err(err).Msg("login failed")
		return f
	}
	if others, ok := c.srv.refusals.tell(c.host, c.srv.o.Broker.Now()); ok {
		c.srv.log.Info().Str("client", clip(c.hello.id)).Str("user", clip(c.srv.auth.Known(c.hello.user))).
			Str("remote", c.remote).Int("others", others).Err(err).Msg("login refused")
	}
	return f
}

// agreeKeepAlive takes the client's keep alive, or our cap. Section 3.1.2.10:
// a client that is silent for one and a half times as long is gone.
func (c *conn) agreeKeepAlive() {
	ka := time.Duration(c.hello.keepAlive) * time.Second
	if limit := c.srv.limits.Load().MaxKeepAlive; limit > 0 && (ka == 0 || ka > limit) {
		ka = limit
	}
	c.keepAlive.Store(int64(ka + ka/2))
}

// serverKeepAlive is what CONNACK tells a client of MQTT 5 whose keep alive
// was capped, section 3.2.2.3.14.
func (c *conn) serverKeepAlive() (uint16, bool) {
	granted := uint16(min(time.Duration(c.keepAlive.Load())*2/3/time.Second, 65_535))
	return granted, granted != c.hello.keepAlive
}
