package local

import (
	"errors"
	"fmt"
	"slices"
)

// Quiet reports whether everything noted is written and the writer sleeps.
func (s *Store) Quiet() bool {
	s.box.mu.Lock()
	alert := s.box.alert
	s.box.mu.Unlock()
	return !alert && s.journal.State().Pending == 0
}

// CopyStreams copies what sealed segments hold for streams, and reports whether
// there was a segment to copy from.
func (s *Store) CopyStreams() (bool, error) {
	n := s.journal.State().Durable.Segment()
	if n <= 1 {
		return false, nil
	}
	return true, s.copyStreams(n - 1)
}

// SameState takes the state of all streams, restores it, and compares.
func (s *Store) SameState() error {
	b := s.appendStreams(nil)
	n := newStore(Options{})
	for id, t := range s.targets {
		if t.st != nil {
			n.targets[id] = target{st: n.newStream(id, t.st.def, false)}
		}
	}
	f := fields{b: b}
	if n.restoreStreams(&f); f.bad || len(f.b) > 0 {
		return errors.New("the state is malformed")
	}
	for id, t := range s.targets {
		if t.st == nil {
			continue
		}
		for i, p := range t.st.parts {
			q := n.targets[id].st.parts[i]
			if p.first != q.first || p.end != q.end || p.copied != q.copied || p.clock != q.clock || len(p.chunks) != len(q.chunks) {
				return fmt.Errorf("partition %d is %+v, restored %+v", i, p, q)
			}
			for j, c := range p.chunks {
				d := q.chunks[j]
				if !slices.Equal(c.records(nil), d.records(nil)) || c.base != d.base || c.bytes != d.bytes || c.last != d.last {
					return fmt.Errorf("run %d of partition %d differs", j, i)
				}
			}
		}
	}
	for cut := range len(b) { // never a panic, nor an endless loop
		n := newStore(Options{})
		for id, t := range s.targets {
			if t.st != nil {
				n.targets[id] = target{st: n.newStream(id, t.st.def, false)}
			}
		}
		f := fields{b: b[:cut]}
		if n.restoreStreams(&f); !f.bad && cut > 0 {
			return fmt.Errorf("a state of %d bytes cut to %d is taken", len(b), cut)
		}
		if cut > 200 {
			break
		}
	}
	return nil
}
