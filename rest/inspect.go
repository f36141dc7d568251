package rest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
)

// inspector looks at the bytes of a connection before net/http reads them. It
// returns how many are good; after an error there are no more.
type inspector interface {
	take(b []byte) (good int, err error)
}

// inspecting is a listener whose connections are inspected. It answers for TLS:
// net/http reads its own TLS connections by itself, and nobody could look.
type inspecting struct {
	net.Listener
	tls *tls.Config // nil = plain HTTP
	log zerolog.Logger
}

// Accept leaves the handshake to the first read, which has the connection's
// goroutine and the deadline for headers.
func (l *inspecting) Accept() (net.Conn, error) {
	sock, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &inspected{Conn: sock, log: l.log, in: &framing{}}
	if l.tls != nil {
		c.tls = tls.Server(sock, l.tls)
		c.Conn, c.in = c.tls, nil
	}
	return c, nil
}

// inspected is a connection of an inspecting listener.
type inspected struct {
	net.Conn
	tls   *tls.Conn            // nil = plain
	state *tls.ConnectionState // after the handshake
	in    inspector            // nil before it
	ended error
	log   zerolog.Logger
}

// Read returns what is good. One goroutine reads at a time, which is net/http's rule.
func (c *inspected) Read(p []byte) (int, error) {
	if c.ended != nil {
		return 0, c.ended
	}
	if c.in == nil {
		if c.ended = c.handshake(); c.ended != nil {
			return 0, c.ended
		}
	}
	n, err := c.Conn.Read(p)
	good, fault := c.in.take(p[:n])
	if fault == nil {
		return n, err
	}
	c.ended = fault
	c.log.Debug().Str("remote", c.RemoteAddr().String()).Err(fault).Msg("connection refused")
	if good > 0 {
		return good, nil
	}
	return 0, fault
}

// handshake chooses the inspector of what was agreed upon.
func (c *inspected) handshake() error {
	if err := c.tls.Handshake(); err != nil { //nolint:noctx // the connection has a deadline
		c.log.Debug().Str("remote", c.RemoteAddr().String()).Err(err).Msg("TLS handshake failed")
		if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && e.Conn != nil {
			// An error is nothing new: the client is no client of TLS.
			_, _ = io.WriteString(e.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks TLS: use https.\n")
		}
		return io.EOF // to net/http: there is nobody to answer
	}
	state := c.tls.ConnectionState()
	c.state, c.in = &state, &framing{}
	if state.NegotiatedProtocol == "h2" {
		c.in = newFrames(time.Now)
	}
	return nil
}

// CloseWrite has net/http's answers to bad requests arrive before the end.
func (c *inspected) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

type inspectedKey struct{}

// withConn is an http.Server's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, inspectedKey{}, c)
}

// showTLS gives a request the state of its connection: net/http takes our
// connections for plain ones.
func showTLS(r *http.Request) {
	if c, ok := r.Context().Value(inspectedKey{}).(*inspected); ok {
		r.TLS = c.state
	}
}

// bare gives a mount that takes the connection over the one below: what
// follows is no HTTP.
type bare struct{ http.ResponseWriter }

// Hijack is http.Hijacker's.
func (b bare) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(b.ResponseWriter).Hijack()
	if below, ok := c.(*inspected); ok {
		c = below.Conn
	}
	return c, buffered, err
}
