package pulsar

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// The error codes. Those of the page are its own; the rest goes on as Kafka's
// REST proxy numbers them, whose contract the page follows: the status, and two
// digits.
const (
	badRequest     = 40001
	badOffset      = 40002
	noCredentials  = 40101
	forbidden      = 40301
	noTopic        = 40401
	noPartition    = 40402
	noConsumer     = 40403
	notFound       = 40404
	badMethod      = 40501
	bodyTimeout    = 40801
	conflict       = 40901
	consumerExists = 40902
	badTopic       = 41201
	tooLarge       = 41301
	needsKeyValue  = 42201
	needsValue     = 42202
	badKeySchema   = 42203
	badValueSchema = 42204
	badMessages    = 42205
	tooMany        = 42901
	internalError  = 50001
	unavailable    = 50301
	outcomeUnknown = 50401
	storageFull    = 50701
)

// codeError is an answer that only this dialect gives.
type codeError struct {
	code    int
	message string
}

func (e *codeError) Error() string { return e.message }

// byKind has a row for every broker.Kind; bySubject and byField know better.
var byKind = map[broker.Kind]int{
	broker.Internal:        internalError,
	broker.Invalid:         badRequest,
	broker.Unauthenticated: noCredentials,
	broker.Forbidden:       forbidden,
	broker.NotFound:        notFound,
	broker.Conflict:        conflict,
	broker.TooLarge:        tooLarge,
	broker.Full:            tooMany,
	broker.Unavailable:     unavailable,
	broker.Unknown:         outcomeUnknown,
	broker.Damaged:         unavailable,
}

type fact struct {
	kind    broker.Kind
	subject broker.Subject
}

var bySubject = map[fact]int{
	{broker.Invalid, broker.TopicSubject}:      badTopic,
	{broker.Invalid, broker.OffsetSubject}:     badOffset,
	{broker.NotFound, broker.StreamSubject}:    noTopic,
	{broker.NotFound, broker.PartitionSubject}: noPartition,
	{broker.NotFound, broker.ConsumerSubject}:  noConsumer,
	{broker.Conflict, broker.ConsumerSubject}:  consumerExists,
}

// byField is for members of a body, by the first part of their name.
var byField = map[string]int{
	"messages": badMessages, "messageIds": badMessages, "messagePositions": badMessages, "offsets": badMessages,
	"key_schema": badKeySchema, "keySchema": badKeySchema,
	"value_schema": badValueSchema, "valueSchema": badValueSchema,
	"schema_type": badValueSchema, "schemaType": badValueSchema,
	"schema_version": badValueSchema, "schemaVersion": badValueSchema,
}

var byStatus = map[int]int{
	http.StatusNotFound: notFound, http.StatusMethodNotAllowed: badMethod, http.StatusRequestTimeout: bodyTimeout,
	http.StatusTooManyRequests: tooMany,
}

// classify turns any error into a code and its text. The status is the code
// without its last two digits.
func classify(err error) (code int, message string) {
	if e, ok := errors.AsType[*codeError](err); ok {
		return e.code, e.message
	}
	if e, ok := errors.AsType[*httpx.StatusError](err); ok {
		if code, ok := byStatus[e.Status]; ok {
			return code, e.Message
		}
		return badRequest, e.Message
	}
	e, ok := errors.AsType[*broker.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return outcomeUnknown, "the request ended before its outcome was known"
	default:
		e = &broker.Error{Kind: broker.Internal}
	}
	if e.Kind == broker.Internal {
		return internalError, "internal error: the log knows more under the X-Request-Id of this answer"
	}
	if e.Kind == broker.Full && errors.Is(err, broker.ErrFull) { // the disk
		return storageFull, e.Message
	}
	if code, ok := bySubject[fact{e.Kind, e.Subject}]; ok {
		return code, e.Message
	}
	if e.Kind == broker.Invalid && e.Subject == broker.FieldSubject {
		end := strings.IndexAny(e.Field+".", ".[")
		if code, ok := byField[e.Field[:end]]; ok {
			return code, e.Message
		}
	}
	return byKind[e.Kind], e.Message
}

// The codes of a message that failed while others may not have.
const (
	final     = 1
	retriable = 2
)

// classifyOne turns the error of one message into its code and text.
func classifyOne(err error) (code int, message string) {
	whole, message := classify(err)
	switch whole {
	case tooMany, storageFull, unavailable, outcomeUnknown, internalError:
		return retriable, message
	}
	return final, message
}

// renderError writes err as Kafka's REST proxy does, and with Pulsar's reason.
func renderError(w http.ResponseWriter, r *httpx.Request, err error) {
	code, message := classify(err)
	status := code / 100
	switch status {
	case http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="millrace"`, `Basic realm="millrace", charset="UTF-8"`}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		httpx.RetryAfter(w, err)
	}
	body := strconv.AppendInt(append(r.Buffer(), `{"error_code":`...), int64(code), 10)
	body = httpx.AppendString(append(body, `,"message":`...), message)
	body = httpx.AppendString(append(body, `,"reason":`...), message)
	_ = httpx.WriteJSON(w, r, status, append(body, '}')) // never fails
}
