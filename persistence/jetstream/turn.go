package jetstream

import (
	"slices"
	"sync"

	"millrace/broker"
)

// turns has one call at a time define or drop what has a name. What has other names is
// defined meanwhile: each election takes its time.
type turns struct {
	mu   sync.Mutex
	over sync.Cond
	busy map[name]bool
}

// take waits until all of names are free, and returns what frees them.
func (t *turns) take(names ...name) (free func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for slices.ContainsFunc(names, func(n name) bool { return t.busy[n] }) {
		t.over.Wait()
	}
	for _, n := range names {
		t.busy[n] = true
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, n := range names {
			delete(t.busy, n)
		}
		t.over.Broadcast()
	}
}

// turnFor waits for the name of d, and for that of its stream if it is a subscription.
func (s *Store) turnFor(d *broker.Def) (free func()) {
	names := []name{{d.Kind, d.Name}}
	if of, err := s.streamOf(d.Source); err == nil {
		names = append(names, name{broker.StreamTarget, of.definition().Def.Name})
	}
	return s.defining.take(names...)
}
