package auth

import (
	"context"
	"errors"
	"time"
)

// rememberFor is how long a password that proved right is remembered without
// being used.
const rememberFor = 15 * time.Minute

// verified remembers a right password by its fingerprint.
type verified struct {
	fingerprint fingerprint
	used        time.Time
}

// attempt is one login with a password.
type attempt struct {
	name, password, addr string
	user                 *user // nil for a name nobody has
	keyFits              bool  // the same words open a key: no wrong password
}

// checkPassword returns nil if the attempt's password is its user's. For a name
// nobody has it does the same work in vain.
func (a *Auth) checkPassword(ctx context.Context, t attempt) error {
	fp := a.hasher.fingerprint(t.name, t.password)
	for {
		if err := a.delayed(t); err != nil {
			return err
		}
		if t.user.remembers(fp, a.now()) {
			a.brake.passed(t.name, t.addr)
			return nil
		}
		right, mine, err := a.hasher.share(ctx, flightKey{fp, t.user}, func() (bool, error) { return a.runCheck(ctx, fp, t) })
		switch {
		case err != nil && !mine && ctx.Err() == nil && !errors.Is(err, ErrBusy):
			continue // the one who ran it left or was delayed; that is not our trouble
		case err != nil:
			return err
		case right:
			a.brake.passed(t.name, t.addr)
			if mine && t.user.password.below(a.hasher.cost) {
				a.rehash(ctx, t.user, t.password)
			}
			return nil
		case !mine && !t.keyFits:
			a.brake.failed(t.name, t.addr, a.now())
		}
		return ErrUnauthenticated
	}
}

func (a *Auth) delayed(t attempt) error {
	if wait := a.brake.wait(t.name, t.addr, a.now()); wait > 0 {
		return &DelayedError{Retry: wait}
	}
	return nil
}

// runCheck does the expensive part. It looks at the brake again when its turn
// has come and counts before it gives the turn away, so that guesses sent all
// at once gain nothing.
func (a *Auth) runCheck(ctx context.Context, fp fingerprint, t attempt) (bool, error) {
	release, err := a.hasher.slot(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	if err := a.delayed(t); err != nil {
		return false, err
	}
	a.hasher.runs.Add(1)
	right := false
	if t.user == nil {
		a.hasher.pretend(t.password)
	} else {
		right = t.user.password.matches(t.password)
	}
	switch {
	case right:
		t.user.verified.Store(&verified{fingerprint: fp, used: a.now()})
	case !t.keyFits:
		a.brake.failed(t.name, t.addr, a.now())
	}
	return right, nil
}

// remembers reports whether fp is that of the password which proved right, and
// forgets it when it lay idle too long.
func (u *user) remembers(fp fingerprint, now time.Time) bool {
	if u == nil {
		return false
	}
	v := u.verified.Load()
	if v == nil {
		return false
	}
	if now.Sub(v.used) >= rememberFor {
		u.verified.CompareAndSwap(v, nil)
		return false
	}
	if !v.fingerprint.equal(fp) {
		return false
	}
	u.verified.CompareAndSwap(v, &verified{fingerprint: fp, used: now})
	return true
}
