package router

import "strings"

// Nodes counts the nodes of the tree below its root, dead ones too.
func (t *Tree[T]) Nodes() int { return countBranches(&t.root) - 1 }

// Nodes counts the nodes of the tree below its root, dead ones too.
func (m *Names[T]) Nodes() int { return countPlaces(&m.root) - 1 }

// Slots counts the places for values under a filter without wildcards.
func (t *Tree[T]) Slots(filter string) int {
	n := &t.root
	for level := range strings.SplitSeq(filter, "/") {
		n = n.child(level)
	}
	return int(n.data.here.Load().room())
}

func countBranches[T comparable](n *node[branch[T]]) int {
	if n == nil {
		return 0
	}
	sum := 1 + countBranches(n.data.plus.Load())
	if t := n.children.Load(); t != nil {
		for i := range t.slots {
			sum += countBranches(t.slots[i].Load())
		}
	}
	return sum
}

func countPlaces[T any](n *node[place[T]]) int {
	if n == nil {
		return 0
	}
	sum := 1
	if t := n.children.Load(); t != nil {
		for i := range t.slots {
			sum += countPlaces(t.slots[i].Load())
		}
	}
	return sum
}
