package emqx

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// exported is one figure as EMQX shows it to Prometheus.
type exported struct {
	name  string // emqx_…
	gauge bool
	value int64
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

// exports are all figures, by the group that EMQX has them in. Figures of
// Erlang's own, and of the processor, are left out: nobody takes them here.
func (a *api) exports() map[string][]exported {
	all := map[string][]exported{
		"cluster": {{"emqx_cluster_nodes_running", true, 1}, {"emqx_cluster_nodes_stopped", true, 0}},
	}
	for name, n := range a.stats() {
		all["stats"] = append(all["stats"], exported{exportName(name), true, n})
	}
	for name, n := range a.metrics() {
		word, _, _ := strings.Cut(name, ".")
		// EMQX has these two among its counters, though they go down as well.
		gauge := name == "messages.retained" || name == "messages.delayed"
		all[exportGroups[word]] = append(all[exportGroups[word]], exported{exportName(name), gauge, n})
	}
	if a.options.System != nil {
		s := a.options.System()
		all["metrics"] = []exported{
			{"emqx_vm_total_memory", true, int64(s.MemoryTotal)}, {"emqx_vm_used_memory", true, int64(s.MemoryUsed)},
		}
	}
	return all
}

// ofCluster are figures that are the same for every node, and so never have one
// as a label.
func ofCluster(name string) bool {
	return strings.HasPrefix(name, "emqx_cluster_") || strings.HasPrefix(name, "emqx_topics_") || strings.HasPrefix(name, "emqx_retained_")
}

// prometheusStats answers EMQX's exporter: text, or JSON to whoever accepts that
// alone. Like /metrics it is open to this machine, and else to whoever may view.
func (a *api) prometheusStats(w http.ResponseWriter, r *httpx.Request) error {
	if err := httpx.MayScrape(a.broker, audience, r); broker.KindOf(err) == broker.Forbidden {
		return problemf(http.StatusForbidden, unauthorizedRole, "%s", err)
	} else if err != nil {
		return err
	}
	mode, err := r.Query("mode")
	if err != nil {
		return badQuery(err)
	}
	node := ""
	switch mode {
	case "", "node", "all_nodes_aggregated": // one node is all of them
	case "all_nodes_unaggregated":
		node = a.options.Node
	default:
		return problemf(http.StatusBadRequest, badRequest, "mode is %q, it must be node, all_nodes_aggregated or all_nodes_unaggregated", httpx.Clip(mode))
	}
	w.Header().Set("Vary", "Accept")
	if r.Header.Get("Accept") == "application/json" {
		return answer(w, r, exportJSON(a.exports(), node))
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpx.WriteText(w, r, "text/plain; version=0.0.4; charset=utf-8", exportText(a.exports(), node))
}

func exportText(all map[string][]exported, node string) (text []byte) {
	var figures []exported
	for _, group := range all {
		figures = append(figures, group...)
	}
	slices.SortFunc(figures, func(x, y exported) int { return strings.Compare(x.name, y.name) })
	for _, f := range figures {
		kind := " counter\n"
		if f.gauge {
			kind = " gauge\n"
		}
		text = append(append(append(text, "# TYPE "...), f.name...), kind...)
		text = append(text, f.name...)
		if node != "" && !ofCluster(f.name) {
			text = append(strconv.AppendQuote(append(text, "{node="...), node), '}')
		}
		text = append(strconv.AppendInt(append(text, ' '), f.value, 10), '\n')
	}
	return text
}

// exportJSON has an object for each group; with nodes apart, a list of them.
func exportJSON(all map[string][]exported, node string) map[string]any {
	out := map[string]any{}
	for group, figures := range all {
		o := map[string]any{}
		for _, f := range figures {
			o[f.name] = f.value
		}
		if out[group] = o; node != "" {
			o["node"] = node
			out[group] = []any{o}
		}
	}
	return out
}
