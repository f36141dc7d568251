package emqx

import (
	"net/http"
	"time"

	"millrace/broker/history"
	"millrace/rest/internal/httpx"
)

// sampleView is what happened in ten seconds.
type sampleView struct {
	TimeStamp       int64 `json:"time_stamp"`
	Received        int64 `json:"received"`
	Sent            int64 `json:"sent"`
	Dropped         int64 `json:"dropped"`
	Persisted       int64 `json:"persisted"`
	Connections     int   `json:"connections"`
	LiveConnections int   `json:"live_connections"`
	Topics          int   `json:"topics"`
	Subscriptions   int   `json:"subscriptions"`
	Shared          int   `json:"shared_subscriptions"`
	ClusterSessions int   `json:"cluster_sessions"`
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
				Connections: s.Sessions, LiveConnections: s.Connections, Topics: s.Topics,
				Subscriptions: s.Subscriptions, Shared: s.Shared, ClusterSessions: s.Sessions,
			})
		}
	}
	return answer(w, r, views)
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
	ReceivedRate    int64  `json:"received_msg_rate"`
	SentRate        int64  `json:"sent_msg_rate"`
	DroppedRate     int64  `json:"dropped_msg_rate"`
	PersistedRate   int64  `json:"persisted_rate"`
	Connections     int    `json:"connections"`
	LiveConnections int    `json:"live_connections"`
	Topics          int    `json:"topics"`
	Subscriptions   int    `json:"subscriptions"`
	Shared          int    `json:"shared_subscriptions"`
	Retained        int    `json:"retained_msg_count"`
	ClusterSessions int    `json:"cluster_sessions"`
	Node            string `json:"node,omitempty"`
	NodeUptime      int64  `json:"node_uptime,omitempty"`
}

func (a *api) viewCurrent() currentView {
	now, _ := a.clients.Counts()
	v := currentView{
		Connections: now.Sessions, LiveConnections: now.Connected, Topics: now.Topics, Subscriptions: now.Subscriptions,
		Shared: now.SharedSubscriptions, Retained: a.broker.RetainedCount(), ClusterSessions: now.Sessions,
	}
	if a.options.History != nil {
		s := a.options.History.Latest()
		v.ReceivedRate, v.SentRate, v.DroppedRate, v.PersistedRate = s.Received, s.Sent, s.Dropped, s.Persisted
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
