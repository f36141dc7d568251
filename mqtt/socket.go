package mqtt

import (
	"fmt"
	"net"
	"sync"
)

// socket is a listener of Options with what is open for it.
type socket struct {
	o  *Listener
	at net.Addr // where it listened first, and does again after a stop

	mu sync.Mutex
	l  net.Listener // nil while it is stopped
}

// ListenerState is a listener as operators see it.
type ListenerState struct {
	ID          string // TYPE:NAME
	Type        string // tcp, ssl, ws, wss or unix
	Name        string
	Address     string
	Running     bool
	Connections int
}

// Listeners describes the listeners in the order of Options.Listeners.
func (s *Server) Listeners() []ListenerState {
	count := map[string]int{}
	s.mu.Lock()
	for c := range s.all {
		count[c.listener]++
	}
	s.mu.Unlock()
	all := make([]ListenerState, len(s.sockets))
	for i, k := range s.sockets {
		id := k.o.id()
		kind := k.o.kind()
		all[i] = ListenerState{ID: id, Type: kind, Name: id[len(kind)+1:], Address: k.at.String(), Running: k.open() != nil, Connections: count[id]}
	}
	return all
}

func (k *socket) open() net.Listener {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.l
}

// close closes what is open, if anything is.
func (k *socket) close() error {
	k.mu.Lock()
	l := k.l
	k.l = nil
	k.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.Close()
}

// StopListener closes a listener; its connections go on. It does nothing to one
// that is stopped.
func (s *Server) StopListener(id string) error {
	k, err := s.socket(id)
	if err != nil {
		return err
	}
	if err := k.close(); err != nil {
		return fmt.Errorf("mqtt: close %s: %w", id, err)
	}
	s.log.Info().Str("listener", id).Msg("mqtt listener stopped")
	return nil
}

// StartListener opens a listener that was stopped, at the address that it had.
func (s *Server) StartListener(id string) error {
	k, err := s.socket(id)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.l != nil {
		return nil
	}
	o := *k.o
	if !o.unix() {
		o.Address = k.at.String()
	}
	l, err := o.listen()
	if err != nil {
		return fmt.Errorf("mqtt: listen on %s: %w", o.Address, err)
	}
	s.mu.Lock()
	closing := s.closing
	if !closing {
		s.accepting.Go(func() { s.accept(l, k.o) })
	}
	s.mu.Unlock()
	if closing {
		return l.Close()
	}
	k.l = l
	s.log.Info().Str("listener", id).Msg("mqtt listener started")
	return nil
}

func (s *Server) socket(id string) (*socket, error) {
	for _, k := range s.sockets {
		if k.o.id() == id {
			return k, nil
		}
	}
	return nil, fmt.Errorf("mqtt: there is no listener %q", id)
}
