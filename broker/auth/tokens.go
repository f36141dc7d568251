package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	accessLife     = 15 * time.Minute
	refreshIdle    = 7 * 24 * time.Hour
	refreshLife    = 30 * 24 * time.Hour
	maxAccessLife  = 24 * time.Hour
	maxRefreshLife = 30 * 24 * time.Hour
	maxAudience    = 8
)

// Grant says what tokens a login gets. Zero values take the stated default.
type Grant struct {
	// Audience are the doors that take the access token. The first one issues
	// it, and alone takes the refresh token. Required.
	Audience  []string
	Access    time.Duration // life of an access token; default 15 min, at most 24 h
	Idle      time.Duration // how long a refresh token waits for its use; default 7 days
	Absolute  time.Duration // after which the password is asked for again; default and at most 30 days
	NoRefresh bool          // the login ends with its access token
}

func (g Grant) orDefault() (Grant, error) {
	refuse := func(field, reason string) (Grant, error) { return Grant{}, &InvalidError{Field: field, Reason: reason} }
	g.Access = cmp.Or(g.Access, accessLife)
	g.Absolute = cmp.Or(g.Absolute, refreshLife)
	g.Idle = cmp.Or(g.Idle, min(refreshIdle, g.Absolute))
	switch {
	case len(g.Audience) == 0 || len(g.Audience) > maxAudience || slices.Contains(g.Audience, ""):
		return refuse("audience", "must have 1 to 8 names")
	case g.Access < time.Second || g.Access > maxAccessLife:
		return refuse("access", "must be 1 s to 24 h")
	case g.Absolute < time.Second || g.Absolute > maxRefreshLife:
		return refuse("absolute", "must be 1 s to 30 days")
	case g.Idle < time.Second || g.Idle > g.Absolute:
		return refuse("idle", "must be 1 s to the absolute life")
	}
	g.Audience = slices.Clone(g.Audience)
	return g, nil
}

// Tokens are what a login gets. They are secrets.
type Tokens struct {
	Access         string    `json:"-"`
	Refresh        string    `json:"-"` // "" where there is none
	AccessExpires  time.Time `json:"access_expires"`
	RefreshExpires time.Time `json:"refresh_expires,omitzero"`
}

// String leaves the tokens out.
func (t Tokens) String() string { return "tokens until " + t.AccessExpires.UTC().Format(time.RFC3339) }

// GoString leaves the tokens out.
func (t Tokens) GoString() string { return t.String() }

// Issue begins a login of the user p, who has just proved the password, and
// returns its tokens when the login is on disk. A user has a bounded number of
// logins: a new one ends the one that was idle longest. The error is
// ErrUnauthenticated if the user was changed meanwhile, an InvalidError, or a
// LimitError if the broker has too many logins.
func (a *Auth) Issue(ctx context.Context, p *Principal, g Grant) (Tokens, error) {
	g, err := g.orDefault()
	if err != nil {
		return Tokens{}, err
	}
	if p == nil || p.era == nil || p.session != nil {
		return Tokens{}, &InvalidError{Field: "principal", Reason: "only a user who gave the password gets tokens"}
	}
	if p.Door != "" && (len(g.Audience) != 1 || g.Audience[0] != p.Door) {
		return Tokens{}, &InvalidError{Field: "audience", Reason: "must be the door of the account, and no other"}
	}
	var t Tokens
	err = a.inTurn(ctx, func() (err error) {
		t, err = a.begin(ctx, p, g)
		return err
	})
	return t, err
}

// begin is Issue for who has the turn.
func (a *Auth) begin(ctx context.Context, p *Principal, g Grant) (Tokens, error) {
	u := a.findUser(p.account())
	if u == nil || u.era != p.era || u.record.Disabled {
		return Tokens{}, ErrUnauthenticated
	}
	if err := a.makeRoom(ctx, u); err != nil {
		return Tokens{}, err
	}
	now, id := a.now(), randomText(12)
	r := familyRecord{
		User: u.name, Door: u.door, Version: u.record.Tokens, Audience: g.Audience,
		Access: g.Access, Idle: g.Idle, Made: now.UTC(), Rotated: now.UTC(), Ends: now.Add(g.Absolute).UTC(),
	}
	if g.NoRefresh {
		r.Ends, r.Idle = now.Add(g.Access+tokenSkew).UTC(), 0
	}
	t, next, err := a.renew(ctx, id, "", r)
	if err != nil {
		return Tokens{}, err
	}
	if err := a.put(ctx, loginPrefix+id, next, 0); err != nil {
		return Tokens{}, err
	}
	return t, nil
}

// renew makes the next tokens of a family, for who has the refresh token of the jti
// before (none at its beginning), and its record once they are out. The caller has
// the turn.
func (a *Auth) renew(ctx context.Context, family, before string, r familyRecord) (Tokens, familyRecord, error) {
	id := randomText(secretBytes)
	r.Rotated = a.now().UTC()
	if r.Idle > 0 {
		sum := sha256.Sum256([]byte(id))
		r.Previous, r.Current, r.Heir = r.Current, sum[:], nil
		if before != "" {
			r.Heir = seal(before, id)
		}
	}
	t, err := a.tokens(ctx, family, id, &r)
	return t, r, err
}

// tokens signs those that follow from the record of a family and the jti of its
// refresh token: always the same, wherever and whenever that is done, as long as one
// key signs. The caller has the turn.
func (a *Auth) tokens(ctx context.Context, family, id string, r *familyRecord) (t Tokens, err error) {
	s, err := a.signerFor(ctx, r.Access)
	if err != nil {
		return Tokens{}, err
	}
	made := func(audience []string, id string, expires time.Time) *claims {
		return &claims{
			RegisteredClaims: jwt.RegisteredClaims{
				Issuer: a.issuer, Audience: audience, Subject: r.User, ID: id,
				IssuedAt: jwt.NewNumericDate(r.Rotated), ExpiresAt: jwt.NewNumericDate(expires),
			},
			Session: family, Version: r.Version,
		}
	}
	if r.Idle > 0 {
		c := made(r.Audience[:1], id, r.deadline())
		t.RefreshExpires = c.ExpiresAt.UTC()
		if t.Refresh, err = s.sign(refreshType, c); err != nil {
			return Tokens{}, err
		}
	}
	expires := r.Rotated.Add(r.Access)
	if end := r.deadline(); end.Before(expires) {
		expires = end
	}
	sum := sha256.Sum256([]byte("access by " + id)) // from which nobody gets back to the other
	c := made(r.Audience, base64.RawURLEncoding.EncodeToString(sum[:16]), expires)
	t.AccessExpires = c.ExpiresAt.UTC()
	t.Access, err = s.sign(accessType, c)
	return t, err
}
