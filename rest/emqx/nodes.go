package emqx

import (
	"fmt"
	"net/http"
	"runtime"
	"time"

	"millrace/rest/internal/httpx"
)

// edition is the word for EMQX without a licence, which clients know.
const edition = "Opensource"

// role is the word for a node that keeps data.
const role = "core"

// System is the machine and the process, as its owner reads them.
type System struct {
	Load                    [3]float64 // of 1, 5 and 15 minutes
	MaxFiles                uint64
	MemoryTotal, MemoryUsed uint64 // bytes; used by this process
}

type nodeView struct {
	Node            string  `json:"node"`
	NodeStatus      string  `json:"node_status"`
	Uptime          int64   `json:"uptime"`
	Version         string  `json:"version"`
	Edition         string  `json:"edition"`
	Role            string  `json:"role"`
	Leader          *bool   `json:"leader,omitempty"` // of a cluster
	Connections     int     `json:"connections"`
	LiveConnections int     `json:"live_connections"`
	ClusterSessions int     `json:"cluster_sessions"`
	Load1           float64 `json:"load1"`
	Load5           float64 `json:"load5"`
	Load15          float64 `json:"load15"`
	MaxFDs          uint64  `json:"max_fds"`
	MemoryTotal     string  `json:"memory_total"`
	MemoryUsed      string  `json:"memory_used"`
	ProcessUsed     int     `json:"process_used"`
	Runtime         string  `json:"otp_release"`
}

func (a *api) viewNode() nodeView {
	now, _ := a.clients.Counts()
	v := nodeView{
		Node: a.options.Node, NodeStatus: "running", Uptime: time.Since(a.started).Milliseconds(),
		Version: a.options.Version, Edition: edition, Role: role,
		Connections: now.Sessions, LiveConnections: now.Connected, ClusterSessions: now.Sessions,
		ProcessUsed: runtime.NumGoroutine(), Runtime: runtime.Version(),
	}
	if a.options.System != nil {
		s := a.options.System()
		v.Load1, v.Load5, v.Load15, v.MaxFDs = s.Load[0], s.Load[1], s.Load[2], s.MaxFiles
		v.MemoryTotal, v.MemoryUsed = megabytes(s.MemoryTotal), megabytes(s.MemoryUsed)
	}
	return v
}

func megabytes(n uint64) string { return fmt.Sprintf("%.2fM", float64(n)/(1<<20)) }

func (a *api) listNodes(w http.ResponseWriter, r *httpx.Request) error {
	if a.peers == nil {
		return answer(w, r, []nodeView{a.viewNode()})
	}
	views, lost, err := a.viewNodes(r)
	if err != nil {
		return err
	}
	mark(w, lost)
	return answer(w, r, views)
}

// node refuses in a path the name of a node that is not there.
func (a *api) node(r *httpx.Request) error {
	if node := r.Param("node"); node != a.options.Node {
		return missing(notFound, "there is no node %q, only %s", httpx.Clip(node), a.names())
	}
	return nil
}

func (a *api) getNode(w http.ResponseWriter, r *httpx.Request) error {
	if a.peers == nil {
		if err := a.node(r); err != nil {
			return err
		}
		return answer(w, r, a.viewNode())
	}
	views, lost, err := a.viewNodes(r)
	if err != nil {
		return err
	}
	for _, v := range views {
		if v.Node == r.Param("node") {
			if v.NodeStatus == "stopped" {
				mark(w, lost)
			}
			return answer(w, r, v)
		}
	}
	return a.node(r)
}

// nodePart serves GET /nodes/:node/stats and /nodes/:node/metrics.
func (a *api) nodePart(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.node(r); err != nil {
		return err
	}
	switch r.Param("part") {
	case "stats":
		return answer(w, r, a.stats())
	case "metrics":
		return answer(w, r, a.metrics())
	}
	return httpx.ErrNoRoute
}

func (a *api) cluster(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, struct {
		Name  string   `json:"name"`
		Nodes []string `json:"nodes"`
		Self  string   `json:"self"`
	}{"millrace", a.nodeNames(), a.options.Node})
}

// topology tells who keeps data for whom: each node, for itself.
func (a *api) topology(w http.ResponseWriter, r *httpx.Request) error {
	type core struct {
		Node       string   `json:"core_node"`
		Replicants []string `json:"replicant_nodes"`
	}
	var cores []core
	for _, name := range a.nodeNames() {
		cores = append(cores, core{name, []string{}})
	}
	return answer(w, r, cores)
}

// status is for load balancers: it asks for no credentials.
func (a *api) status(w http.ResponseWriter, r *httpx.Request) error {
	format, err := r.Query("format")
	if err != nil {
		return badQuery(err)
	}
	code, broker, app := http.StatusOK, "started", "running"
	if a.broker.Ready() != nil || r.Drained() {
		code, app = http.StatusServiceUnavailable, "not_running"
		w.Header().Set("Retry-After", "15")
	}
	if format == "json" {
		return answerStatus(w, r, code, struct {
			NodeName string  `json:"node_name"`
			Release  string  `json:"rel_vsn"`
			Cluster  *string `json:"cluster"`
			Broker   string  `json:"broker_status"`
			App      string  `json:"app_status"`
		}{a.options.Node, a.options.Version, nil, broker, app})
	}
	return writeText(w, r, code, fmt.Sprintf("Node %s is %s\nemqx is %s", a.options.Node, broker, app))
}

func writeText(w http.ResponseWriter, r *httpx.Request, status int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(text)) // an error means that the client has gone
	}
	return nil
}

// aggregated reads ?aggregate=, and ?node= of another node as nothing to show.
func (a *api) aggregated(r *httpx.Request) (together, other bool, err error) {
	if together, _, err = queryBool(r, "aggregate"); err != nil {
		return false, false, err
	}
	node, err := r.Query("node")
	return together, node != "" && node != a.options.Node, badQuery(err)
}

func (a *api) getStats(w http.ResponseWriter, r *httpx.Request) error {
	return a.answerNumbers(w, r, a.stats())
}

func (a *api) getMetrics(w http.ResponseWriter, r *httpx.Request) error {
	return a.answerNumbers(w, r, a.metrics())
}

// answerNumbers answers an object, or a list of one for each node.
func (a *api) answerNumbers(w http.ResponseWriter, r *httpx.Request, n map[string]int64) error {
	together, other, err := a.aggregated(r)
	switch {
	case err != nil:
		return err
	case other:
		return answer(w, r, []struct{}{})
	case together:
		return answer(w, r, n)
	}
	byNode := map[string]any{"node": a.options.Node}
	for name, v := range n {
		byNode[name] = v
	}
	return answer(w, r, []any{byNode})
}

// stats are EMQX's gauges, each with the most there was since the start where
// that is known.
func (a *api) stats() map[string]int64 {
	now, peak := a.clients.Counts()
	n := map[string]int64{}
	both := func(name string, now, peak int) {
		n[name+".count"], n[name+".max"] = int64(now), int64(peak)
	}
	both("connections", now.Sessions, peak.Sessions)
	both("live_connections", now.Connected, peak.Connected)
	both("cluster_sessions", now.Sessions, peak.Sessions)
	both("sessions", now.Sessions, peak.Sessions)
	both("channels", now.Sessions, peak.Sessions)
	both("topics", now.Topics, peak.Topics)
	both("subscribers", now.Subscriptions, peak.Subscriptions)
	both("subscriptions", now.Subscriptions, peak.Subscriptions)
	both("subscriptions.shared", now.SharedSubscriptions, peak.SharedSubscriptions)
	both("suboptions", now.Subscriptions, peak.Subscriptions)
	both("retained", a.broker.RetainedCount(), a.broker.RetainedMost())
	n["delayed.count"] = a.counters()["messages.delayed"]
	return n
}

// noRules, noBridges and license answer what tools of EMQX ask for at their
// start, although there is nothing of the kind here.
func (a *api) noRules(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	return answer(w, r, pageOf([]struct{}{}, p))
}

func (a *api) noBridges(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, []struct{}{})
}

func (a *api) license(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, struct {
		Customer string `json:"customer"`
		Type     string `json:"type"`
	}{"none", "community"})
}
