package router

import (
	"slices"
	"sync/atomic"
)

// values is the set of values under one filter, in the order they came.
// Readers take no lock: a filled slot keeps its value, and only its gone mark
// ever changes. Insertion and removal are amortised constant time, because a
// filter may carry one value or every client there is. Methods other than
// appendTo are for the writer; those that change the set return the one to
// publish, nil when it is empty.
type values[T comparable] struct {
	slots []slot[T]
	used  atomic.Int32 // slots filled; readers look no further
	marks atomic.Int32 // slots that were marked gone: counted before the mark is there
	live  int32        // of those, not gone
	index map[T]int32  // slot of each value, when there are too many to scan
}

// slot holds one value until it is removed and the set rebuilt.
type slot[T comparable] struct {
	value T
	gone  atomic.Bool
}

// valuesScanned is the size up to which a set is searched one by one and
// copied on every removal. It keeps the usual set, of one value, small.
const valuesScanned = 32

// appendTo appends the values to dst. A nil set is empty.
func (s *values[T]) appendTo(dst []T) []T {
	if s == nil {
		return dst
	}
	first, marks := len(dst), s.marks.Load()
	// used is read before any gone mark: a value that is removed and added
	// again in the meantime is then never taken twice.
	slots := s.slots[:s.used.Load()]
	for i := range slots {
		if !slots[i].gone.Load() {
			dst = append(dst, slots[i].value)
		}
	}
	if s.marks.Load() == marks {
		return dst
	}
	return s.appendNewer(dst, first, len(slots))
}

// appendNewer appends the values that came behind the slots that were looked
// at: one of those may have been removed for the sake of a newer, and who looks
// for both must find one of them. What was found already begins at first.
func (s *values[T]) appendNewer(dst []T, first, at int) []T {
	for used := int(s.used.Load()); at < used; used = int(s.used.Load()) {
		for ; at < used; at++ {
			if x := &s.slots[at]; !x.gone.Load() && !slices.Contains(dst[first:], x.value) {
				dst = append(dst, x.value)
			}
		}
	}
	return dst
}

// with adds v; ok is false if it is there already.
func (s *values[T]) with(v T) (next *values[T], ok bool) {
	switch {
	case s == nil:
		s = &values[T]{slots: make([]slot[T], 1)}
	case s.find(v) >= 0:
		return s, false
	case int(s.used.Load()) == len(s.slots):
		s = s.rebuilt(2 * s.live)
	}
	i := s.used.Load()
	s.slots[i].value = v
	if s.index != nil {
		s.index[v] = i
	}
	s.live++
	s.used.Store(i + 1)
	return s, true
}

// without removes v; ok is false if it is not there. The set forgets removed
// values by the time it has lost half of them.
func (s *values[T]) without(v T) (next *values[T], ok bool) {
	if s == nil {
		return nil, false
	}
	i := s.find(v)
	if i < 0 {
		return s, false
	}
	s.marks.Add(1)
	s.slots[i].gone.Store(true)
	s.live--
	delete(s.index, v)
	switch used := s.used.Load(); {
	case s.live == 0:
		return nil, true
	case used <= valuesScanned || s.live <= used/2:
		return s.rebuilt(s.live), true
	}
	return s, true
}

// find returns the slot of v, or -1.
func (s *values[T]) find(v T) int32 {
	if s.index != nil {
		if i, ok := s.index[v]; ok {
			return i
		}
		return -1
	}
	for i := range s.slots[:s.used.Load()] { // none is gone in a set that small
		if s.slots[i].value == v {
			return int32(i)
		}
	}
	return -1
}

// rebuilt returns a set of the live values with the given number of slots. It
// takes over the index, so s is not changed any more.
func (s *values[T]) rebuilt(capacity int32) *values[T] {
	next := &values[T]{slots: make([]slot[T], capacity), live: s.live}
	if capacity > valuesScanned {
		next.index = s.index
		if next.index == nil {
			next.index = make(map[T]int32, capacity)
		}
	}
	n := int32(0)
	for i := range s.slots[:s.used.Load()] {
		if s.slots[i].gone.Load() {
			continue
		}
		next.slots[n].value = s.slots[i].value
		if next.index != nil {
			next.index[s.slots[i].value] = n
		}
		n++
	}
	next.used.Store(n)
	return next
}
