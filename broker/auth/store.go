package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Keys is the small durable store this package needs.
type Keys interface {
	// List returns the values of all keys that begin with prefix, under their
	// whole keys.
	List(ctx context.Context, prefix string) (map[string][]byte, error)
	// Put returns nil when the value would survive a crash.
	Put(ctx context.Context, key string, value []byte) error
	// Delete returns nil when the key would stay away after a crash; also for
	// a key that is not there.
	Delete(ctx context.Context, key string) error
}

const (
	storePrefix = "auth/"
	userPrefix  = storePrefix + "user/"
	keyPrefix   = storePrefix + "key/"
	// Accounts of doors, as DOOR/NAME.
	accountPrefix = storePrefix + "account/"
	loginPrefix   = storePrefix + "login/"
	banPrefix     = storePrefix + "ban/" // and KIND/WHO
	rulesKey      = storePrefix + "rules"
	signersKey    = storePrefix + "signers"
	lastUseKey    = storePrefix + "last-use"
)

// userRecord is a user on disk.
type userRecord struct {
	Password    string    `json:"password"` // PHC string
	Description string    `json:"description,omitempty"`
	Superuser   bool      `json:"superuser,omitempty"`
	Disabled    bool      `json:"disabled,omitempty"`
	Tokens      string    `json:"tokens,omitempty"` // what its tokens must carry
	Created     time.Time `json:"created"`
}

// keyRecord is an API key on disk.
type keyRecord struct {
	Secret      []byte    `json:"secret"`           // SHA-256
	Second      []byte    `json:"second,omitempty"` // of the newer secret, while there are two
	Name        string    `json:"name,omitempty"`
	Owner       string    `json:"owner,omitempty"`
	Description string    `json:"description,omitempty"`
	Role        string    `json:"role"`
	Scopes      []string  `json:"scopes,omitempty"`
	Disabled    bool      `json:"disabled,omitempty"`
	Created     time.Time `json:"created"`
	Expires     time.Time `json:"expires,omitzero"`
}

// load fills the maps of a new Auth.
func (a *Auth) load(ctx context.Context) error {
	stored, err := a.store.List(ctx, storePrefix)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for key, value := range stored {
		if err := a.loadOne(key, value); err != nil {
			return fmt.Errorf("read %q: %w", key, err)
		}
	}
	value, ok := stored[lastUseKey]
	if !ok {
		return nil
	}
	var minutes map[string]int64
	if err := json.Unmarshal(value, &minutes); err != nil {
		return fmt.Errorf("read %q: %w", lastUseKey, err)
	}
	for id, minute := range minutes {
		if k := a.keys[id]; k != nil {
			k.lastUse.Store(minute)
		}
	}
	for n, u := range a.users {
		u.lastUse.Store(minutes[n.String()])
	}
	return nil
}

func (a *Auth) loadOne(storeKey string, value []byte) error {
	if n, ok := storedAccount(storeKey); ok {
		var r userRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
		u, err := newUser(n, r)
		if err != nil {
			return err
		}
		a.users[n] = u
		return nil
	}
	if id, ok := strings.CutPrefix(storeKey, keyPrefix); ok {
		var r keyRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
		k, err := newKey(id, r)
		if err != nil {
			return err
		}
		a.keys[id] = k
		return nil
	}
	if id, ok := strings.CutPrefix(storeKey, loginPrefix); ok {
		f, err := readFamily(id, value)
		if err != nil {
			return err
		}
		a.families.add(f)
		return nil
	}
	if rest, ok := strings.CutPrefix(storeKey, banPrefix); ok {
		b, err := loadBan(rest, value)
		if err != nil {
			return err
		}
		a.bans.add(b)
		return nil
	}
	switch storeKey {
	case rulesKey:
		set, err := loadRules(value)
		a.rules = set
		return err
	case signersKey:
		r, err := readRing(value)
		a.signers.Store(r)
		return err
	case lastUseKey:
		return nil
	default:
		return fmt.Errorf("this version knows no such record")
	}
}

// put stores value. Once begun it is not cancelled, so that memory and disk
// cannot part.
func (a *Auth) put(ctx context.Context, key string, value []byte) error {
	if err := a.store.Put(context.WithoutCancel(ctx), key, value); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (a *Auth) remove(ctx context.Context, key string) error {
	if err := a.store.Delete(context.WithoutCancel(ctx), key); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
