// Package rest serves HTTP: it owns the listeners and hands each request to
// the dialect whose path it has. The dialects are packages below; they share
// nothing but rest/internal/httpx.
package rest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/rest/emqx"
	"millrace/rest/fastqueue"
	"millrace/rest/internal/httpx"
	"millrace/rest/pulsar"
)

// Listener is an address and what is served there. One with a single dialect
// is that dialect's own: it also answers what is no dialect's path.
type Listener struct {
	Name     string // for the log and Addr
	Address  string
	TLS      *tls.Config // nil = plain HTTP; its NextProtos say whether HTTP/2 is offered
	Dialects []Dialect
	// Sockets wraps the listener of the plain connections below TLS; nil = it stays as it is.
	Sockets func(net.Listener) net.Listener
}

// Bodies are the limits of request bodies in bytes, by what they hold.
type Bodies = httpx.Bodies

// Options configure a Server.
type Options struct {
	Broker    *broker.Broker // required
	Log       zerolog.Logger
	Listeners []Listener
	// Bodies are the limits of request bodies.
	Bodies Bodies
	// Identity names the user of a client's verified certificate; nil = none.
	Identity func(tls.ConnectionState) (string, error)
	// HSTS is how long browsers are told to use nothing but TLS; 0 = not told.
	HSTS time.Duration
	// MaxNewcomers bounds the connections of a listener that have sent no request
	// yet: beyond it the oldest is closed; default 4,096.
	MaxNewcomers int
	// Origins are those that browsers may send requests from, besides our own.
	Origins   []string
	FastQueue fastqueue.Options
	Pulsar    pulsar.Options
	EMQX      emqx.Options
	// Mounts are handlers of other protocols at exact paths of every listener
	// that serves more than one dialect: MQTT over WebSocket.
	Mounts map[string]http.Handler
	// MemfifoOpen has the memfifo dialect ask nobody for credentials.
	MemfifoOpen bool
	// Metrics answers GET /metrics on every listener, from this machine and to
	// whoever may view the server; nil = there is none.
	Metrics http.Handler
	// Notice is told in the header Millrace-Notice of every answer; "" = not.
	Notice string
}

// The limits of a connection. net/http adds 4 KiB of its own to the headers,
// which makes 16. The write timeout covers the longest wait for messages;
// httpx shortens it once an answer begins.
const (
	headerTimeout   = 5 * time.Second
	quietTime       = 250 * time.Millisecond
	idleTimeout     = 3 * time.Minute
	writeTimeout    = 80 * time.Second
	maxHeaderBytes  = 12 << 10
	maxHTTP2Streams = 100
)

// Server serves all listeners.
type Server struct {
	options Options
	shared  *httpx.Shared
	drain   context.CancelFunc
	open    []*endpoint
}

// endpoint is a listener that is bound.
type endpoint struct {
	Listener
	bound net.Listener
	http  *http.Server
	// quiet are the connections without a request yet.
	quiet *newcomers
}

// Listen binds every address, or none. Serve must follow.
func Listen(ctx context.Context, o Options) (*Server, error) {
	draining, drain := context.WithCancel(context.Background())
	s := &Server{
		options: o, drain: drain,
		shared: &httpx.Shared{Log: o.Log, Auth: o.Broker.Auth(), Draining: draining, Bodies: o.Bodies, Identity: o.Identity, Origins: o.Origins},
	}
	dialects := map[Dialect]http.Handler{}
	for _, l := range o.Listeners {
		for _, d := range l.Dialects {
			if dialects[d] == nil {
				dialects[d] = d.open(&o, s.shared) //nolint:contextcheck // requests bring their own
			}
		}
	}
	ops := newOps(&o, s.shared)
	for _, l := range o.Listeners {
		var config net.ListenConfig
		bound, err := config.Listen(ctx, "tcp", l.Address)
		if err != nil {
			for _, e := range s.open {
				_ = e.bound.Close() // the first error counts
			}
			drain()
			return nil, fmt.Errorf("listen on %s for %s: %w", l.Address, l.Name, err)
		}
		if l.Sockets != nil {
			bound = l.Sockets(bound)
		}
		bound = &inspecting{bound, l.TLS, o.Log.With().Str("listener", l.Name).Logger()}
		quiet := newNewcomers(cmp.Or(o.MaxNewcomers, 4096))
		s.open = append(s.open, &endpoint{l, bound, s.httpServer(newRouter(o, l, dialects, ops, s.shared), l, quiet), quiet})
	}
	return s, nil
}

func (s *Server) httpServer(h http.Handler, l Listener, quiet *newcomers) *http.Server {
	var speaks http.Protocols
	speaks.SetHTTP1(true)
	// HTTP/2 is agreed upon in the handshake, which is below net/http here.
	speaks.SetUnencryptedHTTP2(l.TLS != nil)
	return &http.Server{
		Handler:           h,
		Protocols:         &speaks,
		ConnContext:       withConn,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxHTTP2Streams},
		ConnState:         quiet.track,
		ErrorLog:          errorLog(s.options.Log, l.Name),
	}
}

// RouteStats are the answers of one route of one dialect.
type RouteStats = httpx.RouteStats

// Stats returns the answers of every route that was ever asked.
func (s *Server) Stats() []RouteStats { return s.shared.Stats() }

// Panics is how many requests ended in a fault of ours.
func (s *Server) Panics() int64 { return s.shared.Panics.Load() }

// Addr returns where the listener of that name listens, nil when there is none.
func (s *Server) Addr(name string) net.Addr {
	for _, e := range s.open {
		if e.Name == name {
			return e.bound.Addr()
		}
	}
	return nil
}

// Serve answers requests until Close, or until a listener fails.
func (s *Server) Serve() error {
	errs := make([]error, len(s.open))
	var wait sync.WaitGroup
	for i, e := range s.open {
		log := s.options.Log.Info().Str("listener", e.Name).Str("address", e.bound.Addr().String())
		log.Bool("tls", e.TLS != nil).Msg("http listens")
		wait.Go(func() {
			if errs[i] = e.serve(); errs[i] != nil {
				s.closeAll() // one promise for all listeners
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (e *endpoint) serve() error {
	err := e.http.Serve(e.bound)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", e.Name, err)
}

// Drain turns readiness off and answers the waits for messages with what there
// is, new ones at once. Everything else goes on.
func (s *Server) Drain() { s.drain() }

// Close drains, stops to accept, and waits for the handlers until ctx ends;
// then it breaks off what is left. A connection that has no request yet gets
// quietTime for one: net/http alone would wait five seconds, which a client costs
// us that opened one too many.
func (s *Server) Close(ctx context.Context) error {
	s.drain()
	errs := make([]error, len(s.open))
	var wait sync.WaitGroup
	for i, e := range s.open {
		wait.Go(func() {
			defer time.AfterFunc(quietTime, e.quiet.dismiss).Stop()
			if errs[i] = e.http.Shutdown(ctx); errs[i] != nil {
				_ = e.http.Close() // Shutdown's error says that it was needed
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (s *Server) closeAll() {
	for _, e := range s.open {
		_ = e.http.Close() // the error that led here counts
	}
}
