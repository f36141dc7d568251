package router

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Tree maps topic filters to values and finds the values of all filters that
// match a topic. A filter holds a set of values; the same value may stand
// under many filters. The zero value is an empty tree.
//
// All methods may be called at once from many goroutines. Match and HasMatch
// take no lock and never wait. They see a filter whose Insert returned before
// they began, and none whose Remove did; one that comes or goes meanwhile may
// or may not be seen.
//
// A search visits each stored node at most once, and only nodes whose path
// matches the beginning of the topic: with no two filters alike up to some
// level it costs O(levels), with "+" and a literal side by side everywhere no
// more than the filters that someone stored. Insert and Remove cost O(levels),
// amortised. The tree has no limit of its own; its callers bound subscriptions
// per session and filters by [Limits].
type Tree[T comparable] struct {
	mu   sync.Mutex // held by writers
	root node[branch[T]]
	len  atomic.Int64
}

// branch is what a Tree keeps at the node of a path.
type branch[T comparable] struct {
	plus  atomic.Pointer[node[branch[T]]] // the filters that go on with "+"
	here  atomic.Pointer[values[T]]       // of the filter that ends here
	below atomic.Pointer[values[T]]       // of the filter that ends here with "/#"
}

// Insert adds v under a valid filter and reports whether it was not there. A
// shared filter is given without its "$share/GROUP/".
func (t *Tree[T]) Insert(filter string, v T) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &t.root
	path, below, more := splitFilter(filter)
	for more {
		var level string
		level, path, more = strings.Cut(path, "/")
		n = enter(n, level)
	}
	set := n.data.set(below)
	next, added := set.Load().with(v)
	if added {
		set.Store(next)
		t.len.Add(1)
	}
	return added
}

// Remove takes v from under filter and reports whether it was there. Nodes
// that no filter needs any more go with it; under a filter with more than 32
// values, v may stay in memory until as many have been removed as remain.
func (t *Tree[T]) Remove(filter string, v T) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &t.root
	path, below, more := splitFilter(filter)
	for more && n != nil {
		var level string
		level, path, more = strings.Cut(path, "/")
		n = find(n, level)
	}
	if n == nil {
		return false
	}
	set := n.data.set(below)
	next, removed := set.Load().without(v)
	if removed {
		set.Store(next)
		t.len.Add(-1)
		prune(n)
	}
	return removed
}

// Match appends to dst the values of every filter that matches the topic, and
// returns it. It allocates only if dst has too little room. A value under two
// matching filters comes twice. The order is the same for every search while
// the tree does not change.
func (t *Tree[T]) Match(topic string, dst []T) []T {
	s := search[T]{topic: topic, dst: dst}
	s.run(&t.root)
	return s.dst
}

// HasMatch reports whether any filter matches the topic. It stops at the first
// it finds.
func (t *Tree[T]) HasMatch(topic string) bool {
	s := search[T]{topic: topic, probe: true}
	return s.run(&t.root)
}

// Len is the number of values, counted once under each of their filters.
func (t *Tree[T]) Len() int { return int(t.len.Load()) }

// search is one walk through a tree.
type search[T comparable] struct {
	topic string
	dst   []T
	probe bool // stop at the first match
}

// run searches the tree and reports whether the search stopped early.
func (s *search[T]) run(root *node[branch[T]]) bool {
	if !dollar(s.topic) {
		return s.walk(root, 0)
	}
	// MQTT 5.0 section 4.7.2: wildcards at the first level do not match.
	first, _, _ := strings.Cut(s.topic, "/")
	n := root.child(first)
	return n != nil && s.walk(n, len(first)+1)
}

// walk takes what matches the topic from byte at on, where its levels before
// that are the path to n; at is behind the end when there are no more. It calls
// itself only where "+" and a literal stand side by side, so the stack is
// bounded by the levels that stored filters have.
func (s *search[T]) walk(n *node[branch[T]], at int) bool {
	for {
		if s.take(n.data.below.Load()) { // "a/#" matches "a" and all below
			return true
		}
		if at > len(s.topic) {
			return s.take(n.data.here.Load())
		}
		level, _, _ := strings.Cut(s.topic[at:], "/")
		at += len(level) + 1
		plus, literal := n.data.plus.Load(), n.child(level)
		switch {
		case literal == nil && plus == nil:
			return false
		case literal == nil:
			n = plus
		default:
			if plus != nil && s.walk(plus, at) {
				return true
			}
			n = literal
		}
	}
}

// take adds a matching set and reports whether the search is over.
func (s *search[T]) take(set *values[T]) bool {
	if set == nil {
		return false
	}
	if !s.probe {
		s.dst = set.appendTo(s.dst)
	}
	return s.probe
}

// splitFilter takes the "#" off a filter; below tells that there was one, more
// that path has levels. "#" alone has none, "/#" has one that is empty.
func splitFilter(filter string) (path string, below, more bool) {
	if filter == "#" {
		return "", true, false
	}
	path, below = strings.CutSuffix(filter, "/#")
	return path, below, true
}

// set returns the place of the values of a filter that ends at a node.
func (b *branch[T]) set(below bool) *atomic.Pointer[values[T]] {
	if below {
		return &b.below
	}
	return &b.here
}

// enter returns the node for a level of a filter below n, made if need be.
func enter[T comparable](n *node[branch[T]], level string) *node[branch[T]] {
	if level != "+" {
		return n.enter(level)
	}
	plus := n.data.plus.Load()
	if plus == nil {
		plus = &node[branch[T]]{level: "+", parent: n}
		n.data.plus.Store(plus)
	}
	return plus
}

// find returns the node for a level of a filter below n, or nil.
func find[T comparable](n *node[branch[T]], level string) *node[branch[T]] {
	if level == "+" {
		return n.data.plus.Load()
	}
	return n.child(level)
}

// prune takes n and the nodes above it from the tree, up to one in use.
func prune[T comparable](n *node[branch[T]]) {
	for n.parent != nil && n.children.Load() == nil && n.data.plus.Load() == nil &&
		n.data.here.Load() == nil && n.data.below.Load() == nil {
		up := n.parent
		if up.data.plus.Load() == n {
			up.data.plus.Store(nil)
		} else {
			up.leave(n)
		}
		n = up
	}
}
