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

// Fail ends the work of s, as what another node wrote does.
func (s *Store) Fail(err error) { s.fail(err) }

// Landed finds out whether a record of a subscription is there, whose write was refused.
func (s *Store) Landed(key, value string) error {
	return s.subs.landed(context.Background(), &put{key: key, value: []byte(value)})
}

// Calls are those of a store, without one.
type Calls struct{ *calls }

// NewCalls returns calls over nc.
func NewCalls(nc *nats.Conn) (Calls, error) {
	c, err := newCalls(nc)
	return Calls{c}, err
}

// Start starts a call; done is told how it ended.
func (c Calls) Start(subject string, data []byte, done func(error)) {
	c.start(&call{subject: subject, data: data, done: func(_ *nats.Msg, err error) { done(err) }})
}

// Close ends what is under way.
func (c Calls) Close() { c.close() }

// Elect has the store believe that its servers elect leaders.
func (s *Store) Elect() { s.marks.elects.Store(true) }

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
