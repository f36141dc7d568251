package auth

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const maxNameBytes = 256

// UserSpec describes a user to be made.
type UserSpec struct {
	Username  string
	Password  string `json:"-"`
	Superuser bool
	// Description is for people, at most 256 bytes.
	Description string
	// Door makes it an account of that door, letters a to z, and no user of the
	// broker: see the package comment. "" is a user.
	Door string
	// Distinct refuses a name that people could take for one there is: equal
	// but for case, width and spaces around it. For doors that are open to all;
	// a name that is taken takes as long there as one that is free.
	Distinct bool
}

// String leaves the password out.
func (s UserSpec) String() string { return account{s.Door, s.Username}.String() }

// GoString leaves the password out.
func (s UserSpec) GoString() string { return s.String() }

// UserInfo is what may be shown of a user.
type UserInfo struct {
	Name        string
	Description string
	Superuser   bool
	Disabled    bool
	Created     time.Time
	LastLogin   time.Time // with the password, to the minute; zero for never
}

// era is the time in which what a user may do stays the same. Principals end
// with it.
type era struct{ _ byte }

// user is one state of an account.
type user struct {
	account
	looks    string // the name as people see it
	record   userRecord
	password phc
	era      *era
	verified atomic.Pointer[verified] // the password, once it proved right
	lastUse  *atomic.Int64            // minutes since 1970, 0 for never
	holder   *Principal               // of its certificate, over HTTP
}

// newUser is a user in an era of its own.
func newUser(n account, r userRecord) (*user, error) {
	password, err := parsePHC(r.Password)
	if err != nil {
		return nil, err
	}
	u := &user{account: n, looks: looks(n.name), record: r, password: password, era: &era{}, lastUse: new(atomic.Int64)}
	u.holder = u.principal("")
	return u, nil
}

// follow makes u the state after old: in the same era its principals stand.
func (u *user) follow(old *user) {
	u.lastUse = old.lastUse
	if u.record.Era == old.record.Era {
		u.era, u.holder = old.era, old.holder
		u.verified.Store(old.verified.Load())
	}
}

func (r *userRecord) administers() bool { return r.Superuser && !r.Disabled }

// Users lists the users by name; accounts of doors are none.
func (a *Auth) Users() []UserInfo {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make([]UserInfo, 0, len(a.users))
	for n, u := range a.users {
		if n.door == "" {
			list = append(list, u.info())
		}
	}
	slices.SortFunc(list, func(x, y UserInfo) int { return strings.Compare(x.Name, y.Name) })
	return list
}

// User returns one user, or ErrNotFound.
func (a *Auth) User(name string) (UserInfo, error) {
	u := a.findUser(ofBroker(name))
	if u == nil {
		return UserInfo{}, ErrNotFound
	}
	return u.info(), nil
}

func (u *user) info() UserInfo {
	return UserInfo{
		Name: u.name, Description: u.record.Description, Superuser: u.record.Superuser, Disabled: u.record.Disabled, Created: u.record.Created,
		LastLogin: timeOf(u.lastUse),
	}
}

// AddUser makes a user. It returns nil when the user is on disk, ErrExists
// when the name is taken, an InvalidError for what cannot be accepted, and a
// LimitError when there are too many.
func (a *Auth) AddUser(ctx context.Context, s UserSpec) error {
	if err := validUsername(s.Username); err != nil {
		return err
	}
	if err := validPassword(s.Username, s.Password); err != nil {
		return err
	}
	if err := validText("description", s.Description); err != nil {
		return err
	}
	if err := validDoor(s); err != nil {
		return err
	}
	n := account{s.Door, s.Username}
	if !s.Distinct && a.findUser(n) != nil { // before the work of hashing
		return ErrExists
	}
	hash, err := a.hasher.hash(ctx, s.Password)
	if err != nil {
		return err
	}
	record := userRecord{
		Password: hash, Description: s.Description, Superuser: s.Superuser, Created: a.now().UTC(), Tokens: newVersion(), Era: newVersion(),
	}
	return a.storeUser(ctx, n, UserMade, func(old *user) (userRecord, error) {
		if old != nil || s.Distinct && a.looksTaken(n) {
			return record, ErrExists
		}
		if a.countUsers() >= a.limits.Users {
			return record, &LimitError{What: "users", Max: a.limits.Users}
		}
		return record, nil
	})
}

// DeleteUser removes a user for good and ends its principals and tokens.
func (a *Auth) DeleteUser(ctx context.Context, name string) error {
	return a.deleteUser(ctx, ofBroker(name), nil)
}

// deleteUser removes a user; where in is given, only one that has not changed since then.
func (a *Auth) deleteUser(ctx context.Context, n account, in *era) error {
	return a.inTurn(ctx, func() error {
		at := a.revision(n.storeKey())
		u := a.findUser(n)
		switch {
		case in != nil && (u == nil || u.era != in):
			return ErrUnauthenticated
		case u == nil:
			return ErrNotFound
		}
		if u.record.administers() && a.lastAdministrator(ctx, u, nil) {
			return ErrLastAdministrator
		}
		if err := a.write(ctx, n.storeKey(), nil, at); err != nil {
			return a.failed(ctx, UserRemoved, n.String(), err)
		}
		a.log.Info().Str("user", n.String()).Msg("user deleted")
		a.Audit(ctx, Event{What: UserRemoved, Target: n.String()})
		return nil
	})
}

// HasAdministrator reports whether somebody can administer this broker: a
// superuser, or a key in force with the role administrator.
func (a *Auth) HasAdministrator() bool { return a.administered(nil, nil) }

// administered reports whether anyone but u and k administers.
func (a *Auth) administered(but *user, butKey *key) bool {
	now := a.now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, u := range a.users {
		if u != but && u.record.administers() {
			return true
		}
	}
	for _, k := range a.keys {
		if k != butKey && k.administers(now) {
			return true
		}
	}
	return false
}

// lastAdministrator reports whether u or k must not go. The broker itself may
// do as it likes, since it makes a new one at its start.
func (a *Auth) lastAdministrator(ctx context.Context, u *user, k *key) bool {
	if p := From(ctx); p != nil && p.Kind == System {
		return false
	}
	return !a.administered(u, k)
}

func (a *Auth) findUser(n account) *user {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.users[n]
}

func (a *Auth) countUsers() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.users)
}

func (a *Auth) looksTaken(n account) bool {
	wanted := looks(n.name)
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, u := range a.users {
		if u.door == n.door && u.looks == wanted {
			return true
		}
	}
	return false
}

// looks makes one text of all names that differ in case, width, composition
// and spaces around them.
func looks(name string) string {
	return strings.TrimSpace(norm.NFKC.String(strings.ToLower(norm.NFKC.String(name))))
}

func validUsername(name string) error {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return &InvalidError{Field: "username", Reason: "must have 1 to 256 bytes of UTF-8 without control characters"}
	}
	return nil
}
