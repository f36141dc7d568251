package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Entry is what a key holds.
type Entry struct {
	Value []byte
	Rev   uint64 // grows with every change of any key
}

// AnyRevision as that of a Replace takes whatever is there.
const AnyRevision = ^uint64(0)

// ErrMoved is what a Replace returns when the key has another revision by now.
// Nothing was recorded.
var ErrMoved = errors.New("changed meanwhile by somebody else")

// Keys is the small durable store this package needs. Other nodes may write to it
// as well: what they do is told by Auth.Apply.
type Keys interface {
	// Entries returns those of all keys that begin with prefix, under their whole
	// keys.
	Entries(ctx context.Context, prefix string) (map[string]Entry, error)
	// Replace records value in the place of what key holds, if that has the revision
	// at; 0 = if it holds nothing. A nil value deletes. It returns the new revision
	// when the change would survive a crash.
	Replace(ctx context.Context, key string, value []byte, at uint64) (rev uint64, err error)
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
	Era         string    `json:"era,omitempty"`    // another one ends its principals
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
	Era         string    `json:"era,omitempty"` // another one ends its principals
	Created     time.Time `json:"created"`
	Expires     time.Time `json:"expires,omitzero"`
}

// load fills the memory of a new Auth, in the order in which it was stored.
func (a *Auth) load(ctx context.Context) error {
	stored, err := a.store.Entries(ctx, storePrefix)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	keys := slices.SortedFunc(maps.Keys(stored), func(x, y string) int { return cmp.Compare(stored[x].Rev, stored[y].Rev) })
	for _, key := range keys {
		if err := a.adopt(key, stored[key].Value, stored[key].Rev); err != nil {
			return err
		}
	}
	return nil
}

// put stores a record in the place of the one of revision at, which is taken before
// memory is looked at: what Apply brings meanwhile is not overwritten.
func (a *Auth) put(ctx context.Context, key string, record any, at uint64) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %q: %w", key, err)
	}
	return a.write(ctx, key, value, at)
}

// remove deletes what a key holds, whatever it is by now.
func (a *Auth) remove(ctx context.Context, key string) error {
	return a.write(ctx, key, nil, AnyRevision)
}

// write stores a value and puts it in force. Once begun it is not cancelled, so
// that memory and disk cannot part. It is ErrMoved if somebody else was faster,
// whose change is in force then: what led to the value has to be looked at again.
func (a *Auth) write(ctx context.Context, key string, value []byte, at uint64) error {
	rev, err := a.store.Replace(context.WithoutCancel(ctx), key, value, at)
	switch {
	case errors.Is(err, ErrMoved):
		return a.catchUp(ctx, key, at)
	case err != nil:
		return fmt.Errorf("store: %w", err)
	}
	return a.adopt(key, value, rev)
}

// How long it may take until what somebody else stored is seen here.
const (
	catchUpEvery = 20 * time.Millisecond
	catchUpMost  = 10 * time.Second
)

// catchUp waits until memory has another revision of a key than at, and then
// returns ErrMoved.
func (a *Auth) catchUp(ctx context.Context, key string, at uint64) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpMost)
	defer cancel()
	look := time.NewTicker(catchUpEvery)
	defer look.Stop()
	for {
		stored, err := a.store.Entries(ctx, key)
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		if e, ok := stored[key]; ok {
			err = a.adopt(key, e.Value, e.Rev)
		} else if at != 0 {
			err = a.adopt(key, nil, at+1) // it was deleted, by then or later
		}
		if err != nil {
			return err
		}
		if a.revision(key) != at {
			return ErrMoved
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("store: what another node changed of %q is not seen here: %w", key, ctx.Err())
		}
	}
}
