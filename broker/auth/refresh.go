package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"time"
)

// refreshAgain is how long the predecessor of a refresh token is still good:
// for an answer that was lost, and for two windows that refresh at once.
const refreshAgain = 10 * time.Second

// Refresh takes a refresh token that audience issued and returns the next
// tokens of its login when they are on disk. The token before is good for
// another 10 s and gets the same answer; an older one ends the login, because
// two people have its tokens. The error is ErrUnauthenticated, also as
// ErrExpired, or that of the store or of ctx.
func (a *Auth) Refresh(ctx context.Context, audience, token string) (Tokens, error) {
	p, err := a.present(ctx, audience, token)
	if err != nil {
		return Tokens{}, err
	}
	defer p.done()
	f := p.family
	if p.again && f.answer.Refresh != "" {
		return f.answer, nil
	}
	t, next, err := a.renew(ctx, f, f.record)
	if err != nil {
		return Tokens{}, err
	}
	if p.again { // the answer was lost with the process that gave it
		next.Previous, next.Rotated = f.record.Previous, f.record.Rotated
	}
	if err := a.putFamily(ctx, f.id, next); err != nil {
		return Tokens{}, err
	}
	f.record, f.answer = next, t
	return t, nil
}

// presented is a refresh token that is good, and the turn to do something
// about it.
type presented struct {
	family *family
	user   *user
	again  bool // it is the direct predecessor of the present one
	done   func()
}

// present looks at a refresh token. One that was used before ends its login.
func (a *Auth) present(ctx context.Context, audience, token string) (presented, error) {
	c, late := a.verify(refreshType, audience, token, a.now())
	if c == nil {
		a.noteRefusal(ctx, "user:", account{}, late)
		return presented{}, asUnauthenticated(late)
	}
	done, err := a.turn(ctx)
	if err != nil {
		return presented{}, err
	}
	p, err := a.presented(ctx, c)
	if err == nil {
		err = late
	}
	if err != nil {
		done()
		a.noteRefusal(ctx, "user:", a.subject(c), err)
		return presented{}, asUnauthenticated(err)
	}
	p.done = done
	return p, nil
}

// presented finds what a token belongs to. A token whose own time is over is
// looked at like any other: who comes back after long with one that somebody
// else has used since must not leave the login to them. The caller has the
// turn.
func (a *Auth) presented(ctx context.Context, c *claims) (presented, error) {
	f := a.findFamily(c.Session)
	u := a.stands(f)
	if u == nil || c.Subject != u.name || c.Version != f.version || f.record.Idle == 0 {
		return presented{}, errTokenRevoked
	}
	now := a.now()
	if !now.Before(f.record.deadline()) {
		return presented{}, ErrExpired
	}
	sum := sha256.Sum256([]byte(c.ID))
	if subtle.ConstantTimeCompare(sum[:], f.record.Current) == 1 {
		return presented{family: f, user: u}, nil
	}
	if subtle.ConstantTimeCompare(sum[:], f.record.Previous) == 1 && now.Sub(f.record.Rotated).Abs() < refreshAgain {
		return presented{family: f, user: u, again: true}, nil
	}
	_ = a.end(WithPrincipal(ctx, u.principal("")), f, "refresh token used again") // ended in any case, and audited with its outcome
	return presented{}, errTokenReused
}

// asUnauthenticated hides why, but for a time that is over.
func asUnauthenticated(err error) error {
	if err == ErrExpired { //nolint:errorlint // made here, never wrapped
		return err
	}
	return ErrUnauthenticated
}
