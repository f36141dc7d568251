// Package fastqueue speaks the REST API of FastQueue under /v1, as its page
// documents it, and takes what its server takes besides.
// docs/dialects/fastqueue.md tells which is which. It translates; everything
// that matters happens in the broker.
package fastqueue

import (
	_ "embed"
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// Prefix is what the path of every request of the dialect begins with, but for
// HealthPath.
const (
	Prefix     = "/v1"
	HealthPath = "/health"
)

// Door is the name of the dialect: of its accounts, its tokens and its queues.
const Door = "fastqueue"

// OpenAPI is the document of the dialect.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Options configure the dialect.
type Options struct {
	Registration bool // anyone may make an account; default no
}

type api struct {
	broker  *broker.Broker
	auth    *auth.Auth
	options Options
}

// New returns the handler of the dialect.
func New(b *broker.Broker, s *httpx.Shared, o Options) *httpx.Mux {
	a := &api{broker: b, auth: b.Auth(), options: o}
	return httpx.NewMux(s, httpx.Dialect{
		Name:         Door,
		Routes:       a.routes(),
		Authenticate: a.authenticate,
		RenderError:  renderError,
	})
}

// authenticate takes a token of a login here, or an API key.
func (a *api) authenticate(r *httpx.Request) (*auth.Principal, error) {
	text, err := httpx.Bearer(r)
	if err != nil {
		return nil, err
	}
	p, err := a.auth.BearerOrAccess(r.Context(), Door, text)
	return p, httpx.AccountError(err, "")
}

func (a *api) routes() []httpx.Route {
	const (
		accounts = Prefix + "/auth"
		queues   = Prefix + "/queues"
	)
	return []httpx.Route{
		{Method: http.MethodPost, Path: accounts + "/register", Handler: a.register, Open: true},
		{Method: http.MethodPost, Path: accounts + "/login", Handler: a.login, Open: true},
		{Method: http.MethodPost, Path: accounts + "/refresh", Handler: a.refresh, Open: true},
		{Method: http.MethodPost, Path: accounts + "/change-password", Handler: a.changePassword, Open: true},
		{Method: http.MethodPost, Path: accounts + "/delete", Handler: a.deleteAccount, Open: true},

		{Method: http.MethodPost, Path: queues, Handler: a.createQueue},
		{Method: http.MethodGet, Path: queues, Handler: a.listQueues},
		{Method: http.MethodGet, Path: queues + "/:queue", Handler: a.getQueue},
		{Method: http.MethodPatch, Path: queues + "/:queue", Handler: a.changeQueue},
		{Method: http.MethodDelete, Path: queues + "/:queue", Handler: a.deleteQueue},

		{Method: http.MethodPost, Path: Prefix + "/queue/:queue", Handler: a.perform},

		{Method: http.MethodGet, Path: HealthPath, Handler: a.health, Open: true},
	}
}

// health is what FastQueue's own clients ask before they begin.
func (a *api) health(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.broker.Ready(); err != nil || r.Drained() {
		return &broker.Error{Kind: broker.Unavailable, Message: "not ready", Err: err}
	}
	return answerText(w, r, "ok")
}
