package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxUsers     = 100_000
	maxNameBytes = 256
)

// UserSpec describes a user to be made.
type UserSpec struct {
	Username  string
	Password  string
	Superuser bool
}

// String leaves the password out.
func (s UserSpec) String() string { return "user:" + s.Username }

// GoString leaves the password out.
func (s UserSpec) GoString() string { return s.String() }

// UserInfo is what may be shown of a user.
type UserInfo struct {
	Name      string
	Superuser bool
	Created   time.Time
}

// user is one state of an account; a change makes a new one, and so ends the
// principals of the old.
type user struct {
	name     string
	record   userRecord
	password phc
	verified atomic.Pointer[verified] // the password, once it proved right
}

func newUser(name string, r userRecord) (*user, error) {
	password, err := parsePHC(r.Password)
	if err != nil {
		return nil, err
	}
	return &user{name: name, record: r, password: password}, nil
}

// Users lists the users by name.
func (a *Auth) Users() []UserInfo {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make([]UserInfo, 0, len(a.users))
	for _, name := range slices.Sorted(maps.Keys(a.users)) {
		r := a.users[name].record
		list = append(list, UserInfo{Name: name, Superuser: r.Superuser, Created: r.Created})
	}
	return list
}

// AddUser makes a user. It returns nil when the user is on disk, ErrExists
// when the name is taken, and an InvalidError for what cannot be accepted.
func (a *Auth) AddUser(ctx context.Context, s UserSpec) error {
	if err := validUsername(s.Username); err != nil {
		return err
	}
	if err := validPassword(s.Username, s.Password); err != nil {
		return err
	}
	if a.findUser(s.Username) != nil { // before the work of hashing
		return ErrExists
	}
	hash, err := a.hasher.hash(ctx, s.Password)
	if err != nil {
		return err
	}
	record := userRecord{Password: hash, Superuser: s.Superuser, Created: a.now().UTC()}
	return a.storeUser(ctx, s.Username, func(old *user) (userRecord, error) {
		if old != nil {
			return userRecord{}, ErrExists
		}
		if a.countUsers() >= maxUsers {
			return userRecord{}, &InvalidError{Field: "users", Reason: fmt.Sprintf("there may be at most %d", maxUsers)}
		}
		return record, nil
	})
}

// UpdateUser gives an existing user another password and superuser flag; with
// an empty password the old one stays. It ends what logged in before.
func (a *Auth) UpdateUser(ctx context.Context, s UserSpec) error {
	if a.findUser(s.Username) == nil {
		return ErrNotFound
	}
	hash := ""
	if s.Password != "" {
		err := validPassword(s.Username, s.Password)
		if err != nil {
			return err
		}
		if hash, err = a.hasher.hash(ctx, s.Password); err != nil {
			return err
		}
	}
	return a.storeUser(ctx, s.Username, func(old *user) (userRecord, error) {
		if old == nil {
			return userRecord{}, ErrNotFound
		}
		record := old.record
		record.Superuser = s.Superuser
		if hash != "" {
			record.Password = hash
		}
		return record, nil
	})
}

// storeUser commits the record that next makes of the user of the moment, nil
// where there is none, unless next returns an error.
func (a *Auth) storeUser(ctx context.Context, name string, next func(*user) (userRecord, error)) error {
	done, err := a.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	record, err := next(a.findUser(name))
	if err != nil {
		return err
	}
	u, err := newUser(name, record)
	if err != nil {
		return err
	}
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode user: %w", err)
	}
	if err := a.put(ctx, userPrefix+name, value); err != nil {
		return err
	}
	a.change(func() { a.users[name] = u })
	a.log.Info().Str("user", "user:"+name).Bool("superuser", record.Superuser).Msg("user stored")
	return nil
}

// DeleteUser removes a user for good and ends its principals.
func (a *Auth) DeleteUser(ctx context.Context, name string) error {
	done, err := a.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	if a.findUser(name) == nil {
		return ErrNotFound
	}
	if err := a.remove(ctx, userPrefix+name); err != nil {
		return err
	}
	a.change(func() { delete(a.users, name) })
	a.log.Info().Str("user", "user:"+name).Msg("user deleted")
	return nil
}

// HasAdministrator reports whether somebody can administer this broker: a
// superuser, or a key in force with the role administrator.
func (a *Auth) HasAdministrator() bool {
	now := a.now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, u := range a.users {
		if u.record.Superuser {
			return true
		}
	}
	for _, k := range a.keys {
		if k.principal.Role == Administrator && !k.expired(now) {
			return true
		}
	}
	return false
}

func (a *Auth) findUser(name string) *user {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.users[name]
}

func (a *Auth) countUsers() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.users)
}

func validUsername(name string) error {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return &InvalidError{Field: "username", Reason: "must have 1 to 256 bytes of UTF-8 without control characters"}
	}
	return nil
}
