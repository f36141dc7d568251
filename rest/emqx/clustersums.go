package emqx

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

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
// returns the others' answers. Where no node had one, refused is this one's own.
func gather[T any](a *api, w http.ResponseWriter, r *httpx.Request, path, query string) (values []T, refused *reply, err error) {
	all := a.peers.askAll(r.Context(), get(r, path, query))
	mark(w, silent(all))
	values, err = decoded[T](all)
	if len(values) == 0 {
		refused = a.worst(all)
	}
	return values, refused, err
}

// joined answers a list that has the entries of every node.
func (a *api) joined(h httpx.Handler) httpx.Handler {
	return a.onAll(h, func(w http.ResponseWriter, r *httpx.Request) error {
		lists, refused, err := gather[[]json.RawMessage](a, w, r, r.URL.EscapedPath(), r.URL.RawQuery)
		switch {
		case err != nil:
			return err
		case refused != nil:
			return refused.send(w)
		}
		return answer(w, r, slices.Concat(lists...))
	})
}

// numbersOfAll answers an object for each node, or one with their sums.
func (a *api) numbersOfAll(h httpx.Handler) httpx.Handler {
	each := a.joined(h)
	return a.onAll(h, func(w http.ResponseWriter, r *httpx.Request) error {
		if together, _, err := a.aggregated(r); err != nil || !together {
			return each(w, r)
		}
		all, _, err := gather[map[string]int64](a, w, r, r.URL.EscapedPath(), "aggregate=true")
		if err != nil {
			return err
		}
		return answer(w, r, sum(all))
	})
}

// sameEverywhere are the figures of what all nodes share: each has all of it.
var sameEverywhere = map[string]bool{
	"retained.count": true, "retained.max": true, "delayed.count": true, "messages.retained": true, "messages.delayed": true,
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

// currentOfAll answers what goes on in all nodes together.
func (a *api) currentOfAll(w http.ResponseWriter, r *httpx.Request) error {
	all, _, err := gather[currentView](a, w, r, r.URL.EscapedPath(), "")
	if err != nil {
		return err
	}
	var v currentView
	for _, n := range all {
		v.ReceivedRate += n.ReceivedRate
		v.SentRate += n.SentRate
		v.DroppedRate += n.DroppedRate
		v.PersistedRate += n.PersistedRate
		v.Connections += n.Connections
		v.LiveConnections += n.LiveConnections
		v.Topics += n.Topics
		v.Subscriptions += n.Subscriptions
		v.Shared += n.Shared
		v.ClusterSessions += n.ClusterSessions
		v.Retained = max(v.Retained, n.Retained) // all of them are on every node
	}
	return answer(w, r, v)
}

// samplesOfAll answers what went on in all nodes together.
func (a *api) samplesOfAll(w http.ResponseWriter, r *httpx.Request) error {
	all, refused, err := gather[[]sampleView](a, w, r, r.URL.EscapedPath(), r.URL.RawQuery)
	switch {
	case err != nil:
		return err
	case refused != nil:
		return refused.send(w)
	}
	return answer(w, r, sumSamples(all))
}

// sampleEvery is how far apart samples are, in milliseconds.
const sampleEvery = 10_000

// sumSamples adds the samples of nodes that ended in the same ten seconds. Of two
// that a node took in one such span the later tells how much there was.
func sumSamples(nodes [][]sampleView) []sampleView {
	spans := map[int64]*sampleView{}
	for _, samples := range nodes {
		for i, s := range samples {
			span := s.TimeStamp / sampleEvery
			v := spans[span]
			if v == nil {
				v = &sampleView{}
				spans[span] = v
			}
			v.TimeStamp = max(v.TimeStamp, s.TimeStamp)
			v.Received += s.Received
			v.Sent += s.Sent
			v.Dropped += s.Dropped
			v.Persisted += s.Persisted
			if i+1 < len(samples) && samples[i+1].TimeStamp/sampleEvery == span {
				continue
			}
			v.Connections += s.Connections
			v.LiveConnections += s.LiveConnections
			v.Topics += s.Topics
			v.Subscriptions += s.Subscriptions
			v.Shared += s.Shared
			v.ClusterSessions += s.ClusterSessions
		}
	}
	total := []sampleView{}
	for _, span := range slices.Sorted(maps.Keys(spans)) {
		total = append(total, *spans[span])
	}
	return total
}

// sessionsOfAll adds up GET /sessions_count.
func (a *api) sessionsOfAll(w http.ResponseWriter, r *httpx.Request) error {
	counts, refused, err := gather[int64](a, w, r, r.URL.EscapedPath(), r.URL.RawQuery)
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

// stopped is a node that does not answer.
func stopped(n broker.Node) nodeView {
	v := nodeView{Node: n.Name, NodeStatus: "stopped", Version: cmp.Or(n.Version, "unknown"), Edition: edition, Role: role}
	if !n.Since.IsZero() {
		v.Uptime = time.Since(n.Since).Milliseconds()
	}
	return v
}
