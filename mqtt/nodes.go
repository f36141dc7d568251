package mqtt

import (
	"context"
	"time"

	"millrace/broker"
)

// meetNodes has the broker tell what happens to clients on other nodes.
func (s *Server) meetNodes() {
	s.o.Broker.OnRelease(s.part, s.connectedElsewhere)
	s.o.Broker.OnShared(s.keeper.reopen)
}

// part ends the connection of a client whose session is not for this node any
// more, and returns when nothing of it is this connection's.
func (s *Server) part(ctx context.Context, id string, why broker.Parting) {
	s.mu.Lock()
	c := s.clients[id]
	s.mu.Unlock()
	if c == nil {
		return
	}
	if why == broker.CutOff {
		c.end(&faultError{serverBusy, "this node reaches no other node; connect to another one", closeServer})
	} else {
		s.stats.takenOver.Add(1)
		c.end(&faultError{takenOver, "client id connected to another node", closeTakenOver})
	}
	select {
	case <-c.left:
	case <-ctx.Done():
		return
	}
	if g := s.reclaim(id); g != nil { // its client is elsewhere
		s.giveUp(g)
	}
}

// connectedElsewhere ends a connection whose client has connected to another node
// since. Which of two is older is said by when they connected.
func (s *Server) connectedElsewhere(e broker.Elsewhere) {
	s.mu.Lock()
	c := s.clients[e.ClientID]
	older := c != nil && c.since < e.Since
	s.mu.Unlock()
	if older && c.who.String() == e.Identity {
		c.end(&faultError{takenOver, "client id connected to another node", closeTakenOver})
	}
}

// arrived counts a session that c took from another node, as a take-over.
func (s *Server) arrived(c *conn) {
	if s.fight(c, "") != noFight {
		s.o.Alarms.RaiseFor(rivalAlarm, "rival_clients", rivalText,
			map[string]any{"client_id": c.hello.id, "address": c.remote, "other_address": "on another node"})
	}
}

// fight counts a take-over by c, and logs the first of rivals.
func (s *Server) fight(c *conn, other string) fight {
	f := s.rivals.met(c.hello.id, time.Now())
	if f == fightBegins {
		s.log.Warn().Str("client", clip(c.hello.id)).Str("remote", c.remote).Str("other", other).
			Msg("two clients fight for one client id, or one connects again without end: give each an id of its own; their connects are slowed down")
	}
	return f
}
