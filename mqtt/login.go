package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"

	"millrace/broker/auth"
)

// newClientID makes an id of 128 random bits for a client that has none.
func newClientID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	return "auto-" + base64.RawURLEncoding.EncodeToString(b[:])
}

// greet takes the first packet. What it accepts goes to mochi, which comes back
// with login, answers, and is done. mochi has a goroutine of its own for that,
// because it passes packets of 800 bytes by value: the stack that this needs
// would otherwise stay with every idle connection.
func (c *conn) greet(raw, body []byte) error {
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
	c.input.feed = raw
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		defer c.recovered()
		_ = c.srv.mochi.EstablishConnection("mqtt", c) // why it failed is in c.ending
	}()
	<-greeted
	if c.greeted {
		c.srv.events.connected(c)
		return c.session.resume()
	}
	if !c.stop.Load() { // section 3.1.2.11.4: CONNACK may be too large for the client
		return &faultError{packetTooLarge, "CONNACK is larger than the client takes", closeProtocol}
	}
	return nil
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
	c.open = true
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
	c.srv.log.Info().Str("client", clip(c.hello.id)).Str("user", clip(c.srv.auth.Known(c.hello.user))).
		Str("remote", c.remote).Err(err).Msg("login refused")
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
