package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
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
	if p.again {
		heir, err := unseal(p.id, p.record.Heir)
		if err != nil {
			return Tokens{}, err
		}
		return a.tokens(ctx, p.family.id, heir, p.record)
	}
	t, next, err := a.renew(ctx, p.family.id, p.id, *p.record)
	if err != nil {
		return Tokens{}, err
	}
	if err := a.put(ctx, loginPrefix+p.family.id, next, p.at); err != nil {
		return Tokens{}, err
	}
	return t, nil
}

// presented is a refresh token that is good.
type presented struct {
	id     string // its jti
	family *family
	user   *user
	record *familyRecord // of the family, and its
	at     uint64        // revision
	again  bool          // it is the direct predecessor of the present one
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
		var p presented
		if p, refused = a.presented(ctx, c); refused == nil {
			refused = late
		}
		if refused == nil {
			return use(p)
		}
		return nil
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
	now, r := a.now(), f.now.Load()
	if !now.Before(r.deadline()) {
		return presented{}, ErrExpired
	}
	p := presented{id: c.ID, family: f, user: u, record: r, at: rev}
	sum := sha256.Sum256([]byte(c.ID))
	if subtle.ConstantTimeCompare(sum[:], r.Current) == 1 {
		return p, nil
	}
	if subtle.ConstantTimeCompare(sum[:], r.Previous) == 1 && now.Sub(r.Rotated).Abs() < refreshAgain {
		p.again = true
		return p, nil
	}
	_ = a.end(WithPrincipal(ctx, u.principal("")), f, "refresh token used again") // ended in any case, and audited with its outcome
	return presented{}, errTokenReused
}

// seal writes text so that only who knows the secret, of 256 random bits, can read it.
func seal(secret, text string) []byte {
	return sealing(secret).Seal(nil, nil, []byte(text), nil) //nolint:gosec // G407: it makes its own, random nonce
}

// unseal reads what seal wrote.
func unseal(secret string, sealed []byte) (string, error) {
	text, err := sealing(secret).Open(nil, nil, sealed, nil)
	if err != nil {
		return "", errTokenRevoked // of a login that an older version renewed
	}
	return string(text), nil
}

func sealing(secret string) cipher.AEAD {
	key := sha256.Sum256([]byte("heir of " + secret))
	block, _ := aes.NewCipher(key[:])              // the length is right: cannot fail
	aead, _ := cipher.NewGCMWithRandomNonce(block) // of AES: cannot fail
	return aead
}

// asUnauthenticated hides why, but for a time that is over.
func asUnauthenticated(err error) error {
	if err == ErrExpired { //nolint:errorlint // made here, never wrapped
		return err
	}
	return ErrUnauthenticated
}
