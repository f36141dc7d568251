package local

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"millrace/broker"
	"millrace/broker/fields"
)

// spaces is how many spaces of keys there can be.
const spaces = 256

// keys holds the keyed values. What is recorded is in maps, and can be read;
// what is on its way there is in ahead, so that conditions see it.
type keys struct {
	ahead map[spacedKey]aheadKey // under the append lock and mu

	mu   sync.RWMutex
	maps [spaces]map[string]value
}

type spacedKey struct {
	space broker.Space
	key   string
}

// value is a recorded value behind its revision, u64. There are many of them.
type value []byte

func newValue(rev uint64, v []byte) value {
	return append(binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(v)), rev), v...)
}

func (v value) rev() uint64   { return binary.LittleEndian.Uint64(v) }
func (v value) bytes() []byte { return v[8:] }

// aheadKey is the newest value of a key that is not recorded yet.
type aheadKey struct {
	rev    uint64
	absent bool
}

// pendingPut is a Put whose record is under way.
type pendingPut struct {
	spacedKey
	bytes []byte
	rev   uint64
}

// check reports whether the condition of a Put holds. The append lock is held.
func (k *keys) check(op *broker.Op) error {
	if op.Rev == 0 {
		return nil
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	a, ok := k.ahead[spacedKey{op.Space, op.Key}]
	if !ok {
		if v, there := k.maps[op.Space][op.Key]; there {
			a = aheadKey{rev: v.rev()}
		} else {
			a = aheadKey{absent: true}
		}
	}
	if op.Rev == broker.RevNone && a.absent || op.Rev == a.rev && !a.absent {
		return nil
	}
	return broker.ErrConflict
}

// add notes a Put under way. A nil value deletes. The append lock is held.
func (k *keys) add(s broker.Space, key string, v []byte, rev uint64) pendingPut {
	p := pendingPut{spacedKey: spacedKey{s, key}, bytes: v, rev: rev}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ahead == nil {
		k.ahead = map[spacedKey]aheadKey{}
	}
	k.ahead[p.spacedKey] = aheadKey{rev: rev, absent: v == nil}
	return p
}

// apply makes Puts readable that are recorded.
func (k *keys) apply(puts []pendingPut) {
	if len(puts) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range puts {
		p := &puts[i]
		if k.ahead[p.spacedKey].rev == p.rev {
			delete(k.ahead, p.spacedKey)
		}
		if p.bytes == nil {
			delete(k.maps[p.space], p.key)
			continue
		}
		m := k.maps[p.space]
		if m == nil {
			m = map[string]value{}
			k.maps[p.space] = m
		}
		m[p.key] = newValue(p.rev, p.bytes)
	}
}

// keysAtOnce bounds how long others wait while keys are captured.
const keysAtOnce = 256

// capture writes the keys for a checkpoint:
//
//	keys   space u8, n × (revision, key, value), to the end
func (k *keys) capture(w *ckptWriter) {
	for space := range spaces {
		b, n := w.begin(secKeys), 0
		b = append(b, byte(space))
		k.mu.RLock()
		// The lock is let go now and then, which a range over a map allows: what is
		// written meanwhile may be missed, and is in the log behind the checkpoint.
		for key, v := range k.maps[space] {
			b = fields.AppendUints(b, v.rev(), uint64(len(key)))
			b = append(b, key...)
			b = fields.AppendBytes(b, v.bytes())
			if n++; n%keysAtOnce == 0 {
				k.mu.RUnlock()
				w.end(b)
				b = append(w.begin(secKeys), byte(space))
				k.mu.RLock()
			}
		}
		k.mu.RUnlock()
		if n%keysAtOnce != 0 {
			w.end(b)
		}
	}
}

// restore reads keys of a checkpoint.
func (k *keys) restore(f *fields.Reader) error {
	space := broker.Space(f.Byte())
	if k.maps[space] == nil {
		k.maps[space] = map[string]value{}
	}
	for len(f.Rest) > 0 && !f.Bad {
		rev := f.Uint()
		key := string(f.Bytes())
		if v := f.Bytes(); !f.Bad {
			k.maps[space][key] = newValue(rev, v)
		}
	}
	if f.Bad {
		return errRecord
	}
	return nil
}

// Get returns the newest recorded entry of a key.
func (s *Store) Get(_ context.Context, sp broker.Space, key string) (broker.Entry, error) {
	if err := s.closed(); err != nil {
		return broker.Entry{}, err
	}
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	v, ok := s.keys.maps[sp][key]
	if !ok {
		return broker.Entry{}, broker.ErrNotFound
	}
	return broker.Entry{Key: key, Value: v.bytes(), Rev: v.rev()}, nil
}

// List calls f with every entry whose key begins with prefix, in order.
func (s *Store) List(ctx context.Context, sp broker.Space, prefix string, f func(broker.Entry) bool) error {
	if err := s.closed(); err != nil {
		return err
	}
	s.keys.mu.RLock()
	var list []broker.Entry
	for key, v := range s.keys.maps[sp] {
		if strings.HasPrefix(key, prefix) {
			list = append(list, broker.Entry{Key: key, Value: v.bytes(), Rev: v.rev()})
		}
	}
	s.keys.mu.RUnlock()
	slices.SortFunc(list, func(a, b broker.Entry) int { return strings.Compare(a.Key, b.Key) })
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !f(e) {
			break
		}
	}
	return nil
}
