package router

import (
	"iter"
	"strings"
	"sync"
	"sync/atomic"
)

// Names is the inverse of [Tree]: it maps topics to one value each and finds
// the topics that match a filter. Retained messages live in one. The zero
// value is empty.
//
// All methods may be called at once from many goroutines. Get and Match take
// no lock and never wait, so the body of a loop over Match may take its time
// and may call Set and Delete.
//
// Get, Set and Delete cost O(levels), amortised. Match costs the nodes whose
// path matches the beginning of the filter: with literals or "#" only, that is
// what it yields; each "+" looks at every level below the one before it.
type Names[T any] struct {
	mu   sync.Mutex // held by writers
	root node[place[T]]
	len  atomic.Int64
}

// place is what Names keeps at the node of a path.
type place[T any] struct {
	entry atomic.Pointer[entry[T]] // nil if the path is only on the way to others
}

// entry is one topic and its value; immutable.
type entry[T any] struct {
	topic string
	value T
}

// Set stores v as the value of a valid topic and returns the one it replaced.
func (m *Names[T]) Set(topic string, v T) (old T, had bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := &m.root
	for level := range strings.SplitSeq(topic, "/") {
		n = n.enter(level)
	}
	e := n.data.entry.Load()
	if e != nil {
		n.data.entry.Store(&entry[T]{topic: e.topic, value: v})
		return e.value, true
	}
	n.data.entry.Store(&entry[T]{topic: strings.Clone(topic), value: v})
	m.len.Add(1)
	return old, false
}

// Delete removes the topic and returns the value it had.
func (m *Names[T]) Delete(topic string) (old T, had bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.node(topic)
	if n == nil {
		return old, false
	}
	e := n.data.entry.Swap(nil)
	if e == nil {
		return old, false
	}
	m.len.Add(-1)
	for n.parent != nil && n.data.entry.Load() == nil && n.children.Load() == nil {
		n.parent.leave(n)
		n = n.parent
	}
	return e.value, true
}

// Get returns the value of a topic.
func (m *Names[T]) Get(topic string) (v T, ok bool) {
	if n := m.node(topic); n != nil {
		if e := n.data.entry.Load(); e != nil {
			return e.value, true
		}
	}
	return v, false
}

// Match yields every topic that the filter matches, with its value, in no
// particular order. A shared filter is given without its "$share/GROUP/".
//
// A topic that is there throughout the loop comes exactly once, with a value
// it had meanwhile. One that is set or deleted during the loop may or may not
// come, and one deleted and set again may come twice; a topic whose Delete
// returned before its turn does not come.
func (m *Names[T]) Match(filter string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		match(&m.root, filter, yield)
	}
}

// All yields every topic, with its value, on the terms of Match: those that
// begin with "$" too, which no wildcard finds.
func (m *Names[T]) All() iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		children(&m.root, func(c *node[place[T]]) bool { return visit(c, yield) })
	}
}

// Len is the number of topics.
func (m *Names[T]) Len() int { return int(m.len.Load()) }

// node returns the node of a topic, or nil.
func (m *Names[T]) node(topic string) *node[place[T]] {
	n := &m.root
	for more := true; more && n != nil; {
		var level string
		level, topic, more = strings.Cut(topic, "/")
		n = n.child(level)
	}
	return n
}

// match yields what the filter matches below n and reports whether to go on.
// It calls itself once per wildcard, so the stack is bounded by the levels of
// stored topics.
func match[T any](n *node[place[T]], filter string, yield func(string, T) bool) bool {
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		switch {
		case level == "#" && !more:
			return visit(n, yield)
		case level == "+":
			return each(n, func(c *node[place[T]]) bool {
				if more {
					return match(c, filter, yield)
				}
				return give(c, yield)
			})
		}
		if n = n.child(level); n == nil {
			return true
		}
	}
	return give(n, yield)
}

// visit yields n and everything below: "a/#" matches "a".
func visit[T any](n *node[place[T]], yield func(string, T) bool) bool {
	return give(n, yield) && each(n, func(c *node[place[T]]) bool { return visit(c, yield) })
}

// each calls visit for the children of n that a wildcard matches. MQTT 5.0
// section 4.7.2: at the first level not those that begin with "$".
func each[T any](n *node[place[T]], visit func(*node[place[T]]) bool) bool {
	if n.parent != nil {
		return children(n, visit)
	}
	return children(n, func(c *node[place[T]]) bool { return dollar(c.level) || visit(c) })
}

// children calls visit for every child of n.
func children[T any](n *node[place[T]], visit func(*node[place[T]]) bool) bool {
	t := n.children.Load()
	if t == nil {
		return true
	}
	for i := range t.slots {
		if c := t.slots[i].Load(); c != nil && !visit(c) {
			return false
		}
	}
	return true
}

// give yields the topic that ends at n, if there is one.
func give[T any](n *node[place[T]], yield func(string, T) bool) bool {
	e := n.data.entry.Load()
	return e == nil || yield(e.topic, e.value)
}
