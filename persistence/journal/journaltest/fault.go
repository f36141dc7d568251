package journaltest

import (
	"strings"
	"sync"

	"millrace/persistence/journal"
)

// Fault makes operations fail.
type Fault struct {
	Kind    Kind          // empty = every kind
	Match   func(Op) bool // nil = every name
	At      int           // the n-th matching operation from now on, from 1
	Forever bool          // and all after it
	Err     error         // what they return
	Short   bool          // a write leaves half of its bytes behind first
	seen    int
}

// FaultFS fails operations of another file system.
type FaultFS struct {
	journal.FS
	mu     sync.Mutex
	faults []*Fault
	counts map[Kind]int
	fired  int
}

// NewFaultFS wraps fs; nothing fails yet.
func NewFaultFS(fs journal.FS) *FaultFS {
	f := &FaultFS{counts: map[Kind]int{}}
	f.FS = Watch(fs, f.do)
	return f
}

// Fail adds a fault.
func (f *FaultFS) Fail(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// Heal removes all faults.
func (f *FaultFS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Fired is how many operations were made to fail.
func (f *FaultFS) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Count is how many operations of a kind there were.
func (f *FaultFS) Count(kind Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[kind]
}

func (f *FaultFS) do(op Op, run func() error) error {
	if err := f.check(op); err != nil {
		return err
	}
	return run()
}

func (f *FaultFS) check(op Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[op.Kind]++
	var err error
	for _, x := range f.faults {
		if x.Kind != "" && x.Kind != op.Kind || x.Match != nil && !x.Match(op) {
			continue
		}
		x.seen++
		if x.seen != x.At && (!x.Forever || x.seen < x.At) {
			continue
		}
		err = x.Err
		if x.Short && op.Kind == Write {
			err = &shortWriteError{x.Err}
		}
	}
	if err != nil {
		f.fired++
	}
	return err
}

// InLog reports whether the operation is on a segment of the log, and not on a
// file that is being prepared.
func InLog(op Op) bool { return strings.HasSuffix(op.Name, ".seg") }

// shortWriteError makes a write leave half of its bytes behind.
type shortWriteError struct{ err error }

func (s *shortWriteError) Error() string { return s.err.Error() }

func (s *shortWriteError) part(bufs [][]byte) [][]byte {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	n /= 2
	var part [][]byte
	for _, b := range bufs {
		part = append(part, b[:min(n, len(b))])
		n -= min(n, len(b))
	}
	return part
}
