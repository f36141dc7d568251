package emqx_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/clustertest"
	"millrace/persistence/local"
	"millrace/rest/emqx"
	"millrace/rest/internal/resttest"
)

// ports are listeners without sockets.
type ports struct{ all []emqx.Listener }

func (p *ports) Listeners() []emqx.Listener    { return p.all }
func (p *ports) StartListener(id string) error { return p.turn(id, true) }
func (p *ports) StopListener(id string) error  { return p.turn(id, false) }
func (p *ports) turn(id string, running bool) error {
	for i := range p.all {
		if l := &p.all[i]; l.ID == id {
			if l.Running = running; l.Bind == "stuck" {
				return errors.New("it is stuck")
			}
		}
	}
	return nil
}

// openPorts opens the dialect on the nodes a and b, which have listeners.
func openPorts(t *testing.T) (*clustertest.Bus, []*door) {
	t.Helper()
	bus := clustertest.New(t)
	doors := make([]*door, 2)
	for i := range doors {
		p := &ports{[]emqx.Listener{{ID: "tcp:default", Type: "tcp", Name: "default", Bind: fmt.Sprint(1883 + i), Running: true, Connections: 2 + i, MaxAccepted: 10}}}
		if i == 1 {
			p.all = append(p.all,
				emqx.Listener{ID: "tcp:more", Type: "tcp", Name: "more", Bind: "stuck", Running: true, Connections: 5},
				emqx.Listener{ID: "ws:default", Type: "ws", Name: "default", Running: false})
		}
		doors[i] = newDoor(t, local.Options{})
		doors[i].speak(t, emqx.Options{Cluster: bus.Join(string(rune('a' + i))), Listeners: p})
	}
	return bus, doors
}

func TestListenersAreThoseOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openPorts(t)
		is := func(method, path string, code int, want string) {
			t.Helper()
			if _, w := read[any](t, d[0], method, path, ""); w.Code != code || strings.TrimSpace(w.Body.String()) != want {
				t.Errorf("%s %s answers %d\n%s\nwant %d\n%s", method, path, w.Code, w.Body, code, want)
			}
		}
		status := func(running string, connections int, limit string) string {
			return fmt.Sprintf(`{"running":%s,"current_connections":%d,"max_connections":%s}`, running, connections, limit)
		}
		const endless = `"infinity"`
		first := func(enable bool, running, onA, onB string) string {
			return fmt.Sprintf(`{"id":"tcp:default","type":"tcp","name":"default","enable":%t,"bind":"1883","number":2,"status":%s,"node_status":[{"node":"a","status":%s},{"node":"b","status":%s}]}`,
				enable, status(running, 5, "20"), status(onA, 2, "10"), status(onB, 3, "10"))
		}
		more := `{"id":"tcp:more","type":"tcp","name":"more","enable":true,"bind":"stuck","number":1,"status":` + status("true", 5, endless) + `,"node_status":[{"node":"b","status":` + status("true", 5, endless) + `}]}`
		is("GET", "/listeners?type=tcp", 200, "["+first(true, "true", "true", "true")+","+more+"]")
		is("GET", "/listeners/tcp:more", 200, more)
		is("GET", "/listeners_status", 200, `[{"type":"tcp","enable":true,"ids":["tcp:default","tcp:more"],"status":`+status("true", 10, endless)+
			`},{"type":"ws","enable":false,"ids":["ws:default"],"status":`+status("false", 0, endless)+`}]`)
		if _, w := read[any](t, d[1], "POST", "/listeners/tcp:default/stop?node=b", ""); w.Code != 204 {
			t.Errorf("stop answers %d %s", w.Code, w.Body)
		}
		is("GET", "/listeners/tcp:default", 200, first(false, "false", "false", "false"))
		is("POST", "/listeners/ws:default/start", 204, "")
		if _, w := read[any](t, d[0], "POST", "/listeners/tcp:more/stop", ""); w.Code != 400 || !strings.Contains(w.Body.String(), "it is stuck") {
			t.Errorf("a listener that does not stop answers %d %s", w.Code, w.Body)
		}
		if _, w := read[any](t, d[0], "POST", "/listeners/tcp:none/stop", ""); w.Code != 404 {
			t.Errorf("a listener of no node answers %d %s", w.Code, w.Body)
		}
		if _, w := read[any](t, d[0], "GET", "/listeners/tcp:none", ""); w.Code != 404 {
			t.Errorf("a listener of no node is %d %s", w.Code, w.Body)
		}
		mute(bus)
		if _, w := read[any](t, d[0], "POST", "/listeners/tcp:default/start", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "unknown whether on b") {
			t.Errorf("a start while a node is silent answers %d %s", w.Code, w.Body)
		}
		bus.SetLoss(nil)
		// The node that was silent has done it: its answer was lost.
		is("GET", "/listeners/tcp:default", 200, first(true, `"inconsistent"`, "true", "false"))
	})
}

func TestAlarmsAreThoseOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openNodes(t, 2)
		for i, names := range [][]string{{"low_disk", "here"}, {"low_disk", "there"}} {
			for _, name := range names {
				d[i].alarms.Raise(name, "it is so", nil)
				time.Sleep(time.Second)
			}
		}
		type shown struct {
			Node, Name string
		}
		is := func(path, want string, count int) {
			t.Helper()
			p, w := read[struct {
				Data []shown `json:"data"`
				Meta struct {
					Count int `json:"count"`
				} `json:"meta"`
			}](t, d[0], "GET", path, "")
			if got := fmt.Sprint(p.Data); got != want || p.Meta.Count != count {
				t.Errorf("%s shows %s of %d, want %s of %d: %s", path, got, p.Meta.Count, want, count, w.Body)
			}
		}
		do := func(method, path, body string, code int) {
			t.Helper()
			if _, w := read[any](t, d[0], method, path, body); w.Code != code {
				t.Errorf("%s %s answers %d %s, want %d", method, path, w.Code, w.Body, code)
			}
		}
		is("/alarms", "[{a here} {a low_disk} {b there} {b low_disk}]", 4)
		is("/alarms?limit=1&page=3", "[{b there}]", 4)
		is("/alarms?node=b", "[{b there} {b low_disk}]", 2)
		do("POST", "/alarms/force_deactivate", `{"name": "there"}`, 204)
		do("POST", "/alarms/force_deactivate", `{"name": "low_disk"}`, 204)
		do("POST", "/alarms/force_deactivate", `{"name": "there"}`, 400)
		do("POST", "/alarms/force_deactivate", `{"name": 1}`, 400)
		is("/alarms?activated=true", "[{a here}]", 1)
		is("/alarms?activated=false", "[{a low_disk} {b low_disk} {b there}]", 3)
		do("DELETE", "/alarms", "", 204)
		is("/alarms?activated=false", "[]", 0)
		mute(bus)
		if _, w := read[any](t, d[0], "GET", "/alarms", ""); w.Header().Get("Millrace-Partial") != "b" {
			t.Errorf("alarms while a node is silent: %v %s", w.Header(), w.Body)
		}
	})
}

func TestTopicMetricsCountTheMessagesOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, d := openNodes(t, 2)
		for i, topics := range [][]string{{"x", "y"}, {"x"}} {
			for _, topic := range topics {
				resttest.Must(t, d[i].Broker.WatchTopic(resttest.System(t), topic))
			}
		}
		send := func(n ...int) {
			for i, n := range n {
				for range n {
					read[any](t, d[i], "POST", "/publish", `{"topic": "x", "payload": "p", "qos": 1}`)
				}
			}
		}
		type counted struct {
			Topic   string         `json:"topic"`
			Reset   string         `json:"reset_time"`
			Metrics map[string]int `json:"metrics"`
		}
		of := func(c counted) string {
			return fmt.Sprint(c.Topic, " ", c.Metrics["messages.in.count"], c.Metrics["messages.qos1.in.count"], c.Metrics["messages.dropped.count"])
		}
		send(2, 3)
		all, w := read[[]counted](t, d[0], "GET", "/mqtt/topic_metrics", "")
		if len(all) != 2 || of(all[0]) != "x 5 5 5" || of(all[1]) != "y 0 0 0" {
			t.Errorf("the list is %s", w.Body)
		}
		if one, w := read[counted](t, d[1], "GET", "/mqtt/topic_metrics/x", ""); of(one) != "x 5 5 5" || one.Reset != "" {
			t.Errorf("one is %s", w.Body)
		}
		time.Sleep(time.Second)
		for _, d := range d {
			d.Broker.SampleTopics()
		}
		rate := func(c counted) int { return c.Metrics["messages.in.rate"] }
		if again, w := read[[]counted](t, d[0], "PUT", "/mqtt/topic_metrics", `{"action": "reset"}`); w.Code != 200 || len(again) != 2 || of(again[0]) != "x 0 0 0" || rate(again[0]) != 5 {
			t.Errorf("reset of all answers %d %s", w.Code, w.Body)
		}
		if again, w := read[counted](t, d[1], "PUT", "/mqtt/topic_metrics", `{"topic": "x", "action": "reset"}`); w.Code != 200 || of(again) != "x 0 0 0" || rate(again) != 5 {
			t.Errorf("reset answers %d %s", w.Code, w.Body)
		}
		for _, body := range []string{`{"topic": "none", "action": "reset"}`, `{"topic": "x", "action": "stop"}`} {
			if _, w := read[any](t, d[1], "PUT", "/mqtt/topic_metrics", body); w.Code < 400 {
				t.Errorf("%s answers %d %s", body, w.Code, w.Body)
			}
		}
		send(1, 1)
		if one, w := read[counted](t, d[1], "GET", "/mqtt/topic_metrics/x", ""); of(one) != "x 2 2 2" || one.Reset == "" {
			t.Errorf("after the reset one is %s", w.Body)
		}
		if _, w := read[any](t, d[1], "GET", "/mqtt/topic_metrics/none", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "TOPIC_NOT_FOUND") {
			t.Errorf("one that is not counted is %d %s", w.Code, w.Body)
		}
	})
}

func TestTheAuthenticatorCountsTheLoginsOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := clustertest.New(t)
		d := make([]*door, 2)
		for i := range d {
			n := int64(i + 1)
			d[i] = newDoor(t, local.Options{})
			d[i].speak(t, emqx.Options{Cluster: bus.Join(string(rune('a' + i))), Counters: maps.All(map[string]int64{
				"mqtt.login.accepted": 5 * n, "mqtt.login.anonymous": 3 * n, "mqtt.login.refused": 7 * n,
			})})
		}
		const path = "/authentication/password_based:built_in_database/status"
		metrics := func(n int) string {
			return fmt.Sprintf(`{"total":%d,"success":%d,"failed":%d,"nomatch":%d}`, 12*n, 2*n, 7*n, 3*n)
		}
		want := `{"status":"connected","metrics":` + metrics(3) + `,"node_metrics":[{"node":"a","metrics":` + metrics(1) + `},{"node":"b","metrics":` + metrics(2) +
			`}],"node_status":[{"node":"a","status":"connected"},{"node":"b","status":"connected"}],"node_error":[]}`
		for i := range d {
			if _, w := read[any](t, d[i], "GET", path, ""); strings.TrimSpace(w.Body.String()) != want {
				t.Errorf("node %d answers %d\n%s\nwant\n%s", i, w.Code, w.Body, want)
			}
		}
		if _, w := read[any](t, d[0], "GET", "/authentication/none/status", ""); w.Code != 404 {
			t.Errorf("another authenticator is %d %s", w.Code, w.Body)
		}
		mute(bus)
		if _, w := read[any](t, d[0], "GET", path, ""); w.Code != 200 || w.Header().Get("Millrace-Partial") != "b" || !strings.Contains(w.Body.String(), `"metrics":`+metrics(1)) {
			t.Errorf("while a node is silent: %d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}

func TestTheExporterShowsAllNodesApartOrTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openNodes(t, 2)
		for i, n := range []int{1, 2} {
			for k := range n {
				d[i].connect(t, fmt.Sprint("c", i, k), []string{fmt.Sprint("x", i)})
				read[any](t, d[i], "POST", "/publish", `{"topic": "x", "payload": "p", "retain": true}`)
			}
		}
		scrape := func(query, accept string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(context.Background(), "GET", emqx.Prefix+"/prometheus/stats"+query, nil)
			r.Header.Set("Authorization", "Bearer root."+resttest.Secret)
			r.Header.Set("Accept", accept)
			return d[0].Send(r)
		}
		lines := func(w *httptest.ResponseRecorder) (found []string) {
			for l := range strings.Lines(w.Body.String()) {
				for _, name := range []string{"live_connections_count", "topics_count", "retained_count", "messages_publish", "cluster_nodes_running", "cluster_nodes_stopped"} {
					if strings.Contains(l, "emqx_"+name) {
						found = append(found, strings.TrimSpace(strings.ReplaceAll(l, "emqx_", "")))
					}
				}
			}
			return found
		}
		types := func(lines ...string) (all []string) {
			last := ""
			for _, l := range lines {
				if name, _, _ := strings.Cut(strings.ReplaceAll(l, "{", " "), " "); name != last {
					last = name
					kind := "gauge"
					if name == "messages_publish" {
						kind = "counter"
					}
					all = append(all, "# TYPE "+name+" "+kind)
				}
				all = append(all, l)
			}
			return all
		}
		for query, want := range map[string][]string{
			"":                           types("cluster_nodes_running 2", "cluster_nodes_stopped 0", "live_connections_count 1", "messages_publish 1", "retained_count 1", "topics_count 1"),
			"?mode=all_nodes_aggregated": types("cluster_nodes_running 2", "cluster_nodes_stopped 0", "live_connections_count 3", "messages_publish 3", "retained_count 1", "topics_count 2"),
			"?mode=all_nodes_unaggregated": types("cluster_nodes_running 2", "cluster_nodes_stopped 0", `live_connections_count{node="a"} 1`, `live_connections_count{node="b"} 2`,
				`messages_publish{node="a"} 1`, `messages_publish{node="b"} 2`, "retained_count 1", "topics_count 2"),
		} {
			if diff := cmp.Diff(want, lines(scrape(query, ""))); diff != "" {
				t.Errorf("%s: %s", query, diff)
			}
		}
		if got := scrape("?mode=all_nodes_unaggregated", "application/json").Body.String(); strings.Count(got, `"node":"b"`) < 5 || !strings.Contains(got, `"emqx_live_connections_count":2`) {
			t.Errorf("in JSON they are %s", got)
		}
		mute(bus)
		w := scrape("?mode=all_nodes_aggregated", "")
		if got := lines(w); w.Header().Get("Millrace-Partial") != "b" || got[1] != "cluster_nodes_running 1" || got[3] != "cluster_nodes_stopped 1" {
			t.Errorf("while a node is silent: %v %v", w.Header(), got)
		}
	})
}
