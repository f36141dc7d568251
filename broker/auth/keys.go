package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// KeyInfo is what may be shown of a key.
type KeyInfo struct {
	ID, Name    string
	Owner       string // who made it, or whom it was made for
	Description string
	Role        Role
	Scopes      []string
	Disabled    bool
	Secrets     int // 1, or 2 during a change
	Created     time.Time
	Expires     time.Time // zero: never
	LastUsed    time.Time // to the minute; zero: never
}

// key is one state of an API key.
type key struct {
	id      string
	record  keyRecord
	role    Role
	secrets []*keySecret  // the older first
	lastUse *atomic.Int64 // minutes since 1970, 0 for never
}

// keySecret opens a key for as long as the key holds it and its rights are the
// same. Its principal is shared by all requests.
type keySecret struct {
	hash      [sha256.Size]byte
	principal *Principal
}

func newKey(id string, r keyRecord) (*key, error) {
	role, err := ParseRole(r.Role)
	if err != nil {
		return nil, err
	}
	if len(r.Secret) != sha256.Size || len(r.Second) != sha256.Size && len(r.Second) != 0 {
		return nil, errors.New("secret is not a SHA-256")
	}
	if err := validScopes(role, r.Scopes); err != nil {
		return nil, err
	}
	k := &key{id: id, record: r, role: role, lastUse: new(atomic.Int64)}
	for _, hash := range [][]byte{r.Secret, r.Second} {
		if len(hash) > 0 {
			s := &keySecret{hash: [sha256.Size]byte(hash)}
			s.principal = k.principalFor(s, "")
			k.secrets = append(k.secrets, s)
		}
	}
	return k, nil
}

// follow makes k the state after old: in the same era the principals stand whose
// secrets k still has.
func (k *key) follow(old *key) {
	k.lastUse = old.lastUse
	if k.record.Era != old.record.Era {
		return
	}
	for i, s := range k.secrets {
		for _, before := range old.secrets {
			if before.hash == s.hash {
				k.secrets[i] = before
			}
		}
	}
}

func (k *key) principalFor(s *keySecret, clientID string) *Principal {
	return &Principal{Kind: Key, Name: k.id, ClientID: clientID, Role: k.role, Scopes: k.record.Scopes, secret: s}
}

func (k *key) expired(now time.Time) bool {
	return !k.record.Expires.IsZero() && !now.Before(k.record.Expires)
}

func (k *key) administers(now time.Time) bool {
	return k.role == Administrator && !k.record.Disabled && !k.expired(now)
}

// Keys lists the API keys by id.
func (a *Auth) Keys() []KeyInfo {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make([]KeyInfo, 0, len(a.keys))
	for _, id := range slices.Sorted(maps.Keys(a.keys)) {
		list = append(list, a.keys[id].info())
	}
	return list
}

// KeyInfo returns one API key, or ErrNotFound.
func (a *Auth) KeyInfo(id string) (KeyInfo, error) {
	k := a.findKey(id)
	if k == nil {
		return KeyInfo{}, ErrNotFound
	}
	return k.info(), nil
}

func (k *key) info() KeyInfo {
	r := &k.record
	return KeyInfo{
		ID: k.id, Name: r.Name, Owner: r.Owner, Description: r.Description, Role: k.role, Scopes: slices.Clone(r.Scopes),
		Disabled: r.Disabled, Secrets: len(k.secrets), Created: r.Created, Expires: r.Expires, LastUsed: timeOf(k.lastUse),
	}
}

// AddKey makes an API key and returns its id and secret, which nobody can ask
// for again. It returns ErrExists when the id is taken, and a LimitError when
// there are too many.
func (a *Auth) AddKey(ctx context.Context, s KeySpec) (id, secret string, err error) {
	if s.ID == "" {
		s.ID = newKeyID()
	}
	if s.Secret == "" {
		s.Secret = randomText(secretBytes)
	}
	role, err := s.check()
	if err != nil {
		return "", "", err
	}
	hash := sha256.Sum256([]byte(s.Secret))
	record := keyRecord{
		Secret: hash[:], Name: s.Name, Owner: s.Owner, Description: s.Description, Role: role.String(),
		Scopes: slices.Clone(s.Scopes), Disabled: s.Disabled, Created: a.now().UTC(), Expires: expiresAt(s.Expires),
		Era: newVersion(),
	}
	if p := From(ctx); p != nil && record.Owner == "" {
		record.Owner = p.String()
	}
	if err := a.storeKey(ctx, s.ID, record); err != nil {
		return "", "", err
	}
	return s.ID, s.Secret, nil
}

func (a *Auth) storeKey(ctx context.Context, id string, r keyRecord) error {
	return a.inTurn(ctx, func() error {
		a.mu.RLock()
		at, taken, count := a.revs.of[keyPrefix+id], a.keys[id] != nil, len(a.keys)
		a.mu.RUnlock()
		if taken {
			return ErrExists
		}
		if count >= a.limits.Keys {
			return &LimitError{What: "keys", Max: a.limits.Keys}
		}
		return a.putKey(ctx, id, r, KeyMade, at)
	})
}

// DeleteKey removes a key for good and ends its principals.
func (a *Auth) DeleteKey(ctx context.Context, id string) error {
	return a.inTurn(ctx, func() error {
		at := a.revision(keyPrefix + id)
		k := a.findKey(id)
		if k == nil {
			return ErrNotFound
		}
		if k.administers(a.now()) && a.lastAdministrator(ctx, nil, k) {
			return ErrLastAdministrator
		}
		if err := a.write(ctx, keyPrefix+id, nil, at); err != nil {
			return a.failed(ctx, KeyRevoked, "key:"+id, err)
		}
		a.log.Info().Str("user", "key:"+id).Msg("key deleted")
		a.Audit(ctx, Event{What: KeyRevoked, Target: "key:" + id})
		return nil
	})
}

func (a *Auth) findKey(id string) *key {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.keys[id]
}
