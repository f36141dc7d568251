package httpx

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"time"

	"millrace/broker"
)

// Limit is the size of a request's body: bytes, or what is configured for
// bodies of a kind.
type Limit int

// The kinds of bodies that have a limit in the configuration.
const (
	MaxRaw   Limit = -1 - iota // one payload as it is
	MaxJSON                    // one JSON text
	MaxBatch                   // one that holds many messages
)

// Bodies are the configured limits in bytes. Zero values take the stated default.
type Bodies struct {
	Raw   int // default 4 MiB
	JSON  int // default 8 MiB
	Batch int // default 16 MiB
}

// bytes is what l means here.
func (r *Request) bytes(l Limit) int {
	b := r.shared.Bodies
	switch l {
	case MaxRaw:
		return cmp.Or(b.Raw, 4<<20)
	case MaxJSON:
		return cmp.Or(b.JSON, 8<<20)
	case MaxBatch:
		return cmp.Or(b.Batch, 16<<20)
	default:
		return int(l)
	}
}

// A body has bodyGrace to arrive, and a second more for each minBodyRate bytes that did.
const (
	bodyGrace   = 5 * time.Second
	minBodyRate = 1 << 10
)

// Within refuses a body that is read already and over the limit of its kind,
// where only what it holds could tell the kind.
func (r *Request) Within(l Limit, body []byte) error {
	if limit := r.bytes(l); len(body) > limit {
		return r.tooLarge(limit)
	}
	return nil
}

// ReadBody reads the whole body, up to its limit. It is valid until the
// handler returns. Memory is taken for what came, not for what was announced.
func (r *Request) ReadBody(l Limit) ([]byte, error) {
	limit := r.bytes(l)
	if r.ContentLength > int64(limit) {
		return nil, r.tooLarge(limit)
	}
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	const first = 64 << 10
	r.body = buffers.Get().(*[]byte)
	buf := (*r.body)[:0]
	if n := int(min(r.ContentLength, first)); cap(buf) < n {
		buf = make([]byte, 0, n)
	}
	control := http.NewResponseController(r.answer.ResponseWriter)
	start := time.Now()
	var allowed time.Duration
	for {
		// Errors: not every connection has deadlines, those of tests do not.
		if a := bodyGrace + time.Duration(len(buf)/minBodyRate)*time.Second; a > allowed {
			allowed = a
			_ = control.SetReadDeadline(start.Add(a))
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, r.tooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, r.badBody(err)
		}
	}
	_ = control.SetReadDeadline(time.Time{}) // what comes next is the wait for the client to leave
	*r.body = buf
	return buf, nil
}

// tooLarge also ends the connection: the rest of the body is not worth reading.
func (r *Request) tooLarge(limit int) error {
	r.answer.Header().Set("Connection", "close")
	return &broker.Error{
		Kind: broker.TooLarge, Subject: broker.PayloadSubject,
		Message: fmt.Sprintf("the body is larger than %d bytes", limit),
	}
}

func (r *Request) badBody(err error) error {
	r.answer.Header().Set("Connection", "close")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &StatusError{Status: http.StatusRequestTimeout, Message: "the body did not arrive in time"}
	}
	return &broker.Error{Kind: broker.Invalid, Message: "the body ended early or is malformed", Err: err}
}

// IsJSON reports whether the request says that its body is JSON.
func (r *Request) IsJSON() bool {
	t, _, err := mime.ParseMediaType(r.Header.Get(headerType))
	return t == "application/json" && (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter))
}

// ReadJSON reads a body of one JSON value, strictly. Without optional an
// empty body is an error; with it, read is not called.
func (r *Request) ReadJSON(limit Limit, unknown Unknown, optional bool, read func(d *Decoder) error) error {
	body, err := r.ReadBody(limit)
	if err != nil || optional && len(body) == 0 {
		return err
	}
	return Decode(body, unknown, read)
}
