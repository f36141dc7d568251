package local

import (
	"context"
	"sync"

	"millrace/persistence/journal"
)

// wal is what the store needs of a journal. *journal.Journal is one; memLog
// stands in for it where nothing is kept.
type wal interface {
	Lock() error
	Reserve(n int) error
	ReserveGrowth(n int) error
	Start(typ byte) []byte
	End(body []byte, more bool) (journal.Position, uint32)
	Unlock(l journal.Level, c journal.Completion)
	Close(ctx context.Context) error
}

// memLog is a log without records: a lock, and completions in order from a
// goroutine of its own.
type memLog struct {
	append sync.Mutex // Lock to Unlock
	shut   bool       // under append: Lock refuses

	mu     sync.Mutex
	queued []journal.Completion
	closed bool
	kick   chan struct{} // holds one
	done   chan struct{}
}

func newMemLog() *memLog {
	m := &memLog{kick: make(chan struct{}, 1), done: make(chan struct{})}
	go m.run()
	return m
}

// Lock takes the append lock.
func (m *memLog) Lock() error {
	m.append.Lock()
	if m.shut {
		m.append.Unlock()
		return journal.ErrClosed
	}
	return nil
}

// Unlock gives the append lock back, and c its turn.
func (m *memLog) Unlock(_ journal.Level, c journal.Completion) {
	m.mu.Lock()
	m.queued = append(m.queued, c)
	first := len(m.queued) == 1
	m.mu.Unlock()
	m.append.Unlock()
	if first {
		select {
		case m.kick <- struct{}{}:
		default:
		}
	}
}

// run calls the completions.
func (m *memLog) run() {
	defer close(m.done)
	var list []journal.Completion
	for {
		m.mu.Lock()
		list, m.queued = m.queued, list[:0]
		closed := m.closed
		m.mu.Unlock()
		for i, c := range list {
			if c != nil {
				c.Done(nil)
			}
			list[i] = nil
		}
		if len(list) == 0 {
			if closed {
				return
			}
			<-m.kick
		}
	}
}

// Close ends the goroutine when all completions were called.
func (m *memLog) Close(ctx context.Context) error {
	m.append.Lock()
	m.shut = true
	m.append.Unlock()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Nothing is ever written: everything in a store without a journal is volatile.

// Reserve is never called.
func (m *memLog) Reserve(int) error { return nil }

// ReserveGrowth is never called.
func (m *memLog) ReserveGrowth(int) error { return nil }

// Start is never called.
func (m *memLog) Start(byte) []byte { return nil }

// End is never called.
func (m *memLog) End([]byte, bool) (journal.Position, uint32) { return 0, 0 }
