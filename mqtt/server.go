package mqtt

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"millrace/broker/auth"

	"github.com/rs/zerolog"
)

// Server is the MQTT edge of a broker.
type Server struct {
	o        Options
	limits   atomic.Pointer[Limits] // as they are now
	log      zerolog.Logger
	auth     *auth.Auth
	stats    counters
	events   events
	rivals   rivals
	pace     *pace
	refusals refusals
	// sniffed is when a foreign protocol was logged last, Unix seconds.
	sniffed atomic.Int64

	sockets   []*socket
	accepting sync.WaitGroup // accept and review
	keeper    keeper
	conns     sync.WaitGroup
	stopped   chan struct{}   // closed when no connection is accepted any more
	draining  context.Context // set by Close before it stops a connection
	elsewhere string          // where clients are sent then: addresses of other nodes, in the form of a server reference

	mu         sync.Mutex
	closing    bool
	serial     uint64
	clients    map[string]*conn  // after login, by client id
	groups     map[string]*group // by filter
	all        map[*conn]struct{}
	addresses  map[string]int
	identities map[string]int // by principal
	waiting    *list.List     // of *conn before CONNECT, oldest first
	graces     map[string]*grace
}

// Listen opens every listener of o and begins to serve. On an error nothing
// stays open.
func Listen(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newServer(o)
	s.auth = o.Broker.Auth()
	for i := range o.Listeners {
		lo := &o.Listeners[i]
		l, err := lo.listen()
		if err != nil {
			_ = s.closeListeners() // the first error counts
			return nil, &ListenError{At: i, Address: lo.Address, Err: err}
		}
		s.sockets = append(s.sockets, &socket{o: lo, at: l.Addr(), l: l})
	}
	s.start()
	for _, k := range s.sockets {
		l := k.l
		s.accepting.Go(func() { s.accept(l, k.o) })
		s.log.Info().Str("listener", k.at.String()).Bool("tls", k.o.TLS != nil).
			Bool("websocket", k.o.WebSocket).Msg("mqtt listening")
	}
	return s, nil
}

func newServer(o Options) *Server {
	s := &Server{
		o: o, log: o.Log, stopped: make(chan struct{}),
		clients: map[string]*conn{}, groups: map[string]*group{}, all: map[*conn]struct{}{}, addresses: map[string]int{},
		identities: map[string]int{}, pace: newPace(o.AcceptRate),
		waiting: list.New(), graces: map[string]*grace{},
	}
	s.limits.Store(&o.Limits)
	return s
}

// start begins what goes on beside the connections.
func (s *Server) start() {
	seen := s.auth.Generation()
	s.accepting.Go(func() { s.review(seen) })
	s.listAway()
	s.keeper.start(s)
	s.meetNodes()
	s.events.start(s)
	s.rivals.from = s.o.RivalsFrom
	if s.o.SysInterval > 0 {
		s.accepting.Go(s.tell)
	}
}

// Addr is the address of the first listener.
func (s *Server) Addr() net.Addr { return s.sockets[0].at }

// Addrs are the addresses of all listeners, in the order of Options.Listeners.
func (s *Server) Addrs() []net.Addr {
	as := make([]net.Addr, len(s.sockets))
	for i, k := range s.sockets {
		as[i] = k.at
	}
	return as
}

func (s *Server) closeListeners() error {
	var errs []error
	for _, k := range s.sockets {
		if err := k.close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// open lists the connections of now.
func (s *Server) open() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := make([]*conn, 0, len(s.all))
	for c := range s.all {
		cs = append(cs, c)
	}
	return cs
}
