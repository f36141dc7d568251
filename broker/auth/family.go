package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"
)

const (
	tidyAtOnce = 8  // dead families that one login removes
	tidyLook   = 32 // among how many it looks
)

// familyRecord is a login on disk: the tokens that follow from one password.
type familyRecord struct {
	User     string        `json:"user"`
	Door     string        `json:"door,omitempty"` // where the user is an account of one
	Version  string        `json:"version"`        // of the user's tokens
	Audience []string      `json:"audience"`
	Access   time.Duration `json:"access"`
	Idle     time.Duration `json:"idle,omitempty"` // 0: there is no refresh
	Made     time.Time     `json:"made"`
	Rotated  time.Time     `json:"rotated"`
	Ends     time.Time     `json:"ends"`
	Current  []byte        `json:"current,omitempty"`  // SHA-256 of the jti of the refresh token
	Previous []byte        `json:"previous,omitempty"` // of the one before
	Heir     []byte        `json:"heir,omitempty"`     // the jti of the refresh token, sealed for who has the one before
}

// deadline is when the login ends if nothing more happens.
func (r *familyRecord) deadline() time.Time {
	if idle := r.Rotated.Add(r.Idle); r.Idle > 0 && idle.Before(r.Ends) {
		return idle
	}
	return r.Ends
}

// family is a login.
type family struct {
	id, version string // never change, as user
	user        account
	ended       atomic.Bool

	now atomic.Pointer[familyRecord] // replaced, never changed
}

func newFamily(id string, r familyRecord) *family {
	f := &family{id: id, user: account{r.Door, r.User}, version: r.Version}
	f.now.Store(&r)
	return f
}

// session is one access token of a family.
type session struct {
	family *family
	until  time.Time
}

// families finds logins by id and by user. It belongs to Auth.mu.
type families struct {
	byID   map[string]*family
	byUser map[account]map[string]*family
}

func newFamilies() families {
	return families{byID: make(map[string]*family), byUser: make(map[account]map[string]*family)}
}

func (fs *families) add(f *family) {
	fs.byID[f.id] = f
	if fs.byUser[f.user] == nil {
		fs.byUser[f.user] = make(map[string]*family)
	}
	fs.byUser[f.user][f.id] = f
}

func (fs *families) remove(f *family) {
	delete(fs.byID, f.id)
	delete(fs.byUser[f.user], f.id)
	if len(fs.byUser[f.user]) == 0 {
		delete(fs.byUser, f.user)
	}
}

func readFamily(value []byte) (r familyRecord, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, err
	}
	hash := func(b []byte) bool { return len(b) == 0 || len(b) == sha256.Size }
	if r.User == "" || len(r.Audience) == 0 || r.Ends.IsZero() || !hash(r.Current) || !hash(r.Previous) || (r.Idle > 0) != (len(r.Current) > 0) {
		return r, errors.New("not a login")
	}
	return r, nil
}

func (a *Auth) findFamily(id string) *family {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.families.byID[id]
}

// stands returns the user of a family that has not ended, nil otherwise.
func (a *Auth) stands(f *family) *user {
	if f == nil || f.ended.Load() {
		return nil
	}
	if u := a.findUser(f.user); f.goodFor(u) {
		return u
	}
	return nil
}

// goodFor reports whether u, who may be nil, has not ended all tokens since f began.
func (f *family) goodFor(u *user) bool {
	return u != nil && !u.record.Disabled && u.record.Tokens == f.version
}

// stood reports whether somebody may still go by the tokens of f. The caller holds mu.
func (a *Auth) stood(f *family) bool {
	return !f.ended.Load() && f.goodFor(a.users[f.user]) && a.now().Before(f.now.Load().deadline())
}

// end ends a family at once, whatever the store says; what could not be deleted
// there goes at a later login. The caller has the turn.
func (a *Auth) end(ctx context.Context, f *family, reason string) error {
	a.change(func() { f.ended.Store(true) })
	err := a.remove(ctx, loginPrefix+f.id)
	a.log.Info().Str("user", f.user.String()).Str("reason", reason).Msg("login ended")
	a.Audit(ctx, Event{What: FamilyEnded, Target: f.user.String(), Reason: reason, Err: err})
	return err
}

// makeRoom sees to it that u may log in once more. It also removes a few dead
// families, so that they do not pile up. The caller has the turn.
func (a *Auth) makeRoom(ctx context.Context, u *user) error {
	var oldest *family
	var dead []*family
	now, live := a.now(), 0
	isDead := func(f *family) bool { return a.stands(f) == nil || !now.Before(f.now.Load().deadline()) }
	own, some, all := a.someFamilies(u.account)
	for _, f := range own {
		if isDead(f) {
			dead = append(dead, f)
			continue
		}
		live++
		if oldest == nil || f.now.Load().Rotated.Before(oldest.now.Load().Rotated) {
			oldest = f
		}
	}
	for _, f := range some {
		if isDead(f) && f.user != u.account {
			dead = append(dead, f)
		}
	}
	for _, f := range dead[:min(len(dead), tidyAtOnce)] {
		if err := a.remove(ctx, loginPrefix+f.id); err != nil {
			return err
		}
		all--
	}
	if live >= a.limits.LoginsPerUser {
		if err := a.end(ctx, oldest, "too many logins"); err != nil {
			return err
		}
		all--
	}
	if all >= a.limits.Logins {
		return &LimitError{What: "logins", Max: a.limits.Logins}
	}
	return nil
}

// someFamilies returns those of a user and some of all, or all of all where
// there is no more room.
func (a *Auth) someFamilies(n account) (own, some []*family, all int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, f := range a.families.byUser[n] {
		own = append(own, f)
	}
	all = len(a.families.byID)
	for _, f := range a.families.byID { // in random order
		if some = append(some, f); len(some) >= tidyLook && all < a.limits.Logins {
			break
		}
	}
	return own, some, all
}
