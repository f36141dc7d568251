package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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

	// The rest belongs to whoever has the turn.
	record familyRecord
	answer Tokens // to the last use of a refresh token, for its repetition
}

func newFamily(id string, r familyRecord) *family {
	return &family{id: id, user: account{r.Door, r.User}, version: r.Version, record: r}
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

func readFamily(id string, value []byte) (*family, error) {
	var r familyRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	hash := func(b []byte) bool { return len(b) == 0 || len(b) == sha256.Size }
	if r.User == "" || len(r.Audience) == 0 || r.Ends.IsZero() || !hash(r.Current) || !hash(r.Previous) || (r.Idle > 0) != (len(r.Current) > 0) {
		return nil, errors.New("not a login")
	}
	return newFamily(id, r), nil
}

func (a *Auth) putFamily(ctx context.Context, id string, r familyRecord) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode login: %w", err)
	}
	return a.put(ctx, loginPrefix+id, value)
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
	u := a.findUser(f.user)
	if u == nil || u.record.Disabled || u.record.Tokens != f.version {
		return nil
	}
	return u
}

// end ends a family at once, whatever the store says; what could not be deleted
// there goes at a later login. The caller has the turn.
func (a *Auth) end(ctx context.Context, f *family, reason string) error {
	f.ended.Store(true)
	err := a.remove(ctx, loginPrefix+f.id)
	a.change(func() {
		if err == nil {
			a.families.remove(f)
		}
	})
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
	isDead := func(f *family) bool { return a.stands(f) == nil || !now.Before(f.record.deadline()) }
	own, some, all := a.someFamilies(u.account)
	for _, f := range own {
		if isDead(f) {
			dead = append(dead, f)
			continue
		}
		live++
		if oldest == nil || f.record.Rotated.Before(oldest.record.Rotated) {
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
		f.ended.Store(true)
		a.mu.Lock()
		a.families.remove(f)
		a.mu.Unlock()
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
