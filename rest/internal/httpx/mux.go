// Package httpx is what every REST dialect needs and no dialect owns: routing,
// bodies, strict JSON, answers, credentials, waiting. It knows HTTP and the
// broker's errors, and no dialect.
package httpx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
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
	// Covers lists the paths in the form of OpenAPI, when Path merges several.
	Covers []string
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
	Draining context.Context //nolint:containedctx // a signal to every request, as http.Server's base context
	Origins  []string        // that browsers may come from, besides our own host
	Panics   atomic.Int64    // requests that ended in one
}

// Mux routes the requests of one dialect.
type Mux struct {
	shared  *Shared
	dialect Dialect
	router  *httprouter.Router
	methods []string // in the order of Allow
}

// NewMux returns the handler of a dialect.
func NewMux(s *Shared, d Dialect) *Mux {
	m := &Mux{shared: s, dialect: d, router: httprouter.New()}
	for _, rt := range d.Routes {
		m.router.Handle(rt.Method, rt.Path, func(w http.ResponseWriter, _ *http.Request, ps httprouter.Params) {
			w.(*exchange).run(rt, ps)
		})
		if !slices.Contains(m.methods, rt.Method) {
			m.methods = append(m.methods, rt.Method)
		}
	}
	slices.Sort(m.methods)
	return m
}

// Routes returns the table, for tests that compare it with a document.
func (m *Mux) Routes() []Route { return m.dialect.Routes }

// exchange is one request with its answer, in the form that httprouter passes on.
type exchange struct {
	Recorder
	Request Request
	mux     *Mux
}

// ServeHTTP routes on the path as it was sent, so that an escaped slash stays
// inside its parameter and doubled ones survive.
func (m *Mux) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	x := &exchange{mux: m}
	x.Recorder = Recorder{ResponseWriter: w, ID: requestID(w, req), Start: time.Now()}
	x.Request = Request{Request: req, shared: m.shared, ctx: req.Context(), answer: &x.Recorder}
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

// find also answers HEAD where there is a GET and no HEAD of its own.
func (m *Mux) find(method, path string) (httprouter.Handle, httprouter.Params) {
	handle, params, _ := m.router.Lookup(method, path)
	if handle == nil && method == http.MethodHead {
		handle, params, _ = m.router.Lookup(http.MethodGet, path)
	}
	return handle, params
}

// run authenticates and calls the handler.
func (x *exchange) run(rt Route, ps httprouter.Params) {
	r := &x.Request
	_, raw, _ := strings.Cut(rt.Path, "*")
	for i, p := range ps {
		if p.Key == raw {
			continue
		}
		v, err := Unescape(p.Value)
		if err != nil {
			x.fail(err)
			return
		}
		ps[i].Value = v
	}
	r.params = ps
	if x.mux.dialect.Authenticate != nil {
		p, err := x.mux.dialect.Authenticate(r)
		if err != nil {
			x.fail(err)
			return
		}
		r.identify(p)
	}
	if err := rt.Handler(&x.Recorder, r); err != nil {
		x.fail(err)
	}
}

// unrouted answers OPTIONS, and a path or a method that is not there.
func (x *exchange) unrouted(path string) {
	allow := x.mux.allowed(path)
	if len(allow) == 0 && x.Request.Method != http.MethodConnect {
		x.fail(ErrNoRoute)
		return
	}
	x.Header().Set("Allow", strings.Join(append(allow, http.MethodOptions), ", "))
	if x.Request.Method == http.MethodOptions {
		preflight(x.Header(), x.Request.Request)
		x.WriteHeader(http.StatusNoContent)
		return
	}
	x.fail(&StatusError{Status: http.StatusMethodNotAllowed, Message: fmt.Sprintf("method %s is not allowed here", x.Request.Method)})
}

// allowed lists the methods of a path.
func (m *Mux) allowed(path string) (allow []string) {
	for _, method := range m.methods {
		if h, _, _ := m.router.Lookup(method, path); h == nil {
			continue
		}
		if allow = append(allow, method); method == http.MethodGet && !slices.Contains(allow, http.MethodHead) {
			allow = append(allow, http.MethodHead)
		}
	}
	return allow
}

// fail has the dialect write err, and logs what is our own fault.
func (x *exchange) fail(err error) {
	r := &x.Request
	if _, known := errors.AsType[*StatusError](err); !known && broker.KindOf(err) == broker.Internal && r.ctx.Err() == nil {
		x.mux.shared.Log.Error().Err(err).Str("request_id", r.ID()).Str("method", r.Method).Str("path", Clip(r.URL.EscapedPath())).Msg("request failed")
	}
	if x.Status != 0 { // too late for another answer; the client sees a broken one
		panic(http.ErrAbortHandler)
	}
	x.mux.dialect.RenderError(&x.Recorder, r, err)
}

// log is the access log.
func (x *exchange) log() {
	if e := x.mux.shared.Log.Debug(); e.Enabled() {
		e.Str("request_id", x.ID).Str("dialect", x.mux.dialect.Name).Str("remote", x.Request.RemoteAddr).Str("method", x.Request.Method).
			Str("path", Clip(x.Request.URL.EscapedPath())).Int("status", x.Status).Int64("bytes", x.Bytes).
			Dur("took", time.Since(x.Start)).Msg("request answered")
	}
}

// end turns a panic into a 500, and gives the buffers back.
func (x *exchange) end() {
	v := recover()
	if v == nil {
		x.log()
		x.Request.release()
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it like this too
		panic(v)
	}
	x.mux.shared.Panics.Add(1)
	x.mux.shared.Log.Error().Str("request_id", x.ID).Str("method", x.Request.Method).Str("path", Clip(x.Request.URL.EscapedPath())).
		Str("panic", Clip(fmt.Sprint(v))).Bytes("stack", debug.Stack()).Msg("request panicked")
	if x.Status != 0 {
		panic(http.ErrAbortHandler)
	}
	x.mux.dialect.RenderError(&x.Recorder, &x.Request, errPanic)
}

var errPanic = &broker.Error{Kind: broker.Internal, Message: "the request panicked"}

// Clip cuts a client's text to what a log field may hold.
func Clip(s string) string {
	const maxLogged = 256
	return s[:min(len(s), maxLogged)]
}
