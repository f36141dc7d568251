package mqtt

import (
	"net"

	"millrace/broker"
	"millrace/broker/alarms"
	"millrace/broker/clients"
)

// Bare returns a Server without listeners, for tests in fake time: real sockets
// hold it up.
func Bare(o Options) (*Server, error) {
	o.Listeners = []Listener{{}}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newServer(o)
	s.auth = o.Broker.Auth()
	s.start()
	return s, nil
}

// Serve takes a connection, of a client that may be anonymous.
func (s *Server) Serve(c net.Conn) { s.ServeAs(c, Listener{AllowAnonymous: true}) }

// TakeAgain has what was sent to a client come once more, as from another node that leads
// and does not know that.
func (s *Server) TakeAgain(id string, ds []broker.Delivery) {
	s.mu.Lock()
	c := s.clients[id]
	s.mu.Unlock()
	sink{c.session}.Take(ds)
}

// Registry is the index of clients.
func (s *Server) Registry() *clients.Registry { return s.o.Clients }

// Alarms is the book of alarms.
func (s *Server) Alarms() *alarms.Book { return s.o.Alarms }
