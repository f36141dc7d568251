package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// define records a definition, of the target or NewTarget, and binds it. Where
// other nodes share the store that comes back from there, to all of them, before
// the answer.
func (b *Broker) define(ctx context.Context, of Target, d Def) error {
	d.Expect = of
	t, err := b.store.Define(ctx, d)
	if err == nil && b.cluster == nil {
		err = b.bind(Definition{t, d})
	}
	return err
}

// maxAlter is how often a change is made anew because other nodes were faster.
const maxAlter = 20

// alter changes the definition of a target to what change makes of the settings that
// it has, which are old as far as this node knows. Where other nodes change it at the
// same time, change is asked again about what they made of it: so all changes are in
// the end, or the last is refused. ErrConflict is that this went on and on.
func alter[C any](ctx context.Context, b *Broker, of Target, old C, change func(old C) (Def, error)) error {
	was, _ := json.Marshal(old) // plain fields: cannot fail
	for range maxAlter {
		d, err := change(old)
		if err != nil {
			return err
		}
		if b.cluster != nil {
			d.Was = was
		}
		if err = b.define(ctx, of, d); !errors.Is(err, ErrConflict) || b.cluster == nil {
			return err
		}
		now, err := b.settingsOf(ctx, of)
		if err != nil {
			return err
		}
		if bytes.Equal(was, now) {
			return ErrConflict // it is something else that cannot be
		}
		was, old = now, *new(C)
		if err := json.Unmarshal(now, &old); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
	}
	return ErrConflict
}

// settingsOf are those that the store has of a target now, as they are recorded.
func (b *Broker) settingsOf(ctx context.Context, t Target) ([]byte, error) {
	all, err := b.store.Definitions(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if d.Target == t {
			return d.Def.Meta, nil
		}
	}
	return nil, ErrGone
}

// drop removes a target; nothing goes there any more once that is known here.
func (b *Broker) drop(ctx context.Context, k TargetKind, t Target, name string) error {
	if b.cluster == nil {
		b.unbind(Definition{t, Def{Kind: k, Name: name}})
	}
	return b.store.Drop(ctx, t)
}

// bind makes a recorded definition known, or the change of one that is known.
func (b *Broker) bind(d Definition) error {
	switch d.Def.Kind {
	case QueueTarget:
		if d.Def.Name == delayedQueue {
			return nil // see defineDelayed
		}
		var c QueueConfig
		if err := json.Unmarshal(d.Def.Meta, &c); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
		b.bindQueue(d.Target, &c)
	case StreamTarget:
		var c StreamConfig
		if err := json.Unmarshal(d.Def.Meta, &c); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
		b.bindStream(d.Target, &c)
	case SubscriptionTarget:
		var c SubscriptionConfig
		if err := json.Unmarshal(d.Def.Meta, &c); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
		return b.bindSubscription(d.Target, &c)
	case SessionTarget:
		if b.cluster != nil {
			b.bindBacklog(d.Target, d.Def.Name)
		}
	default:
		return fmt.Errorf("kind %d is not known; a newer release wrote it", d.Def.Kind)
	}
	return nil
}

// unbind forgets a target that is dropped.
func (b *Broker) unbind(d Definition) {
	switch d.Def.Kind {
	case QueueTarget:
		if q := b.byTarget(d.Target); q != nil {
			b.unbindQueue(q)
		}
	case StreamTarget:
		if s := b.streamNamed(d.Def.Name); s != nil && s.target == d.Target {
			b.unbindStream(s)
		}
	case SubscriptionTarget:
		if q := b.byTarget(d.Target); q != nil {
			b.unbindSubscription(q)
		}
	case SessionTarget:
		b.unbindBacklog(d.Target, d.Def.Name)
	default:
	}
}

// bindQueue makes a recorded queue known and lets its filter feed it.
func (b *Broker) bindQueue(t Target, c *QueueConfig) {
	q, old := b.byTarget(t), ""
	if q == nil {
		q = &queue{target: t, volatile: c.Driver == Memory}
	} else {
		old = q.config().Filter
	}
	q.settings.Store(c)
	b.mu.Lock()
	b.queues[c.Name], b.targets[t] = q, q
	b.mu.Unlock()
	b.rebind(q, old, c.Filter)
}

// rebind moves a queue or stream to another filter; for a moment both feed it,
// so that nothing published meanwhile is missed.
func (b *Broker) rebind(d destination, old, filter string) {
	if old == filter {
		return
	}
	if filter != "" {
		b.tree.Insert(filter, d)
	}
	if old != "" {
		b.tree.Remove(old, d)
	}
}

func (b *Broker) unbindQueue(q *queue) {
	c := q.config()
	if c.Filter != "" {
		b.tree.Remove(c.Filter, q)
	}
	b.mu.Lock()
	if b.queues[c.Name] == q {
		delete(b.queues, c.Name)
	}
	delete(b.targets, q.target)
	b.mu.Unlock()
}

func (b *Broker) bindStream(t Target, c *StreamConfig) {
	s, old := b.streamNamed(c.Name), ""
	if s == nil || s.target != t {
		s = &stream{target: t, subs: map[string]*queue{}}
	} else {
		old = s.config().Filter
	}
	s.settings.Store(c)
	b.mu.Lock()
	b.streams[c.Name] = s
	b.mu.Unlock()
	b.rebind(s, old, c.Filter)
}

func (b *Broker) unbindStream(s *stream) {
	b.tree.Remove(s.config().Filter, s)
	b.mu.Lock()
	delete(b.streams, s.config().Name)
	for _, q := range s.subs {
		delete(b.targets, q.target)
	}
	b.mu.Unlock()
}

func (b *Broker) queueNamed(name string) *queue {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.queues[name]
}

func (b *Broker) streamNamed(name string) *stream {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.streams[name]
}

func (b *Broker) byTarget(t Target) *queue {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.targets[t]
}

func (b *Broker) queuesByName() []*queue { return byName(&b.mu, &b.queues) }

func (b *Broker) streamsByName() []*stream { return byName(&b.mu, &b.streams) }

// byName lists what a map has, which mu guards, in the order of names.
func byName[T any](mu *sync.RWMutex, m *map[string]T) []T {
	mu.RLock()
	now := maps.Clone(*m)
	mu.RUnlock()
	all := make([]T, 0, len(now))
	for _, name := range slices.Sorted(maps.Keys(now)) {
		all = append(all, now[name])
	}
	return all
}
