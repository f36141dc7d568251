package mqtt

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Where there are other nodes for the clients to go to, connections are ended
// drainRate a second, or as many more as have to be so that half of the time is left
// for their commits: those nodes have to take them.
const (
	drainRate = 500
	drainStep = 20 * time.Millisecond
)

// Close drains: it accepts nothing more, reads nothing more, waits for the
// commits under way and their acks, tells clients of MQTT 5 that the server is
// shutting down (0x8B), or to use another node where there is one (0x9C), and
// closes. Wills are sent after the next start, unless the client came back by then.
// When ctx ends first, what is left is cut off and ctx's error returned. The broker
// must still work.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	s.draining = ctx
	s.endGraces()
	s.mu.Unlock()
	close(s.stopped)
	err := s.closeListeners()
	s.accepting.Wait()
	s.endAll(ctx)
	ended := make(chan struct{})
	go func() { // ends with the connections, which Close has told to end
		s.conns.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		s.keeper.close()
		s.events.close()
		return err
	case <-ctx.Done():
	}
	for _, c := range s.open() {
		_ = c.Conn.Close() // the drain failed already
	}
	s.keeper.close()
	s.events.close()
	return errors.Join(err, ctx.Err())
}

// endAll tells every connection to end.
func (s *Server) endAll(ctx context.Context) {
	all := s.open()
	f, step := &faultError{shuttingDown, "server is shutting down", closeServer}, len(all)
	if others := s.o.Broker.Nodes(); len(others) > 1 {
		f = &faultError{useAnother, "server is shutting down; other nodes are there", closeServer}
		var at []string
		for _, n := range others {
			if n.Name != s.o.Broker.Self() && n.MQTT != "" {
				at = append(at, n.MQTT)
			}
		}
		s.elsewhere = strings.Join(at, " ")
		step = drainRate * int(drainStep) / int(time.Second)
		if end, ok := ctx.Deadline(); ok {
			steps := max(1, int(time.Until(end)/2/drainStep))
			step = max(step, (len(all)+steps-1)/steps)
		}
	}
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	for i, c := range all {
		if i > 0 && i%step == 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		c.wmu.Lock()
		c.drained = true
		c.wmu.Unlock()
		c.end(f)
	}
}
