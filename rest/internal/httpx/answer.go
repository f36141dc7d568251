package httpx

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// StatusError is an answer that HTTP itself asks for and that no broker error
// stands for, with the status it has in every dialect.
type StatusError struct {
	Status  int
	Message string
}

func (e *StatusError) Error() string { return e.Message }

// seconds is a wait in whole seconds, as Retry-After has it.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int((d+time.Second-1)/time.Second)))
}

// RetryAfter tells when it is worth to ask again: after the wait that err
// names, or in a second. One that was told already stays.
func RetryAfter(w http.ResponseWriter, err error) {
	if w.Header().Get("Retry-After") != "" {
		return
	}
	wait := time.Second
	if d, ok := errors.AsType[*auth.DelayedError](err); ok {
		wait = d.Retry
	}
	w.Header().Set("Retry-After", seconds(wait))
}

// ErrNoRoute is the answer to a path that a dialect does not have.
var ErrNoRoute = &StatusError{Status: http.StatusNotFound, Message: "no such path"}

// Values of headers that every answer has; shared, so that setting them costs nothing.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

// Names of headers in the form of net/http, which a plain assignment needs.
const (
	headerType       = "Content-Type"
	headerLength     = "Content-Length"
	headerCache      = "Cache-Control"
	headerID         = "X-Request-Id"
	headerDurability = "Millrace-Durability"
)

// WriteJSON answers with a JSON text, which should have been appended to
// r.Buffer. HEAD is answered without it.
func WriteJSON(w http.ResponseWriter, r *Request, status int, body []byte) error {
	if r.out != nil {
		*r.out = body
	}
	h := w.Header()
	h[headerType], h[headerCache] = jsonType, noStore
	// net/http counts small bodies by itself.
	if len(body) > 1<<10 || r.Method == http.MethodHead {
		h[headerLength] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	// An error means that the client has gone: there is nobody to tell.
	_, err := w.Write(body)
	r.lost = err != nil
	return nil
}

// Lost reports whether the answer could not be written, so that what it would
// have handed over may be taken back.
func (r *Request) Lost() bool { return r.lost }

var durabilities = map[broker.Durability][]string{
	broker.DurabilityDisk:    {string(broker.DurabilityDisk)},
	broker.DurabilityRelaxed: {string(broker.DurabilityRelaxed)},
	broker.DurabilityMemory:  {string(broker.DurabilityMemory)},
}

// SetDurability says in the answer to a write what it got.
func SetDurability(w http.ResponseWriter, d broker.Durability) {
	if v, ok := durabilities[d]; ok {
		w.Header()[headerDurability] = v
	}
}

// requestID returns the client's own id if it is fit for a log, or a new one,
// and sees that the answer carries it.
func requestID(w http.ResponseWriter, r *http.Request) string {
	id := r.Header.Get(headerID)
	if !goodID(id) {
		id = strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // a name, not a secret
	}
	w.Header()[headerID] = []string{id}
	return id
}

// WriteText answers with a document that is part of the program.
func WriteText(w http.ResponseWriter, r *Request, contentType string, body []byte) error {
	h := w.Header()
	h[headerType] = []string{contentType}
	h[headerLength] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // an error means that the client has gone
	}
	return nil
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

// WriteRaw answers with a body that clients gave us, byte by byte. Its end
// leaves when the handler returns: until then no client has the whole answer,
// and a handler that fails, after this as well, leaves it a broken one. An error
// says that the client cannot be given the answer.
func WriteRaw(w http.ResponseWriter, r *Request, contentType string, body []byte) error {
	const last = 512 // net/http keeps that much in its buffer
	h := w.Header()
	h[headerType], h[headerCache] = []string{contentType}, noStore
	h[headerLength] = []string{strconv.Itoa(len(body))}
	r.answer.deadline() // also for a short one: whoever holds body for the client counts on it
	w.WriteHeader(http.StatusOK)
	at := max(0, len(body)-last)
	for _, part := range [...][]byte{body[:at], body[at:]} {
		if len(part) == 0 {
			continue
		}
		if _, err := w.Write(part); err != nil {
			return &broker.Error{Kind: broker.Unavailable, Message: "the answer could not be written", Err: err}
		}
	}
	if err := r.ctx.Err(); err != nil {
		return &broker.Error{Kind: broker.Unavailable, Message: "the client has gone", Err: err}
	}
	return nil
}

// WriteNothing answers 204.
func WriteNothing(w http.ResponseWriter) error {
	w.Header()[headerCache] = noStore
	w.WriteHeader(http.StatusNoContent)
	return nil
}
