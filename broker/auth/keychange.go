package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"time"
)

// KeyChange says what becomes different of an API key; nil stays as it is.
type KeyChange struct {
	Name, Owner, Description *string
	Disabled                 *bool
	Expires                  *time.Time // zero is never
	Role                     *string
	Scopes                   *[]string
}

// ChangeKey changes an API key. Another role, other scopes and disabling end
// the principals of the key, as its end does; the rest does not. It returns nil
// when the change is on disk.
func (a *Auth) ChangeKey(ctx context.Context, id string, c KeyChange) error {
	return a.replaceKey(ctx, id, KeyChanged, func(r keyRecord) (keyRecord, error) {
		old := r
		set(&r.Name, c.Name)
		set(&r.Owner, c.Owner)
		set(&r.Description, c.Description)
		set(&r.Disabled, c.Disabled)
		if c.Expires != nil {
			r.Expires = expiresAt(*c.Expires)
		}
		if c.Role != nil {
			role, err := ParseRole(*c.Role)
			if err != nil {
				return r, err
			}
			r.Role = role.String()
		}
		if c.Scopes != nil {
			r.Scopes = slices.Clone(*c.Scopes)
		}
		if r.Role != old.Role || r.Disabled != old.Disabled || !slices.Equal(r.Scopes, old.Scopes) {
			r.Era = newVersion()
		}
		return r, r.validTexts()
	})
}

// AddSecret gives a key a second secret, so that its users can change over
// while both are good, and returns it; an empty one is made up. A key has at
// most two.
func (a *Auth) AddSecret(ctx context.Context, id, secret string) (string, error) {
	if secret == "" {
		secret = randomText(secretBytes)
	}
	if err := validSecret(secret); err != nil {
		return "", err
	}
	hash := sha256.Sum256([]byte(secret))
	err := a.replaceKey(ctx, id, KeyChanged, func(r keyRecord) (keyRecord, error) {
		if len(r.Second) != 0 {
			return r, &LimitError{What: "secrets", Max: maxSecrets}
		}
		if bytes.Equal(hash[:], r.Secret) {
			return r, ErrExists
		}
		r.Second = hash[:]
		return r, nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// RetireSecret ends the older of a key's two secrets and the principals that
// came with it. The last one is not retired; DeleteKey ends the key.
func (a *Auth) RetireSecret(ctx context.Context, id string) error {
	return a.replaceKey(ctx, id, KeyChanged, func(r keyRecord) (keyRecord, error) {
		if len(r.Second) == 0 {
			return r, &InvalidError{Field: "secret", Reason: "the key has only one, add another first"}
		}
		r.Secret, r.Second = r.Second, nil
		return r, nil
	})
}

// replaceKey commits what next makes of the record of a key.
func (a *Auth) replaceKey(ctx context.Context, id, what string, next func(keyRecord) (keyRecord, error)) error {
	return a.inTurn(ctx, func() error {
		at := a.revision(keyPrefix + id)
		old := a.findKey(id)
		if old == nil {
			return ErrNotFound
		}
		r, err := next(old.record)
		if err != nil {
			return err
		}
		k, err := newKey(id, r)
		if err != nil {
			return err
		}
		now := a.now()
		if old.administers(now) && !k.administers(now) && a.lastAdministrator(ctx, nil, old) {
			return ErrLastAdministrator
		}
		return a.putKey(ctx, id, r, what, at)
	})
}

// putKey stores a key and puts it in force. The caller has the turn.
func (a *Auth) putKey(ctx context.Context, id string, r keyRecord, what string, at uint64) error {
	reason := r.differs(a.findKey(id))
	if err := a.put(ctx, keyPrefix+id, r, at); err != nil {
		return a.failed(ctx, what, "key:"+id, err)
	}
	a.log.Info().Str("user", "key:"+id).Str("role", r.Role).Msg("key stored")
	a.Audit(ctx, Event{What: what, Target: "key:" + id, Reason: reason})
	return nil
}

// differs says in words what a change was, for the audit log.
func (r *keyRecord) differs(old *key) string {
	if old == nil {
		return "role " + r.Role
	}
	var words []string
	for _, f := range []struct {
		changed bool
		word    string
	}{
		{r.Role != old.record.Role, "role " + r.Role},
		{!slices.Equal(r.Scopes, old.record.Scopes), "scopes"},
		{r.Disabled != old.record.Disabled, "disabled " + onOff(r.Disabled)},
		{!r.Expires.Equal(old.record.Expires), "expiry"},
		{len(r.Second) > len(old.record.Second), "secret added"},
		{len(r.Second) < len(old.record.Second), "secret retired"},
	} {
		if f.changed {
			words = append(words, f.word)
		}
	}
	return strings.Join(words, ", ")
}

func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

func expiresAt(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
