package rest

import (
	"errors"
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Paths of the operators, on every listener.
var opsPaths = []string{"/livez", "/readyz", "/healthz", "/metrics"}

// ops answers what is no dialect's: health and metrics.
type ops struct {
	broker  *broker.Broker
	shared  *httpx.Shared
	figures http.Handler
}

func newOps(from *Options, s *httpx.Shared) http.Handler {
	o := &ops{broker: from.Broker, shared: s, figures: from.Metrics}
	return httpx.NewMux(s, httpx.Dialect{
		Name: "ops",
		Routes: []httpx.Route{
			{Method: http.MethodGet, Path: "/metrics", Handler: o.metrics},
			{Method: http.MethodGet, Path: "/livez", Handler: live},
			{Method: http.MethodGet, Path: "/readyz", Handler: o.ready},
			{Method: http.MethodGet, Path: "/healthz", Handler: o.ready},
		},
		RenderError: renderPlain,
	})
}

// live says that the process can answer, and asks nothing else.
func live(w http.ResponseWriter, r *httpx.Request) error {
	return httpx.WriteJSON(w, r, http.StatusOK, append(r.Buffer(), `{"status":"ok"}`...))
}

// ready says whether this process can record now. The reason is for the
// machine's own users: others learn yes or no.
func (o *ops) ready(w http.ResponseWriter, r *httpx.Request) error {
	why := ""
	switch err := o.broker.Ready(); {
	case o.shared.Draining.Err() != nil:
		why = "draining"
	case err != nil:
		why = err.Error()
	case o.broker.State().Full:
		why = "the store is full"
	}
	if why == "" {
		return live(w, r)
	}
	body := append(r.Buffer(), `{"status":"unavailable"`...)
	if httpx.FromLoopback(r.Request) {
		body = httpx.AppendString(append(body, `,"reason":`...), why)
	}
	w.Header().Set("Retry-After", "1")
	return httpx.WriteJSON(w, r, http.StatusServiceUnavailable, append(body, '}'))
}

// metrics shows the figures to this machine, and to whoever may view the server.
func (o *ops) metrics(w http.ResponseWriter, r *httpx.Request) error {
	if o.figures == nil {
		return httpx.ErrNoRoute
	}
	if err := httpx.MayScrape(o.broker, httpx.UserAudience, r); err != nil {
		return err
	}
	o.figures.ServeHTTP(w, r.Request)
	return nil
}

// renderPlain writes an error where no dialect has a say.
func renderPlain(w http.ResponseWriter, r *httpx.Request, err error) {
	status, text := http.StatusInternalServerError, "internal error"
	if e, ok := errors.AsType[*httpx.StatusError](err); ok {
		status, text = e.Status, e.Message
	} else if e, ok := errors.AsType[*broker.Error](err); ok {
		switch e.Kind {
		case broker.Unauthenticated:
			w.Header().Set("WWW-Authenticate", `Basic realm="millrace"`)
			status, text = http.StatusUnauthorized, e.Message
		case broker.Forbidden:
			status, text = http.StatusForbidden, e.Message
		case broker.Invalid:
			status, text = http.StatusBadRequest, e.Message
		default: // nothing else can come: these paths call no broker
		}
	}
	body := httpx.AppendString(append(r.Buffer(), `{"error":`...), text)
	_ = httpx.WriteJSON(w, r, status, append(body, '}')) // never fails
}
