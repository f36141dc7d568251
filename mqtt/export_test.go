package mqtt

import "net"

// Bare returns a Server without listeners and without the goroutine that looks
// at rights, for tests in fake time: real sockets hold it up.
func Bare(o Options) (*Server, error) {
	o.Listeners = []Listener{{}}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newServer(o)
	s.auth = o.Broker.Auth()
	s.mochi, err = newMochi(s)
	s.start()
	return s, err
}

// Serve takes a connection, of a client that may be anonymous.
func (s *Server) Serve(c net.Conn) { s.ServeAs(c, Listener{AllowAnonymous: true}) }

// ServeAs takes a connection as from the listener.
func (s *Server) ServeAs(c net.Conn, o Listener) {
	s.admit(c, &o, func(c *conn) error { return c.prepare(&o) })
}
