package rest

import (
	"net"
	"time"
)

// ServeOn serves the first listener's handler on l, for tests in fake time.
func (s *Server) ServeOn(l net.Listener) error {
	return s.open[0].http.Serve(&inspecting{Listener: l, log: s.options.Log})
}

// MaxResets is how many streams of HTTP/2 a client may reset in a period.
const MaxResets = maxResets

// Framing follows requests, as every connection's does.
type Framing struct{ f framing }

// Take is what a connection asks of each piece that it reads.
func (f *Framing) Take(b []byte) (int, error) { return f.f.take(b) }

// BetweenRequests says that the next byte begins a request.
func (f *Framing) BetweenRequests() bool {
	return f.f.at == atStart && f.f.skip == 0 && f.f.size == 0
}

// NewFrames follows the frames of a connection of HTTP/2.
func NewFrames(now func() time.Time) interface{ Take([]byte) (int, error) } {
	return takesFrames{newFrames(now)}
}

type takesFrames struct{ *frames }

func (f takesFrames) Take(b []byte) (int, error) { return f.take(b) }
