package fastqueue

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// reply is what the dialect answers an error with; without a detail of its own
// the broker's words are told.
type reply struct {
	status int
	detail string
}

// byKind has a row for every broker.Kind; bySubject says it in the words of
// FastQueue's page where it has some.
var byKind = map[broker.Kind]reply{
	broker.Internal:        {http.StatusInternalServerError, "Internal server error: the log knows more under the X-Request-Id of this answer."},
	broker.Invalid:         {status: http.StatusBadRequest},
	broker.Unauthenticated: {status: http.StatusUnauthorized},
	broker.Forbidden:       {status: http.StatusForbidden},
	broker.NotFound:        {status: http.StatusNotFound},
	broker.Conflict:        {status: http.StatusConflict},
	broker.TooLarge:        {status: http.StatusRequestEntityTooLarge},
	broker.Full:            {status: http.StatusTooManyRequests},
	broker.Unavailable:     {status: http.StatusServiceUnavailable},
	broker.Damaged:         {status: http.StatusServiceUnavailable},
	broker.Unknown:         {http.StatusGatewayTimeout, "The request ended before its outcome was known."},
}

type fact struct {
	kind    broker.Kind
	subject broker.Subject
}

// A receipt handle that is no longer good names no delivery: the page knows 404
// for it, and no other status.
var bySubject = map[fact]reply{
	{broker.NotFound, broker.QueueSubject}:   {http.StatusNotFound, "Queue not found."},
	{broker.Conflict, broker.QueueSubject}:   {http.StatusConflict, "Queue with the given name already exists."},
	{broker.Full, broker.QueueSubject}:       {http.StatusBadRequest, "Queue is full."},
	{broker.NotFound, broker.MessageSubject}: {http.StatusNotFound, "Message not found."},
	{broker.NotFound, broker.ReceiptSubject}: {http.StatusNotFound, "Message not found."},
	{broker.Invalid, broker.ReceiptSubject}:  {http.StatusNotFound, "Message not found: it was received again since this receipt handle was given."},
	{broker.Conflict, broker.ReceiptSubject}: {http.StatusNotFound, "Message not found: it was received again since this receipt handle was given."},
	{broker.TooLarge, broker.FieldSubject}:   {status: http.StatusBadRequest},
	{broker.TooLarge, broker.TopicSubject}:   {status: http.StatusBadRequest},
	{broker.TooLarge, broker.FilterSubject}:  {status: http.StatusBadRequest},
}

// classify turns any error into an answer.
func classify(err error) reply {
	if e, ok := errors.AsType[*httpx.StatusError](err); ok {
		return reply{e.Status, e.Message}
	}
	e, ok := errors.AsType[*broker.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = &broker.Error{Kind: broker.Unknown}
	default:
		e = &broker.Error{Kind: broker.Internal}
	}
	rep, ok := bySubject[fact{e.Kind, e.Subject}]
	switch {
	case ok:
	case e.Kind == broker.Full && errors.Is(err, broker.ErrFull): // the disk, not one queue
		rep = reply{status: http.StatusInsufficientStorage}
	default:
		rep = byKind[e.Kind]
	}
	if rep.detail == "" {
		rep.detail = e.Message
		if b, ok := errors.AsType[*broker.BatchError](err); ok {
			rep.detail = fmt.Sprintf("Entries[%d]: %s", b.Index, e.Message)
		}
	}
	return rep
}

// renderError writes err as FastQueue does: a detail, which is always a string.
func renderError(w http.ResponseWriter, r *httpx.Request, err error) {
	rep := classify(err)
	switch rep.status {
	case http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = []string{"Bearer"}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		httpx.RetryAfter(w, err)
	}
	body := httpx.AppendString(append(r.Buffer(), `{"detail":`...), rep.detail)
	_ = httpx.WriteJSON(w, r, rep.status, append(body, '}')) // never fails
}
