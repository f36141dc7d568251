package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

const maxKeys = 100_000

// KeyInfo is what may be shown of a key.
type KeyInfo struct {
	ID, Name string
	Role     Role
	Scopes   []string
	Created  time.Time
	Expires  time.Time // zero: never
	LastUsed time.Time // to the minute; zero: never
}

// key is one state of an API key. Its principal is shared by all requests.
type key struct {
	id        string
	hash      [sha256.Size]byte
	record    keyRecord
	principal *Principal
	lastUse   atomic.Int64 // minutes since 1970, 0 for never
}

func newKey(id string, r keyRecord) (*key, error) {
	role, err := ParseRole(r.Role)
	if err != nil {
		return nil, err
	}
	if len(r.Secret) != sha256.Size {
		return nil, errors.New("secret is not a SHA-256")
	}
	if err := validScopes(role, r.Scopes); err != nil {
		return nil, err
	}
	k := &key{id: id, hash: [sha256.Size]byte(r.Secret), record: r}
	k.principal = k.principalFor("")
	return k, nil
}

func (k *key) principalFor(clientID string) *Principal {
	role, _ := ParseRole(k.record.Role) // was read before
	return &Principal{Kind: Key, Name: k.id, ClientID: clientID, Role: role, Scopes: k.record.Scopes, key: k}
}

func (k *key) expired(now time.Time) bool {
	return !k.record.Expires.IsZero() && !now.Before(k.record.Expires)
}

// Keys lists the API keys by id.
func (a *Auth) Keys() []KeyInfo {
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make([]KeyInfo, 0, len(a.keys))
	for _, id := range slices.Sorted(maps.Keys(a.keys)) {
		k := a.keys[id]
		info := KeyInfo{
			ID: id, Name: k.record.Name, Role: k.principal.Role, Scopes: slices.Clone(k.record.Scopes),
			Created: k.record.Created, Expires: k.record.Expires,
		}
		if minute := k.lastUse.Load(); minute > 0 {
			info.LastUsed = time.Unix(minute*60, 0).UTC()
		}
		list = append(list, info)
	}
	return list
}

// AddKey makes an API key and returns its id and secret, which nobody can ask
// for again. It returns ErrExists when the id is taken.
func (a *Auth) AddKey(ctx context.Context, s KeySpec) (id, secret string, err error) {
	if s.ID == "" {
		s.ID = newKeyID()
	}
	if s.Secret == "" {
		s.Secret = randomText(32)
	}
	role, err := s.check()
	if err != nil {
		return "", "", err
	}
	hash := sha256.Sum256([]byte(s.Secret))
	record := keyRecord{
		Secret: hash[:], Name: s.Name, Role: role.String(), Scopes: slices.Clone(s.Scopes),
		Created: a.now().UTC(), Expires: s.Expires.UTC(),
	}
	if s.Expires.IsZero() {
		record.Expires = time.Time{}
	}
	k, err := newKey(s.ID, record)
	if err != nil {
		return "", "", err
	}
	if err := a.storeKey(ctx, k); err != nil {
		return "", "", err
	}
	return s.ID, s.Secret, nil
}

func (a *Auth) storeKey(ctx context.Context, k *key) error {
	done, err := a.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	a.mu.RLock()
	taken, count := a.keys[k.id] != nil, len(a.keys)
	a.mu.RUnlock()
	if taken {
		return ErrExists
	}
	if count >= maxKeys {
		return &InvalidError{Field: "keys", Reason: fmt.Sprintf("there may be at most %d", maxKeys)}
	}
	value, err := json.Marshal(k.record)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	if err := a.put(ctx, keyPrefix+k.id, value); err != nil {
		return err
	}
	a.change(func() {
		a.keys[k.id] = k
		a.expiry.watch(a, k)
	})
	a.log.Info().Str("user", "key:"+k.id).Str("role", k.record.Role).Msg("key added")
	return nil
}

// DeleteKey removes a key for good and ends its principals.
func (a *Auth) DeleteKey(ctx context.Context, id string) error {
	done, err := a.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	if a.findKey(id) == nil {
		return ErrNotFound
	}
	if err := a.remove(ctx, keyPrefix+id); err != nil {
		return err
	}
	a.change(func() { delete(a.keys, id) })
	a.log.Info().Str("user", "key:"+id).Msg("key deleted")
	return nil
}

func (a *Auth) findKey(id string) *key {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.keys[id]
}
