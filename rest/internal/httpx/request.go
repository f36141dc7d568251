package httpx

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/julienschmidt/httprouter"

	"millrace/broker"
	"millrace/broker/auth"
)

// Request is one HTTP request on its way through a dialect. Its buffers are
// reused when its handler has returned.
type Request struct {
	*http.Request
	shared *Shared
	answer *Recorder
	ctx    context.Context
	params httprouter.Params
	query  url.Values
	body   *[]byte // pooled, as out
	out    *[]byte
}

// Context carries the principal, and ends when the client leaves.
func (r *Request) Context() context.Context { return r.ctx }

// ID is the request's id, the client's own if it sent a fit one.
func (r *Request) ID() string { return r.answer.ID }

// Param returns the path parameter of that name, unescaped once. What a
// catch-all took is as it was sent: see Unescape.
func (r *Request) Param(name string) string { return r.params.ByName(name) }

// Unescape undoes the percent-encoding of a part of a path.
func Unescape(s string) (string, error) {
	u, err := url.PathUnescape(s)
	if err != nil {
		return "", &broker.Error{Kind: broker.Invalid, Message: "the path has a malformed percent escape", Err: err}
	}
	return u, nil
}

// Query returns the query parameter of that name, "" when it is not there. One
// given twice is an error, because readers on the way could differ on which counts.
func (r *Request) Query(name string) (string, error) {
	if r.query == nil && r.URL.RawQuery != "" {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", &broker.Error{Kind: broker.Invalid, Message: "the query is malformed", Err: err}
		}
		r.query = q
	}
	switch v := r.query[name]; len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	}
	return "", FieldError(name, "is given twice in the query")
}

// Poll returns the context of a wait for messages: it ends when the client
// leaves, and when the server drains.
func (r *Request) Poll() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.ctx)
	stop := context.AfterFunc(r.shared.Draining, cancel)
	return ctx, func() { stop(); cancel() }
}

// Drained reports whether the server drains, so that a wait that ended is to
// be answered with what there is.
func (r *Request) Drained() bool { return r.shared.Draining.Err() != nil }

// identify remembers who asks.
func (r *Request) identify(p *auth.Principal) { r.ctx = auth.WithPrincipal(r.ctx, p) }

// maxPooled is the size of the largest buffer that is kept.
const maxPooled = 1 << 20

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func giveBuffer(b *[]byte) {
	if b != nil && cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// Buffer returns an empty slice to append an answer to, which WriteJSON takes back.
func (r *Request) Buffer() []byte {
	if r.out == nil {
		r.out = buffers.Get().(*[]byte)
	}
	return (*r.out)[:0]
}

func (r *Request) release() {
	giveBuffer(r.body)
	giveBuffer(r.out)
	r.body, r.out = nil, nil
}

// Recorder is the ResponseWriter that handlers are given: it knows what was
// answered, and renews the write deadline of clients that keep reading.
type Recorder struct {
	http.ResponseWriter
	ID     string
	Start  time.Time
	Status int
	Bytes  int64
}

// Unwrap lets http.ResponseController through.
func (w *Recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the status.
func (w *Recorder) WriteHeader(status int) {
	if w.Status == 0 {
		w.Status = status
		w.renew()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends b in parts, each of which the client has WriteTimeout to take.
func (w *Recorder) Write(b []byte) (n int, err error) {
	const part = 64 << 10
	if w.Status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	for parts := len(b) > part; ; {
		if parts {
			w.deadline()
		}
		k, err := w.ResponseWriter.Write(b[:min(len(b), part)])
		n, b = n+k, b[k:]
		if w.Bytes += int64(k); err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// WriteTimeout is how long a client may take nothing of an answer.
const WriteTimeout = 10 * time.Second

// renew moves the deadline that net/http set when the request began, if a
// handler took a good part of it.
func (w *Recorder) renew() {
	if time.Since(w.Start) > WriteTimeout/10 {
		w.deadline()
	}
}

func (w *Recorder) deadline() {
	// Not every ResponseWriter has deadlines, those of tests do not.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(WriteTimeout))
}

// goodID reports whether a client's request id may be logged and sent back.
func goodID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("-_.:", c) < 0 {
			return false
		}
	}
	return true
}
