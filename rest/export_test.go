package rest

import "net"

// ServeOn serves the first listener's handler on l, for tests in fake time.
func (s *Server) ServeOn(l net.Listener) error { return s.open[0].http.Serve(l) }

// MaxNewcomers is the bound on connections without a request.
const MaxNewcomers = maxNewcomers
