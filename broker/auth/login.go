package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
)

// Login turns the credentials of an MQTT CONNECT into a principal. A user of
// that name is looked for first, then a key with that id. anonymous says
// whether the listener admits clients that name nobody known here. remoteAddr
// is the client's address, with or without port.
//
// The error is ErrBanned, ErrUnauthenticated for anything wrong, a DelayedError
// after too many wrong passwords, ErrBusy, or that of ctx.
func (a *Auth) Login(ctx context.Context, name, password, clientID, remoteAddr string, anonymous bool) (*Principal, error) {
	if a.barred(clientID, name, remoteAddr) {
		return nil, ErrBanned
	}
	p, err := a.login(ctx, name, password, clientID, remoteAddr, anonymous && a.anonymous)
	a.noteLogin(p, err, ofBroker(name), remoteAddr)
	if errors.Is(err, errKeyDisabled) || errors.Is(err, errKeyExpired) || errors.Is(err, errWrongSecret) {
		err = ErrUnauthenticated
	}
	return p, err
}

// login is Login with the errors of fits.
func (a *Auth) login(ctx context.Context, name, password, clientID, remoteAddr string, anonymous bool) (*Principal, error) {
	a.mu.RLock()
	u, k := a.users[ofBroker(name)], a.keys[name]
	a.mu.RUnlock()

	if name == "" || u == nil && k == nil && anonymous {
		if !anonymous {
			return nil, ErrUnauthenticated
		}
		return &Principal{Kind: Anonymous, ClientID: clientID}, nil
	}
	secret, keyErr := a.fits(k, password)
	if u != nil || k == nil {
		err := a.checkPassword(ctx, attempt{name, normal(password), address(remoteAddr), u, secret != nil})
		if err == nil {
			return a.userPrincipal(u, clientID)
		}
		if secret == nil {
			return nil, err
		}
	}
	if keyErr != nil {
		return nil, keyErr
	}
	a.touch(k.lastUse)
	return k.principalFor(secret, clientID), nil
}

// LoginPassword turns the name and password of a user into a principal, for
// logins over HTTP that go on with Issue. Keys do not come this way. The errors
// are those of Login.
func (a *Auth) LoginPassword(ctx context.Context, name, password, remoteAddr string) (*Principal, error) {
	n := ofBroker(name)
	p, err := a.loginPassword(ctx, n, password, remoteAddr)
	a.noteLogin(p, err, n, remoteAddr)
	return p, err
}

func (a *Auth) loginPassword(ctx context.Context, n account, password, remoteAddr string) (*Principal, error) {
	u := a.findUser(n)
	if err := a.checkPassword(ctx, attempt{n.inMemory(), normal(password), address(remoteAddr), u, false}); err != nil {
		return nil, err
	}
	return a.userPrincipal(u, "")
}

// userPrincipal returns the principal of a user who proved the password.
func (a *Auth) userPrincipal(u *user, clientID string) (*Principal, error) {
	if u.record.Disabled {
		return nil, ErrUnauthenticated
	}
	a.touch(u.lastUse)
	return u.principal(clientID), nil
}

func (u *user) principal(clientID string) *Principal {
	p := &Principal{Kind: User, Name: u.name, Door: u.door, ClientID: clientID, Superuser: u.record.Superuser, era: u.era}
	if p.Superuser {
		p.Role = Administrator
	}
	return p
}

// Key returns the principal of an API key, for HTTP Basic. It takes the same
// time for an unknown id as for a wrong secret, and waits for no disk.
func (a *Auth) Key(ctx context.Context, id, secret string) (*Principal, error) {
	k := a.findKey(id)
	s, err := a.fits(k, secret)
	if err != nil {
		a.noteRefusal(ctx, "key:", ofBroker(id), err)
		return nil, ErrUnauthenticated
	}
	a.touch(k.lastUse)
	return s.principal, nil
}

// Bearer returns the principal of a token <id>.<secret>.
func (a *Auth) Bearer(ctx context.Context, token string) (*Principal, error) {
	id, secret, _ := strings.Cut(token, ".")
	return a.Key(ctx, id, secret)
}

// fits returns the secret of k that these words are. A secret comes with an
// error where it is right and k is not in force.
func (a *Auth) fits(k *key, words string) (*keySecret, error) {
	if len(words) > maxSecret {
		return nil, errWrongSecret
	}
	var found *keySecret
	got := sha256.Sum256([]byte(words))
	for i := range maxSecrets { // as many comparisons for a key that is not there
		var s *keySecret
		var want [sha256.Size]byte // no secret has this hash
		if k != nil && i < len(k.secrets) {
			s = k.secrets[i]
			want = s.hash
		}
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			found = s
		}
	}
	switch {
	case found == nil:
		return nil, errWrongSecret
	case k.record.Disabled:
		return found, errKeyDisabled
	case k.expired(a.now()):
		return found, errKeyExpired
	}
	return found, nil
}
