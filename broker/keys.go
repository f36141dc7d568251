package broker

import (
	"context"
	"errors"

	"millrace/broker/auth"
)

// Keys is one Space of a Store as a small map: the form in which broker/auth
// wants to keep its users and API keys.
type Keys struct {
	store  Store
	space  Space
	prefix string // of all of them in the store
}

// NewKeys returns the keys of a space.
func NewKeys(s Store, space Space) *Keys { return &Keys{store: s, space: space} }

// Of returns the keys that are one node's own, where several share the store.
func (k *Keys) Of(node string) *Keys {
	return &Keys{store: k.store, space: k.space, prefix: k.prefix + "node/" + node + "/"}
}

// List returns every key that begins with prefix, with its value.
func (k *Keys) List(ctx context.Context, prefix string) (map[string][]byte, error) {
	all := make(map[string][]byte)
	err := k.store.List(ctx, k.space, k.prefix+prefix, func(e Entry) bool {
		all[e.Key[len(k.prefix):]] = e.Value
		return true
	})
	return all, err
}

// Get returns the value of a key, and whether there is one.
func (k *Keys) Get(ctx context.Context, key string) ([]byte, bool, error) {
	e, err := k.store.Get(ctx, k.space, k.prefix+key)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	return e.Value, err == nil, err
}

// Entries returns every entry whose key begins with prefix, by key.
func (k *Keys) Entries(ctx context.Context, prefix string) (map[string]auth.Entry, error) {
	all := make(map[string]auth.Entry)
	err := k.store.List(ctx, k.space, k.prefix+prefix, func(e Entry) bool {
		all[e.Key[len(k.prefix):]] = auth.Entry{Value: e.Value, Rev: e.Rev}
		return true
	})
	return all, err
}

// Replace records a value, nil for none, in the place of the one that has the revision
// at; 0 = if there is none, auth.AnyRevision = whatever is there. It returns the new
// revision when it is as durable as the store promises, or auth.ErrMoved.
func (k *Keys) Replace(ctx context.Context, key string, value []byte, at uint64) (rev uint64, err error) {
	switch at {
	case 0:
		at = RevNone
	case auth.AnyRevision:
		at = 0
	}
	c := newCommit()
	c.Put(k.space, k.prefix+key, value, at)
	r, err := c.one(ctx, k.store)
	if errors.Is(err, ErrConflict) {
		return 0, auth.ErrMoved
	}
	return r.Rev, storeError(err)
}

// Put records a value; it returns when it is as durable as the store promises.
func (k *Keys) Put(ctx context.Context, key string, value []byte) error {
	return k.write(ctx, key, value)
}

// Delete removes a key, whether it was there or not.
func (k *Keys) Delete(ctx context.Context, key string) error {
	return k.write(ctx, key, nil)
}

func (k *Keys) write(ctx context.Context, key string, value []byte) error {
	c := newCommit()
	c.Put(k.space, k.prefix+key, value, 0)
	_, err := c.one(ctx, k.store)
	return storeError(err)
}
