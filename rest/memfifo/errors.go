package memfifo

import (
	"context"
	"errors"
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// byKind has a row for every broker.Kind. A name that is taken is 400, so the documentation.
var byKind = map[broker.Kind]int{
	broker.Internal:        http.StatusInternalServerError,
	broker.Invalid:         http.StatusBadRequest,
	broker.Unauthenticated: http.StatusUnauthorized,
	broker.Forbidden:       http.StatusForbidden,
	broker.NotFound:        http.StatusNotFound,
	broker.Conflict:        http.StatusBadRequest,
	broker.TooLarge:        http.StatusRequestEntityTooLarge,
	broker.Full:            http.StatusServiceUnavailable,
	broker.Unavailable:     http.StatusServiceUnavailable,
	broker.Unknown:         http.StatusGatewayTimeout,
	broker.Damaged:         http.StatusServiceUnavailable,
}

// classify turns any error into an answer.
func classify(err error) (status int, text string) {
	if e, ok := errors.AsType[*httpx.StatusError](err); ok {
		return e.Status, e.Message
	}
	e, ok := errors.AsType[*broker.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = &broker.Error{Kind: broker.Unknown, Message: "the request ended before its outcome was known"}
	default:
		e = &broker.Error{Kind: broker.Internal}
	}
	switch {
	case e.Kind == broker.Internal:
		return byKind[e.Kind], "internal error, the log knows more under the X-Request-Id of this answer"
	case e.Kind == broker.Full && e.Subject == broker.QueueSubject:
		return byKind[e.Kind], "the queue is full, the message was not stored: read from it, or raise max-bytes"
	case e.Kind == broker.Full && errors.Is(err, broker.ErrFull): // the disk, not one queue
		return http.StatusInsufficientStorage, e.Message
	case e.Kind == broker.TooLarge && e.Subject != broker.PayloadSubject: // a name or a filter
		return http.StatusBadRequest, e.Message
	}
	return byKind[e.Kind], e.Message
}

// renderError writes err as {"error": text}.
func renderError(w http.ResponseWriter, r *httpx.Request, err error) {
	status, text := classify(err)
	switch status {
	case http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="millrace"`, `Basic realm="millrace", charset="UTF-8"`}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		httpx.RetryAfter(w, err)
	}
	body := httpx.AppendString(append(r.Buffer(), `{"error":`...), text)
	_ = httpx.WriteJSON(w, r, status, append(body, '}')) // never fails
}
