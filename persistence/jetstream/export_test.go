package jetstream

import (
	"context"

	"github.com/nats-io/nats.go"
)

// Crash ends the process of s, as far as the servers and its prefix can tell:
// nothing is written, and nobody is told.
func (s *Store) Crash() {
	s.stop()
	s.nc.Close()
}

// Ask sends a request as the store does, and returns what became of it.
func Ask(nc *nats.Conn, subject string) error {
	c, err := newCalls(nc)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.wait(context.Background(), subject, nil, nil)
	return err
}

// Ahead is by how much a server's time differs from ours.
var Ahead = ahead

// ReadOfLog is how many messages the tail of the log of sessions has brought since it
// began: at a start those that are in no book.
func (s *Store) ReadOfLog() uint64 {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	return s.sessions.tail.next - 1
}

// Pages of the log of sessions: how many sequences each has.
const LogPage = logPage
