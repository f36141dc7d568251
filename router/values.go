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
	first slot[T]      // most sets are of one value, and there are many of them
	used  atomic.Int32 // slots filled; readers look no further
	marks atomic.Int32 // slots that were marked gone: counted before the mark is there
	live  int32        // of those, not gone
	more  *more[T]     // nil: there is no room for another
}

// more is what a set of more than one value has.
type more[T comparable] struct {
	slots []slot[T]
	index map[T]int32 // slot of each value, when there are too many to scan
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
	used := s.used.Load()
	if used > 0 && !s.first.gone.Load() {
		dst = append(dst, s.first.value)
	}
	if used > 1 {
		slots := s.more.slots[:used-1]
		for i := range slots {
			if !slots[i].gone.Load() {
				dst = append(dst, slots[i].value)
			}
		}
	}
	if s.marks.Load() == marks {
		return dst
	}
	return s.appendNewer(dst, first, used)
}

// appendNewer appends the values that came behind the slots that were looked
// at: one of those may have been removed for the sake of a newer, and who looks
// for both must find one of them. What was found already begins at first.
func (s *values[T]) appendNewer(dst []T, first int, at int32) []T {
	for used := s.used.Load(); at < used; used = s.used.Load() {
		for ; at < used; at++ {
			if x := s.slot(at); !x.gone.Load() && !slices.Contains(dst[first:], x.value) {
				dst = append(dst, x.value)
			}
		}
	}
	return dst
}

// slot returns slot i.
func (s *values[T]) slot(i int32) *slot[T] {
	if i == 0 {
		return &s.first
	}
	return &s.more.slots[i-1]
}

// room is how many slots there are.
func (s *values[T]) room() int32 {
	if s.more == nil {
		return 1
	}
	return int32(len(s.more.slots)) + 1
}

// index returns where values are, or nil if they are to be searched.
func (s *values[T]) index() map[T]int32 {
	if s.more == nil {
		return nil
	}
	return s.more.index
}

// with adds v; ok is false if it is there already.
func (s *values[T]) with(v T) (next *values[T], ok bool) {
	switch {
	case s == nil:
		s = &values[T]{}
	case s.find(v) >= 0:
		return s, false
	case s.used.Load() == s.room():
		s = s.rebuilt(2 * s.live)
	}
	i := s.used.Load()
	s.slot(i).value = v
	if index := s.index(); index != nil {
		index[v] = i
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
	s.slot(i).gone.Store(true)
	s.live--
	delete(s.index(), v)
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
	if index := s.index(); index != nil {
		if i, ok := index[v]; ok {
			return i
		}
		return -1
	}
	for i := range s.used.Load() { // none is gone in a set that small
		if s.slot(i).value == v {
			return i
		}
	}
	return -1
}

// rebuilt returns a set of the live values with the given number of slots. It
// takes over the index, so s is not changed any more.
func (s *values[T]) rebuilt(capacity int32) *values[T] {
	next := &values[T]{live: s.live}
	if capacity > 1 {
		next.more = &more[T]{slots: make([]slot[T], capacity-1)}
	}
	if capacity > valuesScanned {
		if next.more.index = s.index(); next.more.index == nil {
			next.more.index = make(map[T]int32, capacity)
		}
	}
	n, index := int32(0), next.index()
	for i := range s.used.Load() {
		old := s.slot(i)
		if old.gone.Load() {
			continue
		}
		next.slot(n).value = old.value
		if index != nil {
			index[old.value] = n
		}
		n++
	}
	next.used.Store(n)
	return next
}
