package httpx

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"millrace/broker"
	"millrace/broker/auth"
)

// exchange is one request with its answer, in the form that httprouter passes on.
type exchange struct {
	Recorder
	Request Request
	mux     *Mux
	meter   *meter
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
	if x.mux.dialect.Authenticate != nil && !rt.Open {
		p, err := x.mux.dialect.Authenticate(r)
		if err != nil {
			x.fail(err)
			return
		}
		r.identify(p)
		if err := x.mux.shared.Auth.Spend(r.ctx, p, auth.Usage{Requests: 1}); err != nil {
			x.fail(err)
			return
		}
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
	x.fail(notAllowed(&x.Request))
}

// NotAllowed is the answer to a method that a path does not have, for handlers
// that find it out themselves.
func NotAllowed(w http.ResponseWriter, r *Request, allow []string) error {
	w.Header().Set("Allow", strings.Join(append(allow, http.MethodOptions), ", "))
	return notAllowed(r)
}

func notAllowed(r *Request) error {
	return &StatusError{Status: http.StatusMethodNotAllowed, Message: fmt.Sprintf("method %s is not allowed here", r.Method)}
}

// fail has the dialect write err, and logs what is our own fault.
func (x *exchange) fail(err error) {
	r := &x.Request
	if over, ok := errors.AsType[*auth.RateError](err); ok {
		x.Header().Set("Retry-After", seconds(over.Retry))
		err = &StatusError{Status: http.StatusTooManyRequests, Message: over.Error()}
	}
	late := x.Status != 0
	if !late {
		x.mux.dialect.RenderError(&x.Recorder, r, err)
	}
	if _, known := errors.AsType[*StatusError](err); !known && (late || x.Status >= http.StatusInternalServerError) && broker.KindOf(err) == broker.Internal && r.ctx.Err() == nil {
		x.mux.shared.Log.Error().Err(err).Str("request_id", r.ID()).Str("method", r.Method).Str("path", Clip(r.URL.EscapedPath())).Msg("request failed")
	}
	if late { // too late for another answer; the client sees a broken one
		panic(http.ErrAbortHandler)
	}
}

// log is the access log.
func (x *exchange) log() {
	if e := x.mux.shared.Log.Debug(); e.Enabled() {
		if x.Request.client != "" {
			e.Str("client", x.Request.client)
		}
		e.Str("request_id", x.ID).Str("dialect", x.mux.dialect.Name).Str("remote", x.Request.RemoteAddr).Str("method", x.Request.Method).
			Str("path", Clip(x.Request.URL.EscapedPath())).Int("status", x.Status).Int64("bytes", x.Bytes).
			Dur("took", time.Since(x.Start)).Msg("request answered")
	}
}

// end turns a panic into a 500, and gives the buffers back.
func (x *exchange) end() {
	v := recover()
	defer func() { x.meter.count(x.Status, time.Since(x.Start)) }()
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
