package flowmq

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// reply is what the dialect calls an error.
type reply struct {
	status int
	code   string
}

// byKind has a row for every broker.Kind; bySubject says it more closely where
// FlowMQ has a word for it.
var byKind = map[broker.Kind]reply{
	broker.Internal:        {http.StatusInternalServerError, "INTERNAL_ERROR"},
	broker.Invalid:         {http.StatusBadRequest, "INVALID_REQUEST"},
	broker.Unauthenticated: {http.StatusUnauthorized, "UNAUTHORIZED"},
	broker.Forbidden:       {http.StatusForbidden, "FORBIDDEN"},
	broker.NotFound:        {http.StatusNotFound, "NOT_FOUND"},
	broker.Conflict:        {http.StatusConflict, "CONFLICT"},
	broker.TooLarge:        {http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE"},
	broker.Full:            {http.StatusTooManyRequests, "TOO_MANY_REQUESTS"},
	broker.Unavailable:     {http.StatusServiceUnavailable, "UNAVAILABLE"},
	broker.Unknown:         {http.StatusGatewayTimeout, "OUTCOME_UNKNOWN"},
	broker.Damaged:         {http.StatusServiceUnavailable, "MESSAGES_MISSING"},
}

type fact struct {
	kind    broker.Kind
	subject broker.Subject
}

var bySubject = map[fact]reply{
	{broker.Invalid, broker.TopicSubject}:         {http.StatusBadRequest, "INVALID_TOPIC"},
	{broker.Invalid, broker.FilterSubject}:        {http.StatusBadRequest, "INVALID_TOPIC_FILTER"},
	{broker.Invalid, broker.QueueSubject}:         {http.StatusBadRequest, "INVALID_PARAMETER"},
	{broker.Invalid, broker.StreamSubject}:        {http.StatusBadRequest, "INVALID_PARAMETER"},
	{broker.Invalid, broker.MessageSubject}:       {http.StatusBadRequest, "INVALID_PARAMETER"},
	{broker.Invalid, broker.PayloadSubject}:       {http.StatusBadRequest, "INVALID_PARAMETER"},
	{broker.Invalid, broker.FieldSubject}:         {http.StatusBadRequest, "INVALID_PARAMETER"},
	{broker.Invalid, broker.ReceiptSubject}:       {http.StatusBadRequest, "INVALID_RECEIPT_HANDLE"},
	{broker.Invalid, broker.OffsetSubject}:        {http.StatusBadRequest, "OFFSET_OUT_OF_RANGE"},
	{broker.NotFound, broker.QueueSubject}:        {http.StatusNotFound, "QUEUE_NOT_FOUND"},
	{broker.NotFound, broker.StreamSubject}:       {http.StatusNotFound, "STREAM_NOT_FOUND"},
	{broker.NotFound, broker.SubscriptionSubject}: {http.StatusNotFound, "SUBSCRIPTION_NOT_FOUND"},
	{broker.Conflict, broker.SubscriptionSubject}: {http.StatusConflict, "ALREADY_EXISTS"},
	{broker.NotFound, broker.MessageSubject}:      {http.StatusNotFound, "MESSAGE_NOT_FOUND"},
	{broker.NotFound, broker.ReceiptSubject}:      {http.StatusNotFound, "MESSAGE_NOT_FOUND"},
	{broker.Conflict, broker.QueueSubject}:        {http.StatusConflict, "ALREADY_EXISTS"},
	{broker.Conflict, broker.StreamSubject}:       {http.StatusConflict, "ALREADY_EXISTS"},
	{broker.Conflict, broker.ReceiptSubject}:      {http.StatusBadRequest, "INVALID_RECEIPT_HANDLE"},
	{broker.TooLarge, broker.TopicSubject}:        {http.StatusBadRequest, "INVALID_TOPIC"},
	{broker.TooLarge, broker.FilterSubject}:       {http.StatusBadRequest, "INVALID_TOPIC_FILTER"},
	{broker.TooLarge, broker.FieldSubject}:        {http.StatusBadRequest, "INVALID_PARAMETER"},
	{broker.Full, broker.QueueSubject}:            {http.StatusTooManyRequests, "QUEUE_FULL"},

	{broker.Conflict, httpx.AccountSubject}:       {http.StatusConflict, "ALREADY_EXISTS"},
	{broker.Conflict, httpx.AdministratorSubject}: {http.StatusConflict, "LAST_ADMINISTRATOR"},
	{broker.Full, broker.LimitSubject}:            {http.StatusTooManyRequests, "LIMIT_REACHED"},
}

// byStatus names the answers that HTTP itself asks for.
var byStatus = map[int]string{
	http.StatusNotFound:         "NOT_FOUND",
	http.StatusMethodNotAllowed: "METHOD_NOT_ALLOWED",
	http.StatusTooManyRequests:  "LIMIT_REACHED",

	http.StatusPreconditionFailed: "PRECONDITION_FAILED",
}

// problem is the error member of an answer.
type problem struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Details details `json:"details"`
}

type details struct {
	Index   *int              `json:"index,omitempty"`   // of the bad entry of a batch
	Fields  map[string]string `json:"fields,omitempty"`  // what is wrong with them
	Outcome string            `json:"outcome,omitempty"` // of a request that may be sent again

	Earliest *uint64 `json:"earliest,omitempty"` // offset that can be read, when the one asked for cannot
}

// maxFields bounds what is said about a list that is wrong throughout.
const maxFields = 100

// classify turns any error into an answer.
func classify(err error) (int, problem) {
	if e, ok := errors.AsType[*httpx.StatusError](err); ok {
		code, known := byStatus[e.Status]
		if !known {
			code = "INVALID_REQUEST"
		}
		return e.Status, problem{Code: code, Message: e.Message}
	}
	e, ok := errors.AsType[*broker.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = &broker.Error{Kind: broker.Unknown, Message: "the request ended before its outcome was known"}
	default:
		e = &broker.Error{Kind: broker.Internal}
	}
	rep, ok := bySubject[fact{e.Kind, e.Subject}]
	switch {
	case ok:
	case e.Kind == broker.Full && errors.Is(err, broker.ErrFull): // the disk, not one queue
		rep = reply{http.StatusInsufficientStorage, "STORAGE_FULL"}
	default:
		rep = byKind[e.Kind]
	}
	p := problem{Code: rep.code, Message: e.Message}
	if e.Subject == broker.FieldSubject {
		p.Details.Fields = map[string]string{e.Field: strings.TrimPrefix(e.Message, e.Field+" ")}
		maps.Copy(p.Details.Fields, httpx.InvalidFields(e.Err, maxFields))
	}
	if b, ok := errors.AsType[*broker.BatchError](err); ok {
		p.Details.Index = &b.Index
	}
	if out, ok := errors.AsType[*broker.RangeError](err); ok {
		p.Details.Earliest = &out.First
	}
	switch e.Kind {
	case broker.Internal:
		p.Message, p.Details = "internal error, the log knows more under the X-Request-Id of this answer", details{}
	case broker.Unavailable, broker.Damaged:
		p.Details.Outcome = "rejected"
	case broker.Unknown:
		p.Details.Outcome = "unknown"
	default: // the code says it
	}
	return rep.status, p
}

// renderError writes err in FlowMQ's envelope.
func renderError(w http.ResponseWriter, r *httpx.Request, err error) {
	status, p := classify(err)
	switch status {
	case http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="millrace"`, `Basic realm="millrace", charset="UTF-8"`}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		httpx.RetryAfter(w, err)
	}
	body := append(r.Buffer(), `{"success":false,"data":null,"error":`...)
	body = append(httpx.AppendJSON(body, p), '}')
	_ = httpx.WriteJSON(w, r, status, body) // never fails
}
