// Package emqx speaks the management API of EMQX 5 and 6 under /api/v5, so that
// its tools find their way: clients, subscriptions, publishing, retained and
// delayed messages, bans, users, keys and rules, figures, queues and streams.
// docs/dialects/emqx.md tells what is EMQX's and what is ours. It translates;
// everything that matters happens in the broker and in the MQTT edge.
package emqx

import (
	"cmp"
	"iter"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/alarms"
	"millrace/broker/auth"
	"millrace/broker/clients"
	"millrace/broker/history"
	"millrace/rest/internal/httpx"
)

// Prefix is what the path of a request of the dialect begins with, but for
// StatusPath and those of the document.
const (
	Prefix       = "/api/v5"
	StatusPath   = "/status"
	DocumentPath = "/api-docs/swagger.json"
	SpecPath     = "/api-spec.json"
)

// Options are what the dialect shows beside the broker. Zero values take the
// stated default.
type Options struct {
	Node       string // name@host; default millrace@127.0.0.1
	Version    string // of the program, alone; default unknown
	MaxPayload int    // bytes; for the settings that are shown
	// DenyAction is what a client meets that publishes where it may not: ignore
	// (default) or disconnect.
	DenyAction string
	Clients    *clients.Registry // default: there are none
	Alarms     *alarms.Book      // default: there are none
	History    *history.History  // nil = no samples are taken
	Listeners  Listeners         // nil = MQTT is not served
	System     func() System     // nil = nothing is known
	Settings   func() []Setting  // those in force; nil = none are shown
	// Counters yields those of the MQTT edge; nil = MQTT is not served.
	Counters iter.Seq2[string, int64]
	// Cluster is the other nodes; nil = there are none. Node is its name of this one.
	Cluster broker.Cluster
}

type api struct {
	broker  *broker.Broker
	auth    *auth.Auth
	clients *clients.Registry
	options Options
	started time.Time
	peers   *peers // nil = this node is alone
}

// New returns the handler of the dialect.
func New(b *broker.Broker, s *httpx.Shared, o Options) *httpx.Mux {
	o.Node, o.Version = cmp.Or(o.Node, "millrace@127.0.0.1"), cmp.Or(o.Version, "unknown")
	o.DenyAction = cmp.Or(o.DenyAction, "ignore")
	if o.Clients == nil {
		o.Clients = &clients.Registry{}
	}
	if o.Alarms == nil {
		o.Alarms = alarms.NewBook(zerolog.Nop())
	}
	if o.Cluster != nil {
		o.Node = o.Cluster.Self()
	}
	a := &api{broker: b, auth: b.Auth(), clients: o.Clients, options: o, started: time.Now()}
	if o.Cluster != nil {
		a.join(o.Cluster, s)
	}
	return httpx.NewMux(s, httpx.Dialect{
		Name:         Door,
		Routes:       a.routes(),
		Authenticate: a.authenticate,
		RenderError:  renderError,
	})
}

func (a *api) routes() (all []httpx.Route) {
	for _, part := range [][]httpx.Route{
		a.openRoutes(), a.accountRoutes(), a.accessRoutes(), a.clientRoutes(), a.messageRoutes(), a.figureRoutes(), a.logRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}

// openRoutes ask for no credentials.
func (a *api) openRoutes() []httpx.Route {
	return []httpx.Route{
		{Method: http.MethodPost, Path: Prefix + "/login", Handler: a.login, Open: true},
		{Method: http.MethodGet, Path: StatusPath, Handler: a.status, Open: true},
		{Method: http.MethodGet, Path: Prefix + "/status", Handler: a.status, Open: true},
		{Method: http.MethodGet, Path: DocumentPath, Handler: a.document, Open: true},
		{Method: http.MethodGet, Path: SpecPath, Handler: a.document, Open: true},
		{Method: http.MethodGet, Path: exporterPath, Handler: a.prometheusStats, Open: true}, // it asks by itself
		{Method: http.MethodGet, Path: Prefix + "/error_codes", Handler: a.listCodes, Open: true},
		{Method: http.MethodGet, Path: Prefix + "/error_codes/:code", Handler: a.getCode, Open: true},
	}
}

// accountRoutes are for logins: keys may not make keys.
func (a *api) accountRoutes() []httpx.Route {
	const key, user = Prefix + "/api_key/:name", Prefix + "/users/:username"
	view := func(h httpx.Handler) httpx.Handler { return a.loggedIn(a.view(h)) }
	manage := func(h httpx.Handler) httpx.Handler { return a.loggedIn(a.manage(h)) }
	return []httpx.Route{
		{Method: http.MethodPost, Path: Prefix + "/logout", Handler: a.loggedIn(a.logout)},

		{Method: http.MethodGet, Path: Prefix + "/api_key", Handler: view(a.listKeys)},
		{Method: http.MethodPost, Path: Prefix + "/api_key", Handler: manage(a.createKey)},
		{Method: http.MethodGet, Path: key, Handler: view(a.getKey)},
		{Method: http.MethodPut, Path: key, Handler: manage(a.changeKey)},
		{Method: http.MethodDelete, Path: key, Handler: manage(a.deleteKey)},

		{Method: http.MethodGet, Path: Prefix + "/users", Handler: view(a.listUsers)},
		{Method: http.MethodPost, Path: Prefix + "/users", Handler: manage(a.createUser)},
		{Method: http.MethodPut, Path: user, Handler: manage(a.changeUser)},
		{Method: http.MethodDelete, Path: user, Handler: manage(a.deleteUser)},
		{Method: http.MethodPost, Path: user + "/change_pwd", Handler: a.loggedIn(a.changePassword)},
	}
}

// accessRoutes are about who may come in and what they may do.
func (a *api) accessRoutes() []httpx.Route {
	const (
		id     = authenticatorPath
		source = Prefix + "/authorization/sources/:type"
		rules  = source + "/:part/:kind"
	)
	covers := func(path string, parts ...string) (all []string) {
		for _, p := range parts {
			all = append(all, path+p)
		}
		return all
	}
	const authn, database = "/authentication/{id}", "/authorization/sources/built_in_database/rules"
	return []httpx.Route{
		{Method: http.MethodGet, Path: Prefix + "/authentication", Handler: a.view(a.listAuthenticators)},
		{Method: http.MethodPost, Path: Prefix + "/authentication", Handler: a.manage(a.createAuthenticator)},
		{Method: http.MethodGet, Path: id, Handler: a.view(a.getAuthenticator)},
		{Method: http.MethodGet, Path: id + "/:part", Handler: a.view(a.authenticatorPart), Covers: covers(authn, "/users", "/status")},
		{Method: http.MethodPost, Path: id + "/:part", Handler: a.manage(a.createAuthUser), Covers: covers(authn, "/users")},
		{Method: http.MethodGet, Path: id + "/:part/:user", Handler: a.view(a.getAuthUser), Covers: covers(authn, "/users/{user_id}")},
		{Method: http.MethodPut, Path: id + "/:part/:user", Handler: a.manage(a.changeAuthUser), Covers: covers(authn, "/users/{user_id}")},
		{Method: http.MethodDelete, Path: id + "/:part/:user", Handler: a.manage(a.deleteAuthUser), Covers: covers(authn, "/users/{user_id}")},

		{Method: http.MethodGet, Path: Prefix + "/authorization/settings", Handler: a.view(a.authorizationSettings)},
		{Method: http.MethodGet, Path: Prefix + "/authorization/sources", Handler: a.view(a.listSources)},
		{Method: http.MethodGet, Path: source, Handler: a.view(a.getSource)},
		{Method: http.MethodGet, Path: source + "/:part", Handler: a.view(a.sourcePart), Covers: []string{"/authorization/sources/{type}/status"}},
		{Method: http.MethodDelete, Path: source + "/:part", Handler: a.manage(a.purgeRules), Covers: covers(database, "")},
		{Method: http.MethodGet, Path: rules, Handler: a.view(a.listRules), Covers: covers(database, "/users", "/clients", "/all")},
		{Method: http.MethodPost, Path: rules, Handler: a.manage(a.createRules), Covers: covers(database, "/users", "/clients", "/all")},
		{Method: http.MethodDelete, Path: rules, Handler: a.manage(a.deleteRules), Covers: covers(database, "/all")},
		{Method: http.MethodGet, Path: rules + "/:who", Handler: a.view(a.getRules), Covers: covers(database, "/users/{username}", "/clients/{clientid}")},
		{Method: http.MethodPut, Path: rules + "/:who", Handler: a.manage(a.setRules), Covers: covers(database, "/users/{username}", "/clients/{clientid}")},
		{Method: http.MethodDelete, Path: rules + "/:who", Handler: a.manage(a.deleteRules), Covers: covers(database, "/users/{username}", "/clients/{clientid}")},

		{Method: http.MethodGet, Path: Prefix + "/banned", Handler: a.view(a.listBans)},
		{Method: http.MethodPost, Path: Prefix + "/banned", Handler: a.manage(a.createBan)},
		{Method: http.MethodDelete, Path: Prefix + "/banned", Handler: a.manage(a.deleteBans)},
		{Method: http.MethodDelete, Path: Prefix + "/banned/:as/:who", Handler: a.manage(a.deleteBan)},
	}
}

func (a *api) clientRoutes() []httpx.Route {
	const client, covered = Prefix + "/clients/:clientid", "/clients/{clientid}"
	return []httpx.Route{
		{Method: http.MethodGet, Path: Prefix + "/clients", Handler: a.view(a.paged(a.listClients))},
		{Method: http.MethodGet, Path: Prefix + "/clients_v2", Handler: a.view(a.continued(a.listClientsFrom))},
		{Method: http.MethodGet, Path: client, Handler: a.view(a.onClient(a.getClient))},
		{Method: http.MethodDelete, Path: client, Handler: a.manage(a.onClient(a.kick))},
		{Method: http.MethodGet, Path: client + "/:part", Handler: a.view(a.onClient(a.clientPart)), Covers: []string{
			covered + "/subscriptions", covered + "/mqueue_messages", covered + "/inflight_messages",
		}},
		{Method: http.MethodPost, Path: client + "/:action", Handler: a.manage(a.clientAction), Covers: []string{
			"/clients/kickout/bulk", covered + "/subscribe", covered + "/unsubscribe",
		}},
		{Method: http.MethodPost, Path: client + "/:action/:sub", Handler: a.manage(a.onClient(a.clientActions)), Covers: []string{
			covered + "/subscribe/bulk", covered + "/unsubscribe/bulk",
		}},
		{Method: http.MethodPut, Path: client + "/keepalive", Handler: a.manage(a.onClient(a.setKeepAlive))},
		{Method: http.MethodGet, Path: client + "/:part/:sub", Handler: a.view(a.onClient(a.authorizationCache)), Covers: []string{covered + "/authorization/cache"}},
		{Method: http.MethodDelete, Path: client + "/:part/:sub", Handler: a.manage(a.onClient(a.authorizationCache)), Covers: []string{covered + "/authorization/cache"}},
		{Method: http.MethodGet, Path: Prefix + "/sessions_count", Handler: a.view(a.onAll(a.sessionsCount, a.sessionsOfAll))},
		{Method: http.MethodGet, Path: Prefix + "/subscriptions", Handler: a.view(a.paged(a.listSubscriptions))},
		{Method: http.MethodGet, Path: Prefix + "/topics", Handler: a.view(a.paged(a.listTopics))},
		{Method: http.MethodGet, Path: Prefix + "/topics/:topic", Handler: a.view(a.joined(a.getTopic))},
	}
}

func (a *api) messageRoutes() []httpx.Route {
	const (
		retained = Prefix + "/mqtt/retainer/message"
		delayed  = Prefix + "/mqtt/delayed/messages"
	)
	return []httpx.Route{
		// Who may publish what is asked of each topic: a rule can let a viewer.
		{Method: http.MethodPost, Path: Prefix + "/publish", Handler: a.publish},
		{Method: http.MethodPost, Path: Prefix + "/publish/bulk", Handler: a.publishBulk},

		{Method: http.MethodGet, Path: Prefix + "/mqtt/retainer", Handler: a.view(a.retainer)},
		{Method: http.MethodGet, Path: Prefix + "/mqtt/retainer/messages", Handler: a.view(a.listRetained)},
		{Method: http.MethodDelete, Path: Prefix + "/mqtt/retainer/messages", Handler: a.manage(a.clearAllRetained)},
		{Method: http.MethodGet, Path: retained + "/:topic", Handler: a.view(a.getRetained)},
		{Method: http.MethodDelete, Path: retained + "/:topic", Handler: a.manage(a.clearRetained)},

		{Method: http.MethodGet, Path: Prefix + "/mqtt/delayed", Handler: a.view(a.delayed)},
		{Method: http.MethodPut, Path: Prefix + "/mqtt/delayed", Handler: a.manage(a.setDelayed)},
		{Method: http.MethodGet, Path: delayed, Handler: a.view(a.listDelayed)},
		{Method: http.MethodDelete, Path: delayed + "/:a", Handler: a.manage(a.deleteDelayedTopic), Covers: []string{"/mqtt/delayed/messages/{topic}"}},
		{Method: http.MethodGet, Path: delayed + "/:a/:b", Handler: a.view(a.getDelayed), Covers: []string{"/mqtt/delayed/messages/{node}/{msgid}"}},
		{Method: http.MethodDelete, Path: delayed + "/:a/:b", Handler: a.manage(a.deleteDelayed), Covers: []string{"/mqtt/delayed/messages/{node}/{msgid}"}},
	}
}

func (a *api) figureRoutes() []httpx.Route {
	const node, counted = Prefix + "/nodes/:node", Prefix + "/mqtt/topic_metrics"
	return []httpx.Route{
		{Method: http.MethodGet, Path: Prefix + "/nodes", Handler: a.view(a.listNodes)},
		{Method: http.MethodGet, Path: node, Handler: a.view(a.getNode)},
		{Method: http.MethodGet, Path: node + "/:part", Handler: a.view(a.onNode(a.nodePart)), Covers: []string{"/nodes/{node}/stats", "/nodes/{node}/metrics"}},
		{Method: http.MethodGet, Path: Prefix + "/cluster", Handler: a.view(a.cluster)},
		{Method: http.MethodGet, Path: Prefix + "/cluster/topology", Handler: a.view(a.topology)},
		{Method: http.MethodGet, Path: Prefix + "/configs", Handler: a.view(a.getConfigs)},
		{Method: http.MethodGet, Path: Prefix + "/configs/:root", Handler: a.view(a.getConfig)},
		{Method: http.MethodGet, Path: Prefix + "/stats", Handler: a.view(a.numbersOfAll(a.getStats))},
		{Method: http.MethodGet, Path: Prefix + "/metrics", Handler: a.view(a.numbersOfAll(a.getMetrics))},
		{Method: http.MethodGet, Path: Prefix + "/monitor", Handler: a.view(summed(a, a.monitor, sumSamples))},
		{Method: http.MethodDelete, Path: Prefix + "/monitor", Handler: a.manage(a.everywhere(a.clearMonitor, 0))},
		{Method: http.MethodGet, Path: Prefix + "/monitor/nodes/:node", Handler: a.view(a.onNode(a.monitorOf))},
		{Method: http.MethodGet, Path: Prefix + "/monitor_current", Handler: a.view(summed(a, a.monitorCurrent, sumCurrent))},
		{Method: http.MethodGet, Path: Prefix + "/monitor_current/nodes/:node", Handler: a.view(a.onNode(a.monitorCurrentOf))},
		{Method: http.MethodGet, Path: counted, Handler: a.view(summed(a, a.listTopicMetrics, merged(sumTopics)))},
		{Method: http.MethodPost, Path: counted, Handler: a.manage(a.createTopicMetrics)},
		{Method: http.MethodPut, Path: counted, Handler: a.manage(a.resetTopicMetricsOfAll)},
		{Method: http.MethodGet, Path: counted + "/:topic", Handler: a.view(summed(a, a.getTopicMetrics, sumTopics))},
		{Method: http.MethodDelete, Path: counted + "/:topic", Handler: a.manage(a.deleteTopicMetrics)},
		{Method: http.MethodGet, Path: Prefix + "/alarms", Handler: a.view(a.paged(a.listAlarms))},
		{Method: http.MethodDelete, Path: Prefix + "/alarms", Handler: a.manage(a.everywhere(a.forgetAlarms, 0))},
		{Method: http.MethodPost, Path: Prefix + "/alarms/force_deactivate", Handler: a.manage(a.everywhere(a.deactivateAlarm, http.StatusBadRequest))},
		{Method: http.MethodGet, Path: Prefix + "/listeners", Handler: a.view(summed(a, a.listListeners, merged(sumListeners)))},
		{Method: http.MethodGet, Path: Prefix + "/listeners_status", Handler: a.view(summed(a, a.listenersStatus, merged(sumTypes)))},
		{Method: http.MethodGet, Path: Prefix + "/listeners/:id", Handler: a.view(summed(a, a.getListener, sumListeners))},
		{Method: http.MethodPost, Path: Prefix + "/listeners/:id/:operation", Handler: a.manage(a.everywhere(a.operateListener, http.StatusNotFound)), Covers: []string{
			"/listeners/{id}/start", "/listeners/{id}/stop", "/listeners/{id}/restart",
		}},
		// Tools ask for these at their start, and take an error for a fault.
		{Method: http.MethodGet, Path: Prefix + "/rules", Handler: a.view(a.noRules)},
		{Method: http.MethodGet, Path: Prefix + "/bridges", Handler: a.view(a.noBridges)},
		{Method: http.MethodGet, Path: Prefix + "/license", Handler: a.view(a.license)},
	}
}

// logRoutes are about queues and streams; rules about one of them are asked of
// it besides. EMQX had them under other paths first, which still work.
func (a *api) logRoutes() (all []httpx.Route) {
	for _, at := range []struct{ queues, queue, streams, stream string }{
		{"/queues", "/queue/:name", "/streams", "/stream/:name"},
		{"/message_queues/queues", "/message_queues/queues/:name", "/message_streams/streams", "/message_streams/streams/:name"},
	} {
		all = append(all, []httpx.Route{
			{Method: http.MethodGet, Path: Prefix + at.queues, Handler: a.view(a.listQueues)},
			{Method: http.MethodPost, Path: Prefix + at.queues, Handler: a.manage(a.createQueue)},
			{Method: http.MethodGet, Path: Prefix + at.queue, Handler: a.view(a.getQueue)},
			{Method: http.MethodPut, Path: Prefix + at.queue, Handler: a.manage(a.changeQueue)},
			{Method: http.MethodDelete, Path: Prefix + at.queue, Handler: a.manage(a.deleteQueue)},
			{Method: http.MethodGet, Path: Prefix + at.streams, Handler: a.view(a.listStreams)},
			{Method: http.MethodPost, Path: Prefix + at.streams, Handler: a.manage(a.createStream)},
			{Method: http.MethodGet, Path: Prefix + at.stream, Handler: a.view(a.getStream)},
			{Method: http.MethodPut, Path: Prefix + at.stream, Handler: a.manage(a.changeStream)},
			{Method: http.MethodDelete, Path: Prefix + at.stream, Handler: a.manage(a.deleteStream)},
		}...)
	}
	return all
}
