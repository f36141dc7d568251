package router

import (
	"hash/maphash"
	"math/bits"
	"strings"
	"sync/atomic"
)

// node is one level of one path; both trees are made of them. V is what a tree
// keeps at a node. Level and parent never change, so a reader that holds a
// node may use it without a lock. Methods that change something say "writer":
// the tree's mutex is held.
type node[V any] struct {
	level    string
	parent   *node[V]
	children atomic.Pointer[table[V]] // nil when there are none
	hash     uint32                   // of level
	dead     bool                     // writer: left, but still in the parent's table
	data     V
}

// child returns the node for a literal level below n, or nil. It may return a
// dead one, which is empty and so matches nothing.
func (n *node[V]) child(level string) *node[V] { return n.children.Load().get(level) }

// enter returns the node for level below n and makes it if need be. Writer.
func (n *node[V]) enter(level string) *node[V] {
	t := n.children.Load()
	c := t.get(level)
	switch {
	case c != nil && c.dead:
		c.dead = false
	case c != nil:
		return c
	default:
		// A clone, so that a node does not hold on to a packet buffer.
		c = &node[V]{level: strings.Clone(level), parent: n, hash: hashOf(level)}
		if t.full() {
			t = t.rebuilt(1)
			t.put(c)
			n.children.Store(t)
		} else {
			t.put(c)
		}
	}
	t.live++
	return c
}

// leave takes the empty child c from n. In a large table it stays as a dead
// node until as many have died as live. Writer.
func (n *node[V]) leave(c *node[V]) {
	t := n.children.Load()
	c.dead = true
	t.live--
	switch {
	case t.live == 0:
		n.children.Store(nil)
	case len(t.slots) <= tableScanned || t.used > 2*t.live:
		n.children.Store(t.rebuilt(0))
	}
}

// table is the set of children of one node. Readers take no lock, because a
// slot once filled keeps its node for the life of the table: growing and
// shrinking make a new one. Up to tableScanned slots are searched one by one,
// which costs less than hashing; more are an open-addressed hash table at most
// three quarters full.
type table[V any] struct {
	slots []atomic.Pointer[node[V]]
	used  int // writer: slots filled
	live  int // writer: of those, with a node that is not dead
}

const tableScanned = 8

// get returns the node for level, or nil. A nil table is empty.
func (t *table[V]) get(level string) *node[V] {
	switch {
	case t == nil:
		return nil
	case len(t.slots) <= tableScanned:
		for i := range t.slots {
			if n := t.slots[i].Load(); n == nil || n.level == level {
				return n
			}
		}
		return nil
	}
	mask := uint32(len(t.slots) - 1)
	for i := hashOf(level) & mask; ; i = (i + 1) & mask {
		if n := t.slots[i].Load(); n == nil || n.level == level {
			return n
		}
	}
}

// put adds a node whose level is not there. The table is not full. Writer.
func (t *table[V]) put(n *node[V]) {
	i := t.used
	if len(t.slots) > tableScanned {
		mask := len(t.slots) - 1
		for i = int(n.hash) & mask; t.slots[i].Load() != nil; {
			i = (i + 1) & mask
		}
	}
	t.slots[i].Store(n)
	t.used++
}

// full tells whether put needs a larger table. Writer.
func (t *table[V]) full() bool {
	switch {
	case t == nil:
		return true
	case len(t.slots) <= tableScanned:
		return t.used == len(t.slots)
	}
	return t.used >= len(t.slots)/4*3
}

// rebuilt returns a table of the live nodes with room for more. Hashed tables
// start at most half full, so that a rebuild is paid for by the many changes
// until the next. Writer.
func (t *table[V]) rebuilt(more int) *table[V] {
	if t == nil { // most nodes have one child, and it costs one allocation
		one := &struct {
			table[V]
			slot [1]atomic.Pointer[node[V]]
		}{}
		one.slots = one.slot[:]
		return &one.table
	}
	size := t.live + more
	if size > tableScanned {
		size *= 2
	}
	next := &table[V]{slots: make([]atomic.Pointer[node[V]], 1<<bits.Len(uint(size-1))), live: t.live}
	for i := range t.slots {
		if n := t.slots[i].Load(); n != nil && !n.dead {
			next.put(n)
		}
	}
	return next
}

// seed keeps clients from choosing levels that collide.
var seed = maphash.MakeSeed()

func hashOf(level string) uint32 { return uint32(maphash.String(seed, level)) }
