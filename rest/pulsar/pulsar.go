// Package pulsar speaks the REST API that Pulsar's PIP-64 proposes under
// /topics, and takes what Pulsar's server takes besides. docs/dialects/pulsar.md
// tells which is which. It translates; everything that matters happens in the
// broker.
package pulsar

import (
	_ "embed"
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// What the paths of the dialect begin with: messages, and the making of topics.
const (
	Prefix      = "/topics"
	AdminPrefix = "/admin/v2"
)

// OpenAPI is the document of the dialect.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Options configure the dialect.
type Options struct {
	// CreateTopics has the first message to a topic that is not there make it.
	CreateTopics bool
	// PublicURL is where clients reach us, for base_uri; "" = what they asked for.
	PublicURL string
}

type api struct {
	broker    *broker.Broker
	options   Options
	endpoints []endpoint
}

// New returns the handler of the dialect.
func New(b *broker.Broker, s *httpx.Shared, o Options) *httpx.Mux {
	a := newAPI(b, o)
	return httpx.NewMux(s, httpx.Dialect{
		Name:   "pulsar",
		Routes: a.routes(),
		Authenticate: func(r *httpx.Request) (*auth.Principal, error) {
			return httpx.KeyOrToken(b.Auth(), httpx.UserAudience, r)
		},
		RenderError: renderError,
	})
}

func newAPI(b *broker.Broker, o Options) *api {
	a := &api{broker: b, options: o}
	for _, e := range []endpoint{
		{method: http.MethodPost, path: "", call: a.produce},
		{method: http.MethodPost, path: "/partitions/{partition}", call: a.produce},
		{method: http.MethodGet, path: "/partitions/{partition}/messages", call: a.read},

		{method: http.MethodPost, path: "/subscription/{subscription}", call: a.join},
		{method: http.MethodPost, path: "/subscription/{subscription}/consumers", call: a.join},
		{method: http.MethodDelete, path: "/subscription/{subscription}", call: a.deleteSubscription},
		{method: http.MethodGet, path: "/subscription/{subscription}/cursor", call: a.getCursor},
		{method: http.MethodPost, path: "/subscription/{subscription}/cursor", call: a.moveCursor},
		{method: http.MethodGet, path: "/subscription/{subscription}/consumer/{consumer}/messages", call: a.fetch},
		{method: http.MethodPost, path: "/subscription/{subscription}/consumer/{consumer}/cursor", call: a.moveCursor},
		{method: http.MethodPost, path: "/subscription/{subscription}/consumer/{consumer}/nack", call: a.nack},
		{method: http.MethodDelete, path: "/subscription/{subscription}/consumers/{consumer}", call: a.leave},
	} {
		e.shape = shapeOf(e.path)
		a.endpoints = append(a.endpoints, e)
	}
	return a
}

// endpoint is one call about a topic.
type endpoint struct {
	method string
	path   string // behind the topic
	shape  shape  // of path
	call   func(w http.ResponseWriter, r *httpx.Request, at *place) error
}

// routes has one catch-all for each method: a topic may be written with a word
// before it or without, which no router tells apart.
func (a *api) routes() []httpx.Route {
	covered := map[string][]string{}
	for _, e := range a.endpoints {
		covered[e.method] = append(covered[e.method], topicPath+e.path)
	}
	const partitions = AdminPrefix + "/persistent/:tenant/:namespace/:topic/partitions"
	return []httpx.Route{
		{Method: http.MethodPost, Path: Prefix + "/*rest", Handler: a.dispatch, Covers: covered[http.MethodPost]},
		// A fetch leases, so that none of these answers HEAD.
		{Method: http.MethodGet, Path: Prefix + "/*rest", Handler: a.dispatch, Covers: covered[http.MethodGet], Unsafe: true},
		{Method: http.MethodDelete, Path: Prefix + "/*rest", Handler: a.dispatch, Covers: covered[http.MethodDelete]},
		{Method: http.MethodPut, Path: partitions, Handler: a.makePartitions},
		{Method: http.MethodGet, Path: partitions, Handler: a.countPartitions},
	}
}

// dispatch finds the call that a path means.
func (a *api) dispatch(w http.ResponseWriter, r *httpx.Request) error {
	var longest [12]string // of the paths that there are
	words := longest[:0]
	for word := range strings.SplitSeq(r.Param("rest")[1:], "/") {
		words = append(words, word)
	}
	var allow []string
	for i := range a.endpoints {
		e := &a.endpoints[i]
		at, err := e.shape.place(words)
		switch {
		case err != nil:
			return err
		case at == nil:
		case e.method == r.Method:
			return e.call(w, r, at)
		default:
			allow = append(allow, e.method)
		}
	}
	if allow == nil {
		return httpx.ErrNoRoute
	}
	return httpx.NotAllowed(w, r, allow)
}
