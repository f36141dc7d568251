package emqx

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"millrace/broker/history"
	"millrace/rest/internal/httpx"
)

// gauges are how much of something there is at a time.
type gauges struct {
	Connections     int `json:"connections"`
	LiveConnections int `json:"live_connections"`
	Topics          int `json:"topics"`
	Subscriptions   int `json:"subscriptions"`
	Shared          int `json:"shared_subscriptions"`
	ClusterSessions int `json:"cluster_sessions"`
}

func (g *gauges) add(o *gauges) {
	g.Connections += o.Connections
	g.LiveConnections += o.LiveConnections
	g.Topics += o.Topics
	g.Subscriptions += o.Subscriptions
	g.Shared += o.Shared
	g.ClusterSessions += o.ClusterSessions
}

// sampleView is what happened in ten seconds, and how much there was at their end.
type sampleView struct {
	TimeStamp int64 `json:"time_stamp"`
	Received  int64 `json:"received"`
	Sent      int64 `json:"sent"`
	Dropped   int64 `json:"dropped"`
	Persisted int64 `json:"persisted"`
	gauges
}

// monitor answers the samples of the last six hours, or of the last seconds.
func (a *api) monitor(w http.ResponseWriter, r *httpx.Request) error {
	latest, err := r.QueryInt("latest", int(history.CoarseKept/time.Second), 1, 7*24*3600)
	if err != nil {
		return badQuery(err)
	}
	views := []sampleView{}
	if a.options.History != nil {
		for _, s := range a.options.History.Tens(time.Now().Add(-time.Duration(latest) * time.Second)) {
			views = append(views, sampleView{
				TimeStamp: s.At.UnixMilli(), Received: s.Received, Sent: s.Sent, Dropped: s.Dropped, Persisted: s.Persisted,
				gauges: gauges{s.Sessions, s.Connections, s.Topics, s.Subscriptions, s.Shared, s.Sessions},
			})
		}
	}
	return answer(w, r, views)
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
			if i+1 == len(samples) || samples[i+1].TimeStamp/sampleEvery != span {
				v.add(&s.gauges)
			}
		}
	}
	total := []sampleView{}
	for _, span := range slices.Sorted(maps.Keys(spans)) {
		total = append(total, *spans[span])
	}
	return total
}

func (a *api) monitorOf(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.node(r); err != nil {
		return err
	}
	return a.monitor(w, r)
}

func (a *api) clearMonitor(w http.ResponseWriter, _ *httpx.Request) error {
	if a.options.History != nil {
		a.options.History.Clear()
	}
	return httpx.WriteNothing(w)
}

// currentView is the last second, and what there is now.
type currentView struct {
	ReceivedRate  int64 `json:"received_msg_rate"`
	SentRate      int64 `json:"sent_msg_rate"`
	DroppedRate   int64 `json:"dropped_msg_rate"`
	PersistedRate int64 `json:"persisted_rate"`
	gauges
	Retained   int    `json:"retained_msg_count"`
	Node       string `json:"node,omitempty"`
	NodeUptime int64  `json:"node_uptime,omitempty"`
}

func (a *api) viewCurrent() currentView {
	now, _ := a.clients.Counts()
	v := currentView{
		gauges:   gauges{now.Sessions, now.Connected, now.Topics, now.Subscriptions, now.SharedSubscriptions, now.Sessions},
		Retained: a.broker.RetainedCount(),
	}
	if a.options.History != nil {
		s := a.options.History.Latest()
		v.ReceivedRate, v.SentRate, v.DroppedRate, v.PersistedRate = s.Received, s.Sent, s.Dropped, s.Persisted
	}
	return v
}

// sumCurrent adds what goes on in nodes.
func sumCurrent(nodes []currentView) (v currentView) {
	for _, n := range nodes {
		v.ReceivedRate += n.ReceivedRate
		v.SentRate += n.SentRate
		v.DroppedRate += n.DroppedRate
		v.PersistedRate += n.PersistedRate
		v.add(&n.gauges)
		v.Retained = max(v.Retained, n.Retained) // all of them are on every node
	}
	return v
}

func (a *api) monitorCurrent(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, a.viewCurrent())
}

func (a *api) monitorCurrentOf(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.node(r); err != nil {
		return err
	}
	v := a.viewCurrent()
	v.Node, v.NodeUptime = a.options.Node, int64(time.Since(a.started)/time.Second)
	return answer(w, r, v)
}
