// Package httpx is what every REST dialect needs and no dialect owns: routing,
// bodies, strict JSON, answers, credentials, waiting. It knows HTTP and the
// broker's errors, and no dialect.
package httpx

import (
	"context"
	"crypto/tls"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/julienschmidt/httprouter"
	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
)

// Handler answers a request, or returns the error for its dialect to write.
type Handler func(w http.ResponseWriter, r *Request) error

// Route is one entry of a dialect's table.
type Route struct {
	Method  string
	Path    string // httprouter's form, on the escaped path
	Handler Handler
	// Open asks for no credentials: who has none yet gets them there.
	Open bool
	// Covers lists the paths in the form of OpenAPI, when Path merges several.
	Covers []string
	// Unsafe is a GET that changes something: it is no answer to HEAD.
	Unsafe bool
}

// Dialect is what a Mux needs to speak one API.
type Dialect struct {
	Name   string
	Routes []Route
	// Authenticate says who asks; its error is answered, before the body is read.
	Authenticate func(r *Request) (*auth.Principal, error)
	// RenderError writes an error in the dialect's shape.
	RenderError func(w http.ResponseWriter, r *Request, err error)
}

// Shared is what a server hands to each of its dialects.
type Shared struct {
	Log      zerolog.Logger
	Auth     *auth.Auth      // whose rates hold for requests
	Draining context.Context //nolint:containedctx // a signal to every request, as http.Server's base context
	Bodies   Bodies
	// Identity names the user of a client's verified certificate, "" where it
	// showed none; nil where certificates are nobody's.
	Identity func(tls.ConnectionState) (string, error)
	Origins  []string     // that browsers may come from, besides our own host
	Panics   atomic.Int64 // requests that ended in one

	mu    sync.Mutex // protects muxes
	muxes []*Mux
}

// Mux routes the requests of one dialect.
type Mux struct {
	shared  *Shared
	dialect Dialect
	router  *httprouter.Router
	unsafe  *httprouter.Router
	methods []string // in the order of Allow
	meters  []meter  // of each route, and of what none took
}

// NewMux returns the handler of a dialect.
func NewMux(s *Shared, d Dialect) *Mux {
	m := &Mux{shared: s, dialect: d, router: httprouter.New(), unsafe: httprouter.New()}
	m.meters = make([]meter, len(d.Routes)+1)
	for i, rt := range d.Routes {
		handle := func(w http.ResponseWriter, _ *http.Request, ps httprouter.Params) {
			x := w.(*exchange)
			x.meter = &m.meters[i]
			x.run(rt, ps)
		}
		m.router.Handle(rt.Method, rt.Path, handle)
		if rt.Unsafe {
			m.unsafe.Handle(rt.Method, rt.Path, handle)
		}
		if !slices.Contains(m.methods, rt.Method) {
			m.methods = append(m.methods, rt.Method)
		}
	}
	slices.Sort(m.methods)
	s.join(m)
	return m
}

// Routes returns the table, for tests that compare it with a document.
func (m *Mux) Routes() []Route { return m.dialect.Routes }

// ServeHTTP routes on the path as it was sent, so that an escaped slash stays
// inside its parameter and doubled ones survive.
func (m *Mux) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	x := &exchange{mux: m, meter: &m.meters[len(m.meters)-1]}
	x.Recorder = Recorder{ResponseWriter: w, ID: requestID(w, req), Start: time.Now()}
	ctx := auth.WithRemote(req.Context(), req.RemoteAddr)
	if t, ok := traceOf(req.Header); ok {
		ctx = broker.WithTrace(ctx, t)
	}
	x.Request = Request{Request: req, shared: m.shared, ctx: ctx, answer: &x.Recorder}
	defer x.end()

	if err := m.shared.checkOrigin(w.Header(), req); err != nil {
		x.fail(err)
		return
	}
	path := req.URL.EscapedPath()
	handle, params := m.find(req.Method, path)
	if handle == nil {
		x.unrouted(path)
		return
	}
	handle(x, req, params)
}

// find also answers HEAD where there is a safe GET and no HEAD of its own.
func (m *Mux) find(method, path string) (httprouter.Handle, httprouter.Params) {
	handle, params, _ := m.router.Lookup(method, path)
	if handle == nil && method == http.MethodHead && m.safe(path) {
		handle, params, _ = m.router.Lookup(http.MethodGet, path)
	}
	return handle, params
}

// safe reports whether GET of a path changes nothing.
func (m *Mux) safe(path string) bool {
	handle, _, _ := m.unsafe.Lookup(http.MethodGet, path)
	return handle == nil
}

// allowed lists the methods of a path.
func (m *Mux) allowed(path string) (allow []string) {
	for _, method := range m.methods {
		if h, _, _ := m.router.Lookup(method, path); h == nil {
			continue
		}
		if allow = append(allow, method); method == http.MethodGet && m.safe(path) && !slices.Contains(allow, http.MethodHead) {
			allow = append(allow, http.MethodHead)
		}
	}
	return allow
}
