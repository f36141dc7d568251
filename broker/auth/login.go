package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
)

// Login turns the credentials of an MQTT CONNECT into a principal. A user of
// that name is looked for first, then a key with that id. anonymous says
// whether the listener admits clients that name nobody known here. remoteAddr
// is the client's address, with or without port.
//
// The error is ErrUnauthenticated for anything wrong, a DelayedError after too
// many wrong passwords, ErrBusy, or that of ctx.
func (a *Auth) Login(ctx context.Context, name, password, clientID, remoteAddr string, anonymous bool) (*Principal, error) {
	anonymous = anonymous && a.anonymous
	a.mu.RLock()
	u, k := a.users[name], a.keys[name]
	a.mu.RUnlock()

	if name == "" || u == nil && k == nil && anonymous {
		if !anonymous {
			return nil, ErrUnauthenticated
		}
		return &Principal{Kind: Anonymous, ClientID: clientID}, nil
	}
	keyFits := a.fits(k, password)
	if u != nil || k == nil {
		err := a.checkPassword(ctx, attempt{name, password, address(remoteAddr), u, keyFits})
		if err == nil {
			return u.principalFor(clientID), nil
		}
		if !keyFits {
			return nil, err
		}
	}
	if !keyFits {
		return nil, ErrUnauthenticated
	}
	a.touch(k)
	return k.principalFor(clientID), nil
}

func (u *user) principalFor(clientID string) *Principal {
	p := &Principal{Kind: User, Name: u.name, ClientID: clientID, Superuser: u.record.Superuser, user: u}
	if p.Superuser {
		p.Role = Administrator
	}
	return p
}

// Key returns the principal of an API key, for HTTP Basic. It takes the same
// time for an unknown id as for a wrong secret, and waits for no disk.
func (a *Auth) Key(_ context.Context, id, secret string) (*Principal, error) {
	k := a.findKey(id)
	if !a.fits(k, secret) {
		return nil, ErrUnauthenticated
	}
	a.touch(k)
	return k.principal, nil
}

// Bearer returns the principal of a token <id>.<secret>.
func (a *Auth) Bearer(ctx context.Context, token string) (*Principal, error) {
	id, secret, _ := strings.Cut(token, ".")
	return a.Key(ctx, id, secret)
}

// fits reports whether secret is that of k and k is in force.
func (a *Auth) fits(k *key, secret string) bool {
	if len(secret) > maxSecret {
		return false
	}
	var want [sha256.Size]byte // no secret has this hash
	if k != nil {
		want = k.hash
	}
	got := sha256.Sum256([]byte(secret))
	same := subtle.ConstantTimeCompare(got[:], want[:]) == 1
	return same && k != nil && !k.expired(a.now())
}
