package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Apply puts a change in force that was made to the Keys: the value that a key
// below "auth/" has by now, nil if it was deleted, and the revision of that. It is
// to be called for all changes, those of this Auth as well; what is known already is
// left alone. When it returns, memory is what it would be had the change been made
// here, and who watches Changed is told.
//
// It waits for no disk and for no change under way, so that a store may call it
// before it answers a Replace. An error says that the value is not understood:
// what was in force before stays.
func (a *Auth) Apply(key string, value []byte, rev uint64) error {
	return a.adopt(key, value, rev)
}

// alteration brings what is in memory up to date with an entry, and reports
// whether decisions may differ now. Auth.mu is held.
type alteration func() (felt bool)

// adopt puts an entry of the store in force, unless memory has a newer one of the
// key. Every change comes this way: those that are read at the start, made here and
// made elsewhere.
func (a *Auth) adopt(key string, value []byte, rev uint64) error {
	alter, err := a.read(key, value)
	if err != nil {
		return fmt.Errorf("read %q: %w", key, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.revs.take(key, rev, value == nil) && alter() {
		a.enforce()
	}
	return nil
}

// read decodes an entry: each kind of key has its one reader. It looks at nothing
// that changes.
func (a *Auth) read(key string, value []byte) (alteration, error) {
	if n, ok := storedAccount(key); ok {
		return a.readUser(n, value)
	}
	if id, ok := strings.CutPrefix(key, keyPrefix); ok {
		return a.readKey(id, value)
	}
	if id, ok := strings.CutPrefix(key, loginPrefix); ok {
		return a.readLogin(id, value)
	}
	if rest, ok := strings.CutPrefix(key, banPrefix); ok {
		return a.readBan(rest, value)
	}
	switch key {
	case rulesKey:
		return a.readStoredRules(value)
	case signersKey:
		return a.readSigners(value)
	case lastUseKey:
		return a.readLastUse(value)
	}
	return nil, errors.New("this version knows no such record")
}

func (a *Auth) readUser(n account, value []byte) (alteration, error) {
	if value == nil {
		return func() bool {
			old := a.users[n]
			delete(a.users, n)
			return old != nil
		}, nil
	}
	var r userRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	u, err := newUser(n, r)
	if err != nil {
		return nil, err
	}
	return func() bool {
		if old := a.users[n]; old != nil {
			u.follow(old)
		}
		a.users[n] = u
		for _, f := range a.families.byUser[n] {
			if f.version != r.Tokens {
				f.ended.Store(true) // its record goes at a later login
			}
		}
		return true
	}, nil
}

func (a *Auth) readKey(id string, value []byte) (alteration, error) {
	if value == nil {
		return func() bool {
			old := a.keys[id]
			delete(a.keys, id)
			return old != nil
		}, nil
	}
	var r keyRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	k, err := newKey(id, r)
	if err != nil {
		return nil, err
	}
	return func() bool {
		if old := a.keys[id]; old != nil {
			k.follow(old)
		}
		a.keys[id] = k
		a.expiry.watch(a, k)
		return true
	}, nil
}

func (a *Auth) readLogin(id string, value []byte) (alteration, error) {
	if value == nil {
		return func() bool {
			f := a.families.byID[id]
			if f == nil {
				return false
			}
			felt := a.stood(f)
			f.ended.Store(true)
			a.families.remove(f)
			return felt
		}, nil
	}
	r, err := readFamily(value)
	if err != nil {
		return nil, err
	}
	return func() bool {
		if f := a.families.byID[id]; f != nil {
			f.now.Store(&r)
		} else {
			a.families.add(newFamily(id, r))
		}
		return false
	}, nil
}

func (a *Auth) readBan(rest string, value []byte) (alteration, error) {
	if value == nil {
		kind, who, _ := strings.Cut(rest, "/")
		return func() bool {
			a.bans.remove(banKey{BanKind(kind), who})
			return false // who is let in again comes by itself
		}, nil
	}
	b, err := loadBan(rest, value)
	if err != nil {
		return nil, err
	}
	return func() bool {
		a.bans.add(b)
		return true
	}, nil
}

func (a *Auth) readStoredRules(value []byte) (alteration, error) {
	set := &ruleset{}
	if value != nil {
		var err error
		if set, err = loadRules(value); err != nil {
			return nil, err
		}
	}
	return func() bool {
		a.rules = set
		return true
	}, nil
}

func (a *Auth) readSigners(value []byte) (alteration, error) {
	next := &ring{}
	if value != nil {
		var err error
		if next, err = readRing(value); err != nil {
			return nil, err
		}
	}
	return func() bool {
		before := a.signers.Swap(next).present()
		return before == nil || next.present() == nil || before.id != next.present().id
	}, nil
}

// revisions are those of what memory has, by key.
type revisions struct {
	of map[string]uint64
	// What was deleted lately, so that nothing older brings it back.
	gone  map[string]uint64
	order []string // of the latest in gone, as a ring
	next  int
}

// maxGone bounds what is remembered of deleted keys. Their revisions matter only
// while older news of the same keys is on its way.
const maxGone = 4096

func newRevisions() revisions {
	return revisions{of: make(map[string]uint64), gone: make(map[string]uint64)}
}

// take notes that key has the revision rev, unless a newer one is known.
func (r *revisions) take(key string, rev uint64, deleted bool) bool {
	if rev <= max(r.of[key], r.gone[key]) {
		return false
	}
	if !deleted {
		delete(r.gone, key)
		r.of[key] = rev
		return true
	}
	delete(r.of, key)
	if len(r.order) < maxGone {
		r.order = append(r.order, key)
	} else {
		delete(r.gone, r.order[r.next])
		r.order[r.next] = key
		r.next = (r.next + 1) % maxGone
	}
	r.gone[key] = rev
	return true
}

// revision is that of what memory has under a key, 0 = nothing.
func (a *Auth) revision(key string) uint64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.revs.of[key]
}

// inTurn runs f when it is its turn to change something, again when somebody
// else was faster.
func (a *Auth) inTurn(ctx context.Context, f func() error) error {
	done, err := a.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	for range maxTries {
		if err = f(); !errors.Is(err, ErrMoved) {
			return err
		}
	}
	return err
}

// maxTries is how often a change is tried that others get ahead of.
const maxTries = 100
