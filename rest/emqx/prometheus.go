package emqx

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

const exporterPath = Prefix + "/prometheus/stats"

// exports are figures under the names that EMQX has for them towards Prometheus,
// by the group that it has them in.
type exports map[string]map[string]int64

// nodeExports are those of one node; "" is that they are of no node in particular.
type nodeExports struct {
	node string
	exports
}

// otherNames are those that are not made of the counter's own by the rule.
var otherNames = map[string]string{
	"packets.connect.received":              "emqx_packets_connect",
	"messages.dropped.await_pubrel_timeout": "emqx_messages_dropped_expired",
}

// exportName is what EMQX calls a counter towards Prometheus.
func exportName(counter string) string {
	if name, ok := otherNames[counter]; ok {
		return name
	}
	return "emqx_" + strings.ReplaceAll(counter, ".", "_")
}

// exportGroups are the objects of the answer in JSON, by the first word of the
// counters in them.
var exportGroups = map[string]string{
	"bytes": "packets", "packets": "packets", "messages": "messages", "delivery": "delivery", "client": "client", "session": "session",
	"authorization": "acl", "authentication": "authn",
}

// isGauge reports whether a figure may go down.
func isGauge(group, name string) bool {
	switch group {
	case "cluster", "stats", "metrics":
		return true
	}
	// EMQX has these two among its counters.
	return name == "emqx_messages_retained" || name == "emqx_messages_delayed"
}

// exports are all figures of this node. Those of Erlang's own, and of the
// processor, are left out: nobody takes them here.
func (a *api) exports() exports {
	all := exports{"cluster": runningNodes(len(a.nodeNames()), 0), "stats": {}}
	for name, n := range a.stats() {
		all["stats"][exportName(name)] = n
	}
	for name, n := range a.metrics() {
		word, _, _ := strings.Cut(name, ".")
		group := exportGroups[word]
		if all[group] == nil {
			all[group] = map[string]int64{}
		}
		all[group][exportName(name)] = n
	}
	if a.options.System != nil {
		s := a.options.System()
		all["metrics"] = map[string]int64{"emqx_vm_total_memory": int64(s.MemoryTotal), "emqx_vm_used_memory": int64(s.MemoryUsed)}
	}
	return all
}

func runningNodes(running, stopped int) map[string]int64 {
	return map[string]int64{"emqx_cluster_nodes_running": int64(running), "emqx_cluster_nodes_stopped": int64(stopped)}
}

// ofCluster are figures that are the same for every node, and so never have one
// as a label.
func ofCluster(name string) bool {
	return strings.HasPrefix(name, "emqx_cluster_") || strings.HasPrefix(name, "emqx_topics_") || strings.HasPrefix(name, "emqx_retained_")
}

// prometheusStats answers EMQX's exporter. Like /metrics it is open to this
// machine, and else to whoever may view.
func (a *api) prometheusStats(w http.ResponseWriter, r *httpx.Request) error {
	if err := httpx.MayScrape(a.broker, audience, r); broker.KindOf(err) == broker.Forbidden {
		return problemf(http.StatusForbidden, unauthorizedRole, "%s", err)
	} else if err != nil {
		return err
	}
	return a.export(w, r)
}

// export answers in text, or in JSON to whoever accepts that alone.
func (a *api) export(w http.ResponseWriter, r *httpx.Request) error {
	mode, err := r.Query("mode")
	if err != nil {
		return badQuery(err)
	}
	nodes := []nodeExports{{exports: a.exports()}}
	switch mode {
	case "", "node":
	case "all_nodes_aggregated":
		nodes, err = a.exportsOfAll(w, r)
		nodes = []nodeExports{{exports: sumExports(nodes)}}
	case "all_nodes_unaggregated":
		nodes, err = a.exportsOfAll(w, r)
		shareCluster(nodes)
	default:
		return problemf(http.StatusBadRequest, badRequest, "mode is %q, it must be node, all_nodes_aggregated or all_nodes_unaggregated", httpx.Clip(mode))
	}
	if err != nil {
		return err
	}
	w.Header().Set("Vary", "Accept")
	if r.Header.Get("Accept") == "application/json" {
		return answer(w, r, exportJSON(nodes))
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpx.WriteText(w, r, "text/plain; version=0.0.4; charset=utf-8", exportText(nodes))
}

// exportsOfAll are those of every node that answers.
func (a *api) exportsOfAll(w http.ResponseWriter, r *httpx.Request) ([]nodeExports, error) {
	if a.peers == nil {
		return []nodeExports{{a.options.Node, a.exports()}}, nil
	}
	q := get(r, exporterPath, "")
	q.Header.Set("Accept", "application/json")
	all := a.peers.askAll(r.Context(), q)
	lost := silent(all)
	mark(w, lost)
	var nodes []nodeExports
	for _, n := range all {
		if n.reply == nil || n.Status != http.StatusOK {
			continue
		}
		x := nodeExports{node: n.Name}
		if err := json.Unmarshal(n.Body, &x.exports); err != nil {
			return nil, err
		}
		x.exports["cluster"] = runningNodes(len(all)-len(lost), len(lost))
		nodes = append(nodes, x)
	}
	return nodes, nil
}

// shareCluster has each node show what is of the cluster as of all of them.
func shareCluster(nodes []nodeExports) {
	total := sumExports(nodes)
	for _, n := range nodes {
		for group, figures := range n.exports {
			for name := range figures {
				if ofCluster(name) {
					figures[name] = total[group][name]
				}
			}
		}
	}
}

// sumExports adds what nodes have.
func sumExports(nodes []nodeExports) exports {
	byGroup := map[string][]map[string]int64{}
	for _, n := range nodes {
		for group, figures := range n.exports {
			byGroup[group] = append(byGroup[group], figures)
		}
	}
	total := exports{}
	for group, figures := range byGroup {
		if total[group] = sum(figures); group == "cluster" {
			total[group] = figures[0]
		}
	}
	return total
}

func exportText(nodes []nodeExports) (text []byte) {
	type line struct {
		name, node string
		gauge      bool
		value      int64
	}
	var lines []line
	for i, n := range nodes {
		for group, figures := range n.exports {
			for name, value := range figures {
				l := line{name, n.node, isGauge(group, name), value}
				if ofCluster(name) {
					l.node = ""
				}
				if i == 0 || l.node != "" {
					lines = append(lines, l)
				}
			}
		}
	}
	slices.SortFunc(lines, func(x, y line) int { return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(x.node, y.node)) })
	last := ""
	for _, l := range lines {
		if l.name != last {
			last = l.name
			kind := " counter\n"
			if l.gauge {
				kind = " gauge\n"
			}
			text = append(append(append(text, "# TYPE "...), l.name...), kind...)
		}
		text = append(text, l.name...)
		if l.node != "" {
			text = append(strconv.AppendQuote(append(text, "{node="...), l.node), '}')
		}
		text = append(strconv.AppendInt(append(text, ' '), l.value, 10), '\n')
	}
	return text
}

// exportJSON has an object for each group; with nodes apart, a list of them.
func exportJSON(nodes []nodeExports) map[string]any {
	out := map[string]any{}
	for _, n := range nodes {
		for group, figures := range n.exports {
			o := map[string]any{}
			for name, value := range figures {
				o[name] = value
			}
			if n.node == "" {
				out[group] = o
				continue
			}
			o["node"] = n.node
			byNode, _ := out[group].([]any)
			out[group] = append(byNode, o)
		}
	}
	return out
}
