// Package memfifo speaks the REST API of the memfifo server: named queues of
// raw bytes, first in first out, whose read removes. docs/dialects/memfifo.md
// tells what of it is documented and what is ours. It translates; everything
// that matters happens in the broker.
package memfifo

import (
	_ "embed"
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// Prefix is what the path of every request of the dialect begins with.
const Prefix = "/queues"

// OpenAPI is the document of the dialect.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Options configure the dialect.
type Options struct {
	// Open asks nobody for credentials, as the original does. Rules about
	// anonymous hold then.
	Open bool
}

type api struct {
	broker *broker.Broker
}

// New returns the handler of the dialect.
func New(b *broker.Broker, s *httpx.Shared, o Options) *httpx.Mux {
	a := &api{broker: b}
	who := func(r *httpx.Request) (*auth.Principal, error) { return httpx.KeyOrToken(b.Auth(), "memfifo", r) }
	if o.Open {
		// The role, because everybody makes and deletes queues here.
		anyone := &auth.Principal{Kind: auth.Anonymous, Role: auth.Administrator}
		who = func(*httpx.Request) (*auth.Principal, error) { return anyone, nil }
	}
	return httpx.NewMux(s, httpx.Dialect{Name: "memfifo", Routes: a.routes(), Authenticate: who, RenderError: renderError})
}

func (a *api) routes() []httpx.Route {
	const (
		queue    = Prefix + "/:queue"
		messages = queue + "/messages"
	)
	return []httpx.Route{
		{Method: http.MethodPost, Path: Prefix, Handler: a.createQueue},
		{Method: http.MethodGet, Path: Prefix, Handler: a.listQueues},
		{Method: http.MethodGet, Path: queue, Handler: a.getQueue},
		{Method: http.MethodPut, Path: queue, Handler: a.replaceAttributes},
		{Method: http.MethodPatch, Path: queue, Handler: a.changeAttributes},
		{Method: http.MethodDelete, Path: queue, Handler: a.deleteQueue},
		{Method: http.MethodPost, Path: messages, Handler: a.submit},
		{Method: http.MethodGet, Path: messages, Handler: a.read, Unsafe: true},
	}
}
