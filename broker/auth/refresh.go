package auth

import (
	"bytes"
	"cmp"
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
	var t Tokens
	err := a.present(ctx, audience, token, func(p presented) (err error) {
		t, err = a.refresh(ctx, p)
		return err
	})
	return t, err
}

// refresh is Refresh for who has the turn.
func (a *Auth) refresh(ctx context.Context, p presented) (Tokens, error) {
	f, now := p.family, p.family.now.Load()
	if p.again && now.answer.Refresh != "" {
		return now.answer, nil
	}
	t, next, err := a.renew(ctx, f.id, now.familyRecord)
	if err != nil {
		return Tokens{}, err
	}
	if p.again { // the answer is not here: another node gave it, or the process before
		next.Previous, next.Rotated = now.Previous, now.Rotated
	}
	if err := a.put(ctx, loginPrefix+f.id, next, p.at); err != nil {
		return Tokens{}, err
	}
	if stored := f.now.Load(); bytes.Equal(stored.Current, next.Current) { // else it was used elsewhere since
		f.now.CompareAndSwap(stored, &login{stored.familyRecord, t})
	}
	return t, nil
}

// presented is a refresh token that is good.
type presented struct {
	family *family
	user   *user
	again  bool   // it is the direct predecessor of the present one
	at     uint64 // the revision of the family that was looked at
}

// present looks at a refresh token, and has use do something about one that is good;
// if others are faster, again. One that was used before ends its login.
func (a *Auth) present(ctx context.Context, audience, token string, use func(presented) error) error {
	c, late := a.verify(refreshType, audience, token, a.now())
	if c == nil {
		a.noteRefusal(ctx, "user:", account{}, late)
		return asUnauthenticated(late)
	}
	var refused error
	err := a.inTurn(ctx, func() error {
		p, err := a.presented(ctx, c)
		if refused = cmp.Or(err, late); refused != nil {
			return nil
		}
		return use(p)
	})
	if refused != nil {
		a.noteRefusal(ctx, "user:", a.subject(c), refused)
		return asUnauthenticated(refused)
	}
	return err
}

// presented finds what a token belongs to. A token whose own time is over is
// looked at like any other: who comes back after long with one that somebody
// else has used since must not leave the login to them. The caller has the
// turn.
func (a *Auth) presented(ctx context.Context, c *claims) (presented, error) {
	rev := a.revision(loginPrefix + c.Session)
	f := a.findFamily(c.Session)
	u := a.stands(f)
	if u == nil || c.Subject != u.name || c.Version != f.version || f.now.Load().Idle == 0 {
		return presented{}, errTokenRevoked
	}
	now, at := a.now(), f.now.Load()
	if !now.Before(at.deadline()) {
		return presented{}, ErrExpired
	}
	sum := sha256.Sum256([]byte(c.ID))
	if subtle.ConstantTimeCompare(sum[:], at.Current) == 1 {
		return presented{family: f, user: u, at: rev}, nil
	}
	if subtle.ConstantTimeCompare(sum[:], at.Previous) == 1 && now.Sub(at.Rotated).Abs() < refreshAgain {
		return presented{family: f, user: u, again: true, at: rev}, nil
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
