package local

import (
	"path/filepath"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
)

// PartSpare is how many parts that nobody waits for are kept at least.
const PartSpare = partSpare

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
	s.upkeep.mu.Lock() // as tidy: no checkpoint may come between a copy and its readers
	defer s.upkeep.mu.Unlock()
	return true, s.copyStreams(n - 1)
}

// Tidy does what is done when a segment is full.
func (s *Store) Tidy() { s.tidy() }

// Checkpoint writes a checkpoint.
func (s *Store) Checkpoint() error { return s.checkpoint() }

// Moved is how many messages compaction has moved.
func (s *Store) Moved() int64 { return s.upkeep.moved.Load() }

// Pause is how long a checkpoint held a queue at most.
func (s *Store) Pause() time.Duration { return s.ckpts.wait }

// Parts is how many parts of a queue there are, and how many topics it knows.
func (s *Store) Parts(t broker.Target) (parts, topics int) {
	q, err := s.queueOf(t)
	if err != nil {
		return 0, 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.topics == nil {
		return 0, 0
	}
	return len(q.topics.parts), len(q.topics.numbers)
}

// Named is the target of a name.
func (s *Store) Named(kind broker.TargetKind, name string) broker.Target {
	s.targetMu.RLock()
	defer s.targetMu.RUnlock()
	return s.names[kind-broker.QueueTarget][name]
}

// Place is where the store keeps what it keeps; no file system if nowhere.
func (s *Store) Place() (journal.FS, string) {
	return s.files.fs, filepath.Dir(s.files.dir)
}

// Reclaim frees what nobody needs, and does nothing else of the upkeep.
func (s *Store) Reclaim() error {
	s.copyOutOf(s.sealed())
	return s.reclaim()
}
