package auth

import (
	"context"
	"errors"
	"strings"
)

// UserChange says what becomes different of a user; nil stays as it is.
type UserChange struct {
	Password    *string `json:"-"`
	Description *string
	Superuser   *bool
	Disabled    *bool // a disabled user cannot log in
}

// String leaves the password out.
func (UserChange) String() string { return "change of a user" }

// GoString leaves the password out.
func (c UserChange) GoString() string { return c.String() }

// ChangeUser changes an existing user and, unless only the description changes,
// ends what logged in before. A new password and disabling end all its tokens
// too; otherwise tokens stay good and have the new rights. It returns nil when
// the change is on disk.
func (a *Auth) ChangeUser(ctx context.Context, name string, c UserChange) error {
	return a.changeUser(ctx, ofBroker(name), c, nil)
}

// changeUser changes a user; where in is given, only one that has not changed since then.
func (a *Auth) changeUser(ctx context.Context, n account, c UserChange, in *era) error {
	if a.findUser(n) == nil {
		return ErrNotFound
	}
	if c.Description != nil {
		if err := validText("description", *c.Description); err != nil {
			return err
		}
	}
	hash := ""
	if c.Password != nil {
		err := validPassword(n.name, *c.Password)
		if err != nil {
			return err
		}
		if hash, err = a.hasher.hash(ctx, *c.Password); err != nil {
			return err
		}
	}
	return a.storeUser(ctx, n, UserChanged, func(old *user) (record userRecord, err error) {
		switch {
		case in != nil && (old == nil || old.era != in):
			return record, ErrUnauthenticated
		case old == nil:
			return record, ErrNotFound
		}
		record = old.record
		if c.Description != nil {
			record.Description = *c.Description
			if c.Superuser == nil && c.Disabled == nil && hash == "" {
				return record, nil
			}
		}
		record.Era = newVersion()
		if hash != "" {
			record.Password, record.Tokens = hash, newVersion()
		}
		if c.Superuser != nil {
			record.Superuser = *c.Superuser
		}
		if c.Disabled != nil && *c.Disabled != record.Disabled {
			record.Disabled, record.Tokens = *c.Disabled, newVersion()
		}
		return record, nil
	})
}

// UpdateUser gives an existing user another password and superuser flag; with
// an empty password the old one stays. It ends what logged in before.
func (a *Auth) UpdateUser(ctx context.Context, s UserSpec) error {
	c := UserChange{Superuser: &s.Superuser}
	if s.Password != "" {
		c.Password = &s.Password
	}
	return a.ChangeUser(ctx, s.Username, c)
}

// storeUser commits the record that next makes of the user of the moment, nil where
// there is none, unless next returns an error.
func (a *Auth) storeUser(ctx context.Context, n account, what string, next func(*user) (userRecord, error)) error {
	return a.inTurn(ctx, func() error {
		at := a.revision(n.storeKey())
		old := a.findUser(n)
		record, err := next(old)
		if err != nil {
			return err
		}
		if old != nil && old.record.administers() && !record.administers() && a.lastAdministrator(ctx, old, nil) {
			return ErrLastAdministrator
		}
		if err := a.put(ctx, n.storeKey(), record, at); err != nil {
			return a.failed(ctx, what, n.String(), err)
		}
		a.log.Info().Str("user", n.String()).Bool("superuser", record.Superuser).Msg("user stored")
		e := Event{What: what, Target: n.String()}
		if what == UserMade || what == UserChanged {
			e.Reason = record.differs(old)
		}
		a.Audit(ctx, e)
		return nil
	})
}

// differs says in words what a change was, for the audit log.
func (r *userRecord) differs(old *user) string {
	var before userRecord
	if old != nil {
		before = old.record
	}
	var words []string
	if old != nil && r.Password != before.Password {
		words = append(words, "password")
	}
	if r.Description != before.Description {
		words = append(words, "description")
	}
	if r.Superuser != before.Superuser {
		words = append(words, "superuser "+onOff(r.Superuser))
	}
	if r.Disabled != before.Disabled {
		words = append(words, "disabled "+onOff(r.Disabled))
	}
	return strings.Join(words, ", ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

var errChanged = errors.New("the user was changed meanwhile")

// rehash stores the password of u at the present cost. It is done at a login
// because only then the password is known; sessions and tokens do not feel it.
func (a *Auth) rehash(ctx context.Context, u *user, password string) {
	hash, err := a.hasher.hash(ctx, password)
	if err == nil {
		err = a.storeUser(WithPrincipal(ctx, &Principal{Kind: System}), u.account, Rehashed, func(now *user) (record userRecord, err error) {
			if now == nil || now.record.Password != u.record.Password {
				return record, errChanged
			}
			record = now.record
			record.Password = hash
			return record, nil
		})
	}
	if err != nil && !errors.Is(err, errChanged) {
		a.log.Warn().Err(err).Str("user", u.String()).Msg("password not hashed anew")
	}
}

// newVersion is what the tokens of a user carry. Another one ends them all; it
// is random, so that a user made again under an old name inherits no token.
func newVersion() string { return randomText(9) }
