package mqtt

import (
	"context"
	"errors"

	"millrace/broker"
)

// ErrNoClient is the answer to a kick of a client that has neither a connection
// nor a session.
var ErrNoClient = errors.New("mqtt: no client of that id")

// Kick ends the connection of a client, with 0x98 in MQTT 5, and its session
// with everything that waits in it. It returns when both are gone. A will is
// published, as after any end that is not the client's own.
func (s *Server) Kick(ctx context.Context, id string) error {
	s.mu.Lock()
	c := s.clients[id]
	s.mu.Unlock()
	if c == nil {
		return s.endSession(ctx, id, ErrNoClient)
	}
	c.kicked.Store(true)
	c.end(&faultError{administrative, "kicked", closeKicked})
	select {
	case <-c.left:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.endSession(ctx, id, nil) // of a connection that had ended by itself just then
}

// endSession ends a session that no connection holds, or returns none.
func (s *Server) endSession(ctx context.Context, id string, none error) error {
	err := s.o.Broker.EndSession(ctx, id)
	if broker.KindOf(err) == broker.NotFound {
		err = none
	}
	return err
}
