// Package flowmq speaks the REST API of FlowMQ under /api/v1, and the
// extensions that make it Millrace's own main API. docs/dialects/flowmq.md
// tells which is which. It translates; everything that matters happens in the broker.
package flowmq

import (
	_ "embed"
	"net/http"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// Prefix is what the path of every request of the dialect begins with.
const Prefix = "/api/v1"

// OpenAPI is the document of the dialect.
//
//go:embed openapi.yaml
var OpenAPI []byte

type api struct {
	broker  *broker.Broker
	started time.Time
}

// New returns the handler of the dialect.
func New(b *broker.Broker, s *httpx.Shared) *httpx.Mux {
	a := &api{broker: b, started: time.Now()}
	return httpx.NewMux(s, httpx.Dialect{
		Name:   "flowmq",
		Routes: a.routes(),
		Authenticate: func(r *httpx.Request) (*auth.Principal, error) {
			return httpx.KeyOrToken(b.Auth(), httpx.UserAudience, r)
		},
		RenderError: renderError,
	})
}

// routes merges what httprouter cannot keep apart, under the name of a parameter.
func (a *api) routes() []httpx.Route {
	const (
		queue  = Prefix + "/queues/:queue"
		stream = Prefix + "/streams/:stream"
		cursor = stream + "/cursors/:cursor"
	)
	routes := []httpx.Route{
		{Method: http.MethodGet, Path: Prefix + "/namespace", Handler: a.namespace},
		{Method: http.MethodGet, Path: Prefix + "/backup", Handler: a.backup},

		{Method: http.MethodPost, Path: Prefix + "/topics/*rest", Handler: a.publish, Covers: []string{
			"/topics/{topic}/messages", "/topics/{topic}/messages/batch",
		}},

		{Method: http.MethodPost, Path: Prefix + "/queues", Handler: a.createQueue},
		{Method: http.MethodGet, Path: Prefix + "/queues", Handler: a.listQueues},
		{Method: http.MethodGet, Path: queue, Handler: a.getQueue},
		{Method: http.MethodPatch, Path: queue, Handler: a.changeQueue},
		{Method: http.MethodDelete, Path: queue, Handler: a.deleteQueue},
		{Method: http.MethodPost, Path: queue + "/purge", Handler: a.purge},
		{Method: http.MethodPost, Path: queue + "/pause", Handler: a.pause},
		{Method: http.MethodPost, Path: queue + "/resume", Handler: a.resume},
		{Method: http.MethodPost, Path: queue + "/move", Handler: a.move},
		{Method: http.MethodGet, Path: queue + "/dead", Handler: a.listDead},
		{Method: http.MethodPost, Path: queue + "/dead/redrive", Handler: a.redrive},

		{Method: http.MethodPost, Path: Prefix + "/streams", Handler: a.createStream},
		{Method: http.MethodGet, Path: Prefix + "/streams", Handler: a.listStreams},
		{Method: http.MethodGet, Path: stream, Handler: a.getStream},
		{Method: http.MethodPatch, Path: stream, Handler: a.changeStream},
		{Method: http.MethodDelete, Path: stream, Handler: a.deleteStream},
		{Method: http.MethodGet, Path: stream + "/partitions/:partition/messages", Handler: a.readPartition},
		{Method: http.MethodGet, Path: stream + "/cursors", Handler: a.listCursors},
		{Method: http.MethodPost, Path: cursor, Handler: a.commitCursor},
		{Method: http.MethodGet, Path: cursor, Handler: a.getCursor},
		{Method: http.MethodDelete, Path: cursor, Handler: a.deleteCursor},
	}
	routes = append(routes, a.subscriptionRoutes()...)
	routes = append(routes, a.leaseRoutes(queue, "/queues/{queue}")...)
	return append(routes, a.accessRoutes()...)
}

// leaseRoutes are about the messages of a queue or a subscription.
func (a *api) leaseRoutes(source, shown string) []httpx.Route {
	message := source + "/messages/:message"
	return []httpx.Route{
		{Method: http.MethodGet, Path: source + "/messages", Handler: a.peek},
		{Method: http.MethodPost, Path: message, Handler: a.consumeOrAck, Covers: []string{
			shown + "/messages/consume", shown + "/messages/ack",
		}},
		{Method: http.MethodPost, Path: message + "/ack", Handler: a.ack},
		{Method: http.MethodPost, Path: message + "/nack", Handler: a.nack},
		{Method: http.MethodPost, Path: message + "/extend", Handler: a.extend},
	}
}

// subscriptionRoutes are about the subscriptions on a stream.
func (a *api) subscriptionRoutes() []httpx.Route {
	const (
		all = Prefix + "/streams/:stream/subscriptions"
		one = all + "/:subscription"
	)
	routes := []httpx.Route{
		{Method: http.MethodPost, Path: all, Handler: a.createSubscription},
		{Method: http.MethodGet, Path: all, Handler: a.listSubscriptions},
		{Method: http.MethodGet, Path: one, Handler: a.getSubscription},
		{Method: http.MethodPatch, Path: one, Handler: a.changeSubscription},
		{Method: http.MethodDelete, Path: one, Handler: a.deleteSubscription},
		{Method: http.MethodPost, Path: one + "/seek", Handler: a.seek},
		{Method: http.MethodPost, Path: one + "/ack-up-to", Handler: a.ackUpTo},
	}
	return append(routes, a.leaseRoutes(one, "/streams/{stream}/subscriptions/{subscription}")...)
}

// accessRoutes are about who may do what.
func (a *api) accessRoutes() []httpx.Route {
	const (
		key  = Prefix + "/keys/:key"
		user = Prefix + "/users/:user"
	)
	return []httpx.Route{
		{Method: http.MethodPost, Path: Prefix + "/keys", Handler: a.createKey},
		{Method: http.MethodGet, Path: Prefix + "/keys", Handler: a.listKeys},
		{Method: http.MethodGet, Path: key, Handler: a.getKey},
		{Method: http.MethodPatch, Path: key, Handler: a.changeKey},
		{Method: http.MethodDelete, Path: key, Handler: a.deleteKey},
		{Method: http.MethodPost, Path: key + "/secrets", Handler: a.addSecret},
		{Method: http.MethodDelete, Path: key + "/secrets/first", Handler: a.retireSecret},

		{Method: http.MethodPost, Path: Prefix + "/users", Handler: a.createUser},
		{Method: http.MethodGet, Path: Prefix + "/users", Handler: a.listUsers},
		{Method: http.MethodGet, Path: user, Handler: a.getUser},
		{Method: http.MethodPatch, Path: user, Handler: a.changeUser},
		{Method: http.MethodDelete, Path: user, Handler: a.deleteUser},

		{Method: http.MethodGet, Path: Prefix + "/rules", Handler: a.getRules},
		{Method: http.MethodPut, Path: Prefix + "/rules", Handler: a.setRules},
		{Method: http.MethodPost, Path: Prefix + "/access/explain", Handler: a.explain},

		{Method: http.MethodPost, Path: Prefix + "/login", Handler: a.login, Open: true},
		{Method: http.MethodPost, Path: Prefix + "/login/refresh", Handler: a.refresh, Open: true},
		{Method: http.MethodPost, Path: Prefix + "/login/password", Handler: a.ownPassword, Open: true},
		{Method: http.MethodPost, Path: Prefix + "/logout", Handler: a.logout, Open: true},
		{Method: http.MethodGet, Path: Prefix + "/signing-keys", Handler: a.listSigningKeys},
		{Method: http.MethodPost, Path: Prefix + "/signing-keys/rotate", Handler: a.rotateSigningKey},
	}
}

// namespace answers the one namespace there is: FlowMQ's cloud has many.
func (a *api) namespace(w http.ResponseWriter, r *httpx.Request) error {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return answer(w, r, http.StatusOK, struct {
		Name      string `json:"name"`
		Endpoint  string `json:"endpoint"`
		CreatedAt string `json:"created_at"`
		Status    string `json:"status"`
	}{"default", scheme + r.Host + Prefix, timestamp(a.started), "active"})
}
