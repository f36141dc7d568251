package auth

import (
	"context"
	"sync/atomic"
	"time"
)

// Kind says how a principal is known.
type Kind uint8

const (
	// User is a person or device with a password.
	User Kind = iota
	// Key is a program with an API key.
	Key
	// Anonymous is an MQTT client without credentials, let in by configuration.
	Anonymous
	// System is the broker itself; it may do everything.
	System
)

// Principal is who asks. Those made by Login, LoginPassword, Key, Bearer and
// Access end with the user, key or token they stand for; one written as a literal has the rights its
// fields say. A Principal is shared between goroutines and must not be changed
// or copied once it was used.
type Principal struct {
	Kind      Kind
	Name      string // user name or key id; "" for anonymous and system
	Door      string // of an account: the door it is of, else ""
	ClientID  string // MQTT client id, else ""
	Role      Role
	Superuser bool     // every topic, also $SYS, and administrator; no rules apply
	Scopes    []string // filters the role is narrowed to; none means everything

	era     *era       // of the user this principal logged in as
	secret  *keySecret // with which this principal came
	session *session   // where it came with an access token
	rights  atomic.Pointer[rights]
	meter   atomic.Pointer[meter]
	seat    Seat
}

// String is the principal's name for logs: user:dev, fastqueue:dev, key:kB3x, anonymous.
func (p *Principal) String() string {
	if p == nil {
		return "nobody"
	}
	switch p.Kind {
	case User:
		return p.account().String()
	case Key:
		return "key:" + p.Name
	case Anonymous:
		return "anonymous"
	case System:
		return "system"
	default:
		return "unknown"
	}
}

// Rest gives back the memory of what was found out about p's rights; the next
// question finds it out again. It is for principals that are kept for long and
// asked about seldom.
func (p *Principal) Rest() { p.rights.Store(nil) }

// account names the user that p is.
func (p *Principal) account() account { return account{p.Door, p.Name} }

// Expires says when a principal that came with an access token ends; zero for
// all others.
func (p *Principal) Expires() time.Time {
	if p.session == nil {
		return time.Time{}
	}
	return p.session.until
}

type (
	contextKey struct{}
	remoteKey  struct{}
)

// WithPrincipal returns a context that carries p.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the principal ctx carries, or nil, to which Allow refuses
// everything.
func From(ctx context.Context) *Principal {
	p, _ := ctx.Value(contextKey{}).(*Principal)
	return p
}

// WithRemote returns a context that carries the client's address, for the audit
// log.
func WithRemote(ctx context.Context, addr string) context.Context {
	return context.WithValue(ctx, remoteKey{}, addr)
}

func remoteFrom(ctx context.Context) string {
	addr, _ := ctx.Value(remoteKey{}).(string)
	return addr
}
