package httpx

import (
	"context"
	"net/http"
	"net/url"
	"sync"

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
	read   *broker.Buffer
	lost   bool // the answer could not be written
	client string
}

// SetClient names the client in the access log, as it names itself.
func (r *Request) SetClient(id string) { r.client = id }

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
	switch v, err := r.QueryAll(name); {
	case err != nil || len(v) == 0:
		return "", err
	case len(v) == 1:
		return v[0], nil
	}
	return "", FieldError(name, "is given twice in the query")
}

// QueryAll returns all values of a query parameter that may be repeated.
func (r *Request) QueryAll(name string) ([]string, error) {
	if r.query == nil && r.URL.RawQuery != "" {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, &broker.Error{Kind: broker.Invalid, Message: "the query is malformed", Err: err}
		}
		r.query = q
	}
	return r.query[name], nil
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

var readBuffers = sync.Pool{New: func() any { return new(broker.Buffer) }}

// ReadStream is b.ReadStream for this request. A wait ends when the client leaves;
// when the server stops it is answered with what is there. What was read is good
// until the request is answered.
func (r *Request) ReadStream(b *broker.Broker, name string, o broker.ReadOptions) (broker.StreamRead, error) {
	if r.read == nil {
		r.read = readBuffers.Get().(*broker.Buffer)
	}
	o.Buffer = r.read
	if o.Wait == 0 {
		return b.ReadStream(r.ctx, name, o)
	}
	ctx, cancel := r.Poll()
	defer cancel()
	got, err := b.ReadStream(ctx, name, o)
	if err != nil && r.Drained() && r.ctx.Err() == nil {
		o.Wait = 0
		got, err = b.ReadStream(r.ctx, name, o)
	}
	return got, err
}

func (r *Request) release() {
	giveBuffer(r.body)
	giveBuffer(r.out)
	if r.read != nil && r.read.Size() <= maxPooled {
		r.read.Reset()
		readBuffers.Put(r.read)
	}
	r.body, r.out, r.read = nil, nil, nil
}
