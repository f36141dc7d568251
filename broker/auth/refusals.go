package auth

import (
	"context"
	"errors"
	"sync"
)

// Why credentials were refused. Clients are told ErrUnauthenticated.
var (
	errWrongSecret   = errors.New("secret")
	errKeyDisabled   = errors.New("key disabled")
	errKeyExpired    = errors.New("key expired")
	errWrongToken    = errors.New("token")
	errTokenRevoked  = errors.New("token revoked")
	errTokenReused   = errors.New("token reused")
	errWrongPassword = errors.New("password")
	errDelayed       = errors.New("delayed")

	errWrongCertificate = errors.New("certificate")
)

// The same, where the reason is no error of ours.
const (
	reasonBusy         = "busy"
	reasonTokenExpired = "token expired"
)

// refusals counts by reason.
type refusals struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (r *refusals) add(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[string]uint64)
	}
	r.counts[reason]++
}

// refusalReasons is every reason that refusals can count.
var refusalReasons = []string{
	errWrongPassword.Error(), errWrongCertificate.Error(), errDelayed.Error(), reasonBusy, errWrongSecret.Error(), errKeyDisabled.Error(), errKeyExpired.Error(),
	errWrongToken.Error(), reasonTokenExpired, errTokenRevoked.Error(), errTokenReused.Error(), ErrBanned.Error(),
}

// Refusals tells how often credentials were refused since the start, by every
// reason: password, certificate, delayed, busy, secret, key disabled, key expired, token,
// token expired, token revoked, token reused, banned.
func (a *Auth) Refusals() map[string]uint64 {
	a.refusals.mu.Lock()
	defer a.refusals.mu.Unlock()
	counts := make(map[string]uint64, len(refusalReasons))
	for _, reason := range refusalReasons {
		counts[reason] = a.refusals.counts[reason]
	}
	return counts
}

// noteLogin counts and audits a login with a password.
func (a *Auth) noteLogin(p *Principal, err error, n account, remote string) {
	switch _, delayed := errors.AsType[*DelayedError](err); {
	case err == nil:
		a.audit.sample(line{Who: p.String(), Remote: remote, What: LoggedIn})
	case delayed:
		a.refuse(a.known(n, "user:", "key:"), remote, errDelayed)
	case errors.Is(err, ErrBusy):
		a.refusals.add(reasonBusy)
	case errors.Is(err, errKeyDisabled), errors.Is(err, errKeyExpired), errors.Is(err, errWrongSecret):
		a.refuse(a.known(n, "key:"), remote, err)
	case errors.Is(err, ErrUnauthenticated):
		a.refuse(a.known(n, "user:", "key:"), remote, errWrongPassword)
	}
}

// noteRefusal counts and audits a key or token that was refused.
func (a *Auth) noteRefusal(ctx context.Context, kind string, n account, why error) {
	if errors.Is(why, ErrExpired) { // every client meets it, all the time
		a.refusals.add(reasonTokenExpired)
		return
	}
	a.refuse(a.known(n, kind), remoteFrom(ctx), why)
}

func (a *Auth) refuse(who, remote string, why error) {
	a.refusals.add(why.Error())
	a.audit.sample(line{Who: who, Remote: remote, What: LoginFailed, Outcome: refusedOutcome, Reason: why.Error()})
}

// Known names the user or key that has the name, or says unknown, for logs: a
// name that nobody has may be a password that was typed one field too early.
func (a *Auth) Known(name string) string { return a.known(ofBroker(name), "user:", "key:") }

// known names whoever has this name. A name that nobody has is not repeated: it
// may be a password that was typed one field too early.
func (a *Auth) known(n account, kinds ...string) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, kind := range kinds {
		switch {
		case kind == "user:" && a.users[n] != nil:
			return n.String()
		case kind == "key:" && n.door == "" && a.keys[n.name] != nil:
			return kind + n.name
		}
	}
	return "unknown"
}
