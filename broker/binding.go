package broker

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// restore binds a definition that the store recorded.
func (b *Broker) restore(d Definition) error {
	switch d.Def.Kind {
	case QueueTarget:
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
		return b.restoreSubscription(d)
	case SessionTarget: // with the rest of the session
	default:
		return fmt.Errorf("kind %d is not known; a newer release wrote it", d.Def.Kind)
	}
	return nil
}

// bindQueue makes a recorded queue known and lets its filter feed it.
func (b *Broker) bindQueue(t Target, c *QueueConfig) *queue {
	q := &queue{target: t, volatile: c.Driver == Memory}
	q.settings.Store(c)
	b.mu.Lock()
	b.queues[c.Name], b.targets[t] = q, q
	b.mu.Unlock()
	if c.Filter != "" {
		b.tree.Insert(c.Filter, q)
	}
	return q
}

// rebind moves a queue or stream to another filter; for a moment both feed it,
// so that nothing published meanwhile is missed.
func (b *Broker) rebind(d destination, old, filter string) {
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
	delete(b.queues, c.Name)
	delete(b.targets, q.target)
	b.mu.Unlock()
}

func (b *Broker) bindStream(t Target, c *StreamConfig) *stream {
	s := &stream{target: t, subs: map[string]*queue{}}
	s.settings.Store(c)
	b.mu.Lock()
	b.streams[c.Name] = s
	b.mu.Unlock()
	b.tree.Insert(c.Filter, s)
	return s
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
