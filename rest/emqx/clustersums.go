package emqx

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// decoded are the answers of the nodes that gave one, by name of the node.
func decoded[T any](all []answered) ([]T, error) {
	values := make([]T, 0, len(all))
	for _, n := range all {
		if n.reply == nil || n.Status != http.StatusOK {
			continue
		}
		var v T
		if err := json.Unmarshal(n.Body, &v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// gather asks every node for the same, says in the answer who was silent, and
// returns the others' answers. Where no node had one, refused is that of one.
func gather[T any](a *api, w http.ResponseWriter, r *httpx.Request, query string) (values []T, refused *reply, err error) {
	all := a.peers.askAll(r.Context(), get(r, r.URL.EscapedPath(), query))
	mark(w, silent(all))
	values, err = decoded[T](all)
	if len(values) == 0 {
		refused = a.worst(all)
	}
	return values, refused, err
}

// summed answers with what sum makes of the answers of all nodes.
func summed[T any](a *api, h httpx.Handler, sum func([]T) T) httpx.Handler {
	return a.onAll(h, func(w http.ResponseWriter, r *httpx.Request) error {
		values, refused, err := gather[T](a, w, r, r.URL.RawQuery)
		switch {
		case err != nil:
			return err
		case refused != nil:
			return refused.send(w)
		}
		return answer(w, r, sum(values))
	})
}

// answerSum answers with what sum makes of answers that are there.
func answerSum[T any](w http.ResponseWriter, r *httpx.Request, all []answered, sum func([]T) T) error {
	values, err := decoded[T](all)
	if err != nil {
		return err
	}
	return answer(w, r, sum(values))
}

// joined answers a list that has the entries of every node.
func (a *api) joined(h httpx.Handler) httpx.Handler {
	return summed(a, h, func(lists [][]json.RawMessage) []json.RawMessage { return slices.Concat(lists...) })
}

// merged puts lists together: of what has one key there is one entry, which sum
// makes of those of all lists. They are in the order of the first that has each.
func merged[T interface{ key() string }](sum func([]T) T) func([][]T) []T {
	return func(lists [][]T) []T {
		byKey := map[string][]T{}
		var keys []string
		for _, v := range slices.Concat(lists...) {
			k := v.key()
			if byKey[k] == nil {
				keys = append(keys, k)
			}
			byKey[k] = append(byKey[k], v)
		}
		all := make([]T, 0, len(keys))
		for _, k := range keys {
			all = append(all, sum(byKey[k]))
		}
		return all
	}
}

// numbersOfAll answers an object for each node, or one with their sums.
func (a *api) numbersOfAll(h httpx.Handler) httpx.Handler {
	each, total := a.joined(h), summed(a, h, sum)
	return func(w http.ResponseWriter, r *httpx.Request) error {
		if together, _, err := a.aggregated(r); err == nil && together {
			return total(w, r)
		}
		return each(w, r)
	}
}

// sameEverywhere are the figures of what all nodes share: each has all of it.
var sameEverywhere = sharedFigures("retained.count", "retained.max", "delayed.count", "messages.retained", "messages.delayed")

// sharedFigures are those with these names, also as the exporter has them.
func sharedFigures(names ...string) map[string]bool {
	all := map[string]bool{}
	for _, name := range names {
		all[name], all[exportName(name)] = true, true
	}
	return all
}

// sum adds the figures of nodes.
func sum(nodes []map[string]int64) map[string]int64 {
	total := map[string]int64{}
	for _, n := range nodes {
		for name, v := range n {
			if sameEverywhere[name] {
				total[name] = max(total[name], v)
			} else {
				total[name] += v
			}
		}
	}
	return total
}

// sessionsOfAll adds up GET /sessions_count.
func (a *api) sessionsOfAll(w http.ResponseWriter, r *httpx.Request) error {
	counts, refused, err := gather[int64](a, w, r, r.URL.RawQuery)
	switch {
	case err != nil:
		return err
	case refused != nil:
		return refused.send(w)
	}
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	return httpx.WriteText(w, r, "text/plain; charset=utf-8", strconv.AppendInt(nil, total, 10))
}

// viewNodes shows the nodes of a cluster, each as it shows itself. One that does
// not answer is stopped, and shown with what its peers know of it.
func (a *api) viewNodes(r *httpx.Request) (views []nodeView, lost []string, err error) {
	all := a.peers.askAll(r.Context(), get(r, Prefix+"/nodes", ""))
	for _, n := range all {
		v := stopped(n.Node)
		if n.reply != nil && n.Status == http.StatusOK {
			var own []nodeView
			if err := json.Unmarshal(n.Body, &own); err != nil || len(own) != 1 {
				return nil, nil, cmp.Or(err, error(&broker.Error{Kind: broker.Internal, Message: "node " + n.Name + " does not show itself alone"}))
			}
			v = own[0]
		}
		v.Leader = &n.Leads
		views = append(views, v)
	}
	return views, silent(all), nil
}

// stopped is a node that does not answer: it is up for no time.
func stopped(n broker.Node) nodeView {
	return nodeView{Node: n.Name, NodeStatus: "stopped", Version: cmp.Or(n.Version, "unknown"), Edition: edition, Role: role}
}
