package emqx

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// code is the name of an error. Those of EMQX's page come first; behind them
// are names of today's EMQX, where the page has none that fits.
type code string

// The codes that answers here carry.
const (
	wrongLogin        code = "WRONG_USERNAME_OR_PWD"
	wrongCredentials  code = "WRONG_USERNAME_OR_PWD_OR_API_KEY_OR_API_SECRET"
	badRequest        code = "BAD_REQUEST"
	notMatch          code = "NOT_MATCH"
	alreadyExists     code = "ALREADY_EXISTS"
	badConfigSchema   code = "BAD_CONFIG_SCHEMA"
	badListenerID     code = "BAD_LISTENER_ID"
	badNodeName       code = "BAD_NODE_NAME"
	badRPC            code = "BAD_RPC"
	badTopic          code = "BAD_TOPIC"
	exceedLimit       code = "EXCEED_LIMIT"
	invalidParameter  code = "INVALID_PARAMETER"
	conflict          code = "CONFLICT"
	noDefaultValue    code = "NO_DEFAULT_VALUE"
	dependencyExists  code = "DEPENDENCY_EXISTS"
	messageIDSchema   code = "MESSAGE_ID_SCHEMA_ERROR"
	invalidID         code = "INVALID_ID"
	messageIDNotFound code = "MESSAGE_ID_NOT_FOUND"
	notFound          code = "NOT_FOUND"
	clientIDNotFound  code = "CLIENTID_NOT_FOUND"
	clientNotFound    code = "CLIENT_NOT_FOUND"
	resourceNotFound  code = "RESOURCE_NOT_FOUND"
	topicNotFound     code = "TOPIC_NOT_FOUND"
	userNotFound      code = "USER_NOT_FOUND"
	internalError     code = "INTERNAL_ERROR"
	unavailable       code = "SERVICE_UNAVAILABLE"
	sourceError       code = "SOURCE_ERROR"
	updateFailed      code = "UPDATE_FAILED"
	restFailed        code = "REST_FAILED"
	clientNotResponse code = "CLIENT_NOT_RESPONSE"

	unauthorizedRole code = "UNAUTHORIZED_ROLE"
	keyNotAllowed    code = "API_KEY_NOT_ALLOW"
	loginLocked      code = "LOGIN_LOCKED"
	forbidden        code = "FORBIDDEN"
	unsupportedMedia code = "UNSUPPORTED_MEDIA_TYPE"
)

// codes are what GET /error_codes lists: the page's table in its order, and
// what is ours to add.
var codes = []struct {
	code code
	text string
}{
	{wrongLogin, "Wrong username or password"},
	{wrongCredentials, "Wrong username & password or key & secret"},
	{badRequest, "Request parameters not legal"},
	{notMatch, "Conditions not matched"},
	{alreadyExists, "Resources already exist"},
	{badConfigSchema, "Configuration data not legal"},
	{badListenerID, "Bad listener ID"},
	{badNodeName, "Bad Node Name"},
	{badRPC, "RPC Failed. Check the cluster status and the requested node status"},
	{badTopic, "Topic syntax error, topic needs to comply with the MQTT protocol standard"},
	{exceedLimit, "Resources to be created exceed the maximum limit or minimum limit"},
	{invalidParameter, "Request parameters not legal and exceed the boundary value"},
	{conflict, "Conflicting request resources"},
	{noDefaultValue, "Request parameters do not use default values"},
	{dependencyExists, "Resource depends on other resources"},
	{messageIDSchema, "Message ID parsing error"},
	{invalidID, "Bad ID schema"},
	{messageIDNotFound, "Message ID does not exist"},
	{notFound, "Resource not found or does not exist"},
	{clientIDNotFound, "Client ID not found or does not exist"},
	{clientNotFound, "Client not found or does not exist(usually not an MQTT client)"},
	{resourceNotFound, "Resource not found"},
	{topicNotFound, "Topic not found"},
	{userNotFound, "User not found"},
	{internalError, "Server inter error"},
	{unavailable, "Service unavailable"},
	{sourceError, "Source error"},
	{updateFailed, "Update fails"},
	{restFailed, "Reset source or configuration fails"},
	{clientNotResponse, "Client not responding"},
	{unauthorizedRole, "The role may not do this"},
	{keyNotAllowed, "API keys may not do this; log in as a user"},
	{loginLocked, "Too many wrong passwords; wait"},
	{forbidden, "An access rule or a scope forbids this"},
	{unsupportedMedia, "The body must be application/json"},
}

// problem is an error of this dialect's own, in its words.
type problem struct {
	status int
	code   code
	text   string
}

func (p *problem) Error() string { return p.text }

func problemf(status int, c code, format string, args ...any) error {
	return &problem{status, c, fmt.Sprintf(format, args...)}
}

// missing is the answer about something that is not there.
func missing(c code, format string, args ...any) error {
	return problemf(http.StatusNotFound, c, format, args...)
}

// bad is the answer to a body that cannot be.
func bad(format string, args ...any) error {
	return problemf(http.StatusBadRequest, badRequest, format, args...)
}

// badQuery turns an error of the query into one of this dialect.
func badQuery(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*broker.Error](err); ok {
		return problemf(http.StatusBadRequest, invalidParameter, "%s", e.Message)
	}
	return err
}

// byKind has a row for every broker.Kind; bySubject says it more closely.
var byKind = map[broker.Kind]problem{
	broker.Internal:        {http.StatusInternalServerError, internalError, "internal error, the log knows more under the X-Request-Id of this answer"},
	broker.Invalid:         {status: http.StatusBadRequest, code: badRequest},
	broker.Unauthenticated: {status: http.StatusUnauthorized, code: wrongCredentials},
	broker.Forbidden:       {status: http.StatusForbidden, code: forbidden},
	broker.NotFound:        {status: http.StatusNotFound, code: notFound},
	broker.Conflict:        {status: http.StatusConflict, code: conflict},
	broker.TooLarge:        {status: http.StatusRequestEntityTooLarge, code: badRequest},
	broker.Full:            {status: http.StatusConflict, code: exceedLimit},
	broker.Unavailable:     {status: http.StatusServiceUnavailable, code: unavailable},
	broker.Unknown:         {status: http.StatusServiceUnavailable, code: unavailable},
	broker.Damaged:         {status: http.StatusServiceUnavailable, code: unavailable},
}

type fact struct {
	kind    broker.Kind
	subject broker.Subject
}

var bySubject = map[fact]problem{
	{broker.Invalid, broker.TopicSubject}:         {status: http.StatusBadRequest, code: badTopic},
	{broker.Invalid, broker.FilterSubject}:        {status: http.StatusBadRequest, code: badTopic},
	{broker.Conflict, broker.TopicSubject}:        {status: http.StatusConflict, code: alreadyExists},
	{broker.Conflict, broker.QueueSubject}:        {status: http.StatusConflict, code: alreadyExists},
	{broker.Conflict, broker.StreamSubject}:       {status: http.StatusConflict, code: alreadyExists},
	{broker.Conflict, httpx.AccountSubject}:       {status: http.StatusConflict, code: alreadyExists},
	{broker.Conflict, httpx.AdministratorSubject}: {status: http.StatusForbidden, code: dependencyExists},
	{broker.NotFound, httpx.AccountSubject}:       {status: http.StatusNotFound, code: notFound},
	{broker.TooLarge, broker.TopicSubject}:        {status: http.StatusBadRequest, code: badTopic},
	{broker.TooLarge, broker.FilterSubject}:       {status: http.StatusBadRequest, code: badTopic},
	{broker.TooLarge, broker.FieldSubject}:        {status: http.StatusBadRequest, code: badRequest},
}

// classify turns any error into an answer.
func classify(err error) problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return *p
	}
	if e, ok := errors.AsType[*httpx.StatusError](err); ok {
		switch e.Status {
		case http.StatusNotFound:
			return problem{e.Status, notFound, e.Message}
		case http.StatusTooManyRequests:
			return problem{e.Status, exceedLimit, e.Message}
		}
		return problem{e.Status, badRequest, e.Message}
	}
	e, ok := errors.AsType[*broker.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = &broker.Error{Kind: broker.Unknown, Message: "the request ended before its outcome was known"}
	default:
		e = &broker.Error{Kind: broker.Internal}
	}
	p, ok := bySubject[fact{e.Kind, e.Subject}]
	switch {
	case ok:
	case e.Kind == broker.Full && errors.Is(err, broker.ErrFull): // the disk, not a limit of ours
		p = problem{status: http.StatusServiceUnavailable, code: unavailable}
	default:
		p = byKind[e.Kind]
	}
	if p.text == "" {
		p.text = e.Message
	}
	return p
}

// renderError writes an error with both of its texts: the page says reason,
// and EMQX's servers say message. A method that is not there is told in the
// header alone, as EMQX does.
func renderError(w http.ResponseWriter, r *httpx.Request, err error) {
	p := classify(err)
	switch p.status {
	case http.StatusMethodNotAllowed:
		w.WriteHeader(p.status)
		return
	case http.StatusUnauthorized:
		w.Header()["Www-Authenticate"] = []string{`Basic realm="millrace", charset="UTF-8"`, `Bearer realm="millrace"`}
	}
	if _, delayed := errors.AsType[*auth.DelayedError](err); delayed || p.status == http.StatusServiceUnavailable {
		httpx.RetryAfter(w, err)
	}
	if err == httpx.ErrNoRoute && wantsPage(r) { //nolint:errorlint // returned bare by the mux
		writePage(w, r, p.text)
		return
	}
	body := httpx.AppendString(append(r.Buffer(), `{"code":`...), string(p.code))
	body = httpx.AppendString(append(body, `,"message":`...), p.text)
	body = httpx.AppendString(append(body, `,"reason":`...), p.text)
	_ = httpx.WriteJSON(w, r, p.status, append(body, '}')) // never fails
}

// wantsPage reports whether a person looks at the answer: a path that is not
// there is answered to a browser in its own form.
func wantsPage(r *httpx.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "text/html") && !strings.Contains(accept, "application/json")
}

func writePage(w http.ResponseWriter, r *httpx.Request, text string) {
	body := "<!doctype html><title>404</title><p>" + html.EscapeString(text) + "</p>\n"
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body)) // an error means that the client has gone
	}
}

// listCodes answers the table, for clients that show it.
func (a *api) listCodes(w http.ResponseWriter, r *httpx.Request) error {
	views := make([]codeView, len(codes))
	for i, c := range codes {
		views[i] = codeView{c.code, c.text}
	}
	return answer(w, r, views)
}

type codeView struct {
	Code        code   `json:"code"`
	Description string `json:"description"`
}

func (a *api) getCode(w http.ResponseWriter, r *httpx.Request) error {
	for _, c := range codes {
		if string(c.code) == r.Param("code") {
			return answer(w, r, codeView{c.code, c.text})
		}
	}
	return missing(notFound, "there is no error code %q", httpx.Clip(r.Param("code")))
}
