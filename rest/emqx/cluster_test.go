package emqx_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
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

// openNodes opens the dialect on the nodes a, b, …, each over a broker of its own.
func openNodes(t *testing.T, n int) (*clustertest.Bus, []*door) {
	t.Helper()
	bus := clustertest.New(t)
	doors := make([]*door, n)
	for i := range doors {
		doors[i] = newDoor(t, local.Options{})
		n := bus.Join(string(rune('a' + i)))
		n.Info.Version = "1.2.3"
		doors[i].speak(t, emqx.Options{Cluster: n})
	}
	return bus, doors
}

// mute has no node answer another.
func mute(bus *clustertest.Bus) { bus.SetLoss(func(kind string) bool { return kind == "emqx" }) }

// read sends a GET, or another request, and decodes the answer.
func read[T any](t *testing.T, d *door, method, path, body string) (v T, w *httptest.ResponseRecorder) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, emqx.Prefix+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer root."+resttest.Secret)
	r.Header.Set("Content-Type", "application/json")
	w = d.Send(r)
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v in %s", path, err, w.Body)
		}
	}
	return v, w
}

type shownNode struct {
	Node   string `json:"node"`
	Status string `json:"node_status"`
	Live   int    `json:"live_connections"`
	Leader bool   `json:"leader"`
}

type shownUp struct {
	Uptime  int64  `json:"uptime"`
	Version string `json:"version"`
}

func TestNodesShowThemselvesAndASilentOneIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openNodes(t, 2)
		d[1].connect(t, "on-b", nil)
		want := []shownNode{{"a", "running", 0, true}, {"b", "running", 1, true}}
		got, w := read[[]shownNode](t, d[0], "GET", "/nodes", "")
		if diff := cmp.Diff(want, got); diff != "" || w.Header().Get("Millrace-Partial") != "" {
			t.Error(diff, w.Header())
		}
		one, _ := read[shownNode](t, d[0], "GET", "/nodes/b", "")
		if diff := cmp.Diff(want[1], one); diff != "" {
			t.Error(diff)
		}
		if n, w := read[map[string]int64](t, d[0], "GET", "/nodes/b/stats", ""); n["live_connections.count"] != 1 {
			t.Errorf("stats of b: %d %s", w.Code, w.Body)
		}
		if _, w := read[any](t, d[0], "GET", "/nodes/c/stats", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "only a, b") {
			t.Errorf("a node that is not there: %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		if up, _ := read[shownUp](t, d[0], "GET", "/nodes/b", ""); up != (shownUp{60_000, "1.2.3"}) {
			t.Errorf("b is up as %+v", up)
		}
		mute(bus)
		if up, _ := read[shownUp](t, d[0], "GET", "/nodes/b", ""); up != (shownUp{0, "1.2.3"}) {
			t.Errorf("b is stopped as %+v", up)
		}
		want[1] = shownNode{"b", "stopped", 0, true}
		got, w = read[[]shownNode](t, d[0], "GET", "/nodes", "")
		if diff := cmp.Diff(want, got); diff != "" || w.Header().Get("Millrace-Partial") != "b" {
			t.Error(diff, w.Header())
		}
		if _, w := read[any](t, d[0], "GET", "/nodes/b/metrics", ""); w.Code != 503 {
			t.Errorf("metrics of a silent node: %d %s", w.Code, w.Body)
		}
	})
}

func TestFiguresAreTheSumOfTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openNodes(t, 3)
		for i, n := range []int{1, 2, 3} {
			for k := range n {
				d[i].connect(t, fmt.Sprint("c", i, k), []string{"x"})
				read[any](t, d[i], "POST", "/publish", `{"topic": "x", "payload": "p"}`)
			}
		}
		if n, _ := read[map[string]int64](t, d[1], "GET", "/stats?aggregate=true", ""); n["live_connections.count"] != 6 || n["subscriptions.count"] != 6 {
			t.Errorf("stats: %v", n)
		}
		if n, _ := read[map[string]int64](t, d[1], "GET", "/metrics?aggregate=true", ""); n["messages.publish"] != 6 {
			t.Errorf("metrics: %v", n)
		}
		if n, _ := read[struct {
			Live int `json:"live_connections"`
		}](t, d[1], "GET", "/monitor_current", ""); n.Live != 6 {
			t.Errorf("monitor_current: %+v", n)
		}
		if n, _ := read[int](t, d[1], "GET", "/sessions_count", ""); n != 6 {
			t.Errorf("sessions: %d", n)
		}
		each := func(path string) (all []string) {
			nodes, _ := read[[]map[string]any](t, d[1], "GET", path, "")
			for _, n := range nodes {
				all = append(all, fmt.Sprint(n["node"], n["live_connections.count"]))
			}
			return all
		}
		for path, want := range map[string]string{"/stats": "a1 b2 c3", "/stats?node=c": "c3", "/stats?node=none": ""} {
			if got := strings.Join(each(path), " "); got != want {
				t.Errorf("%s shows %s, want %s", path, got, want)
			}
		}
		mute(bus)
		if _, w := read[any](t, d[1], "GET", "/stats?aggregate=true", ""); w.Header().Get("Millrace-Partial") != "a, c" {
			t.Errorf("an answer without a and c says %q", w.Header().Get("Millrace-Partial"))
		}
		if _, w := read[any](t, d[1], "DELETE", "/monitor", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "unknown whether on a, c") {
			t.Errorf("what was not done everywhere answers %d %s", w.Code, w.Body)
		}
	})
}

func TestAClientIsServedByItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openNodes(t, 2)
		d[1].connect(t, "c/1", []string{"one"})
		type client struct {
			Node      string `json:"node"`
			Connected bool   `json:"connected"`
			KeepAlive int    `json:"keepalive"`
		}
		const at = "/clients/c%2F1"
		if c, w := read[client](t, d[0], "GET", at, ""); c != (client{"b", true, 60}) {
			t.Errorf("it is shown as %s", w.Body)
		}
		for _, step := range []struct {
			method, path, body string
			code               int
			want               string
		}{
			{"POST", "/subscribe", `{"topic": "two", "qos": 1}`, 200, `"node":"b"`},
			{"POST", "/subscribe/bulk", `[{"topic": "three"}]`, 200, `"topic":"three"`},
			{"POST", "/unsubscribe", `{"topic": "one"}`, 204, ""},
			{"POST", "/subscribe", `{"qos": 1}`, 400, "topic is needed"},
			{"GET", "/subscriptions", "", 200, `"topic":"three"`},
			{"GET", "/mqueue_messages", "", 200, `"data":[]`},
			{"GET", "/inflight_messages", "", 200, `"data":[]`},
			{"PUT", "/keepalive", `{"interval": 90}`, 200, `"keepalive":90`},
			{"GET", "/authorization/cache", "", 200, "[]"},
		} {
			if _, w := read[any](t, d[0], step.method, at+step.path, step.body); w.Code != step.code || !strings.Contains(w.Body.String(), step.want) {
				t.Errorf("%s %s answers %d %s", step.method, step.path, w.Code, w.Body)
			}
		}
		mute(bus)
		if _, w := read[any](t, d[0], "GET", at, ""); w.Code != 503 {
			t.Errorf("while its node is silent it is shown as %d %s", w.Code, w.Body)
		}
		bus.SetLoss(nil)
		if _, w := read[any](t, d[0], "DELETE", at, ""); w.Code != 204 {
			t.Errorf("kick: %d %s", w.Code, w.Body)
		}
		d[1].told(t, "c/1", "e0 closed")
		if _, w := read[any](t, d[0], "GET", at, ""); w.Code != 404 {
			t.Errorf("after the kick: %d %s", w.Code, w.Body)
		}
	})
}

func TestKickingManyReachesAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, d := openNodes(t, 2)
		d[0].connect(t, "here", nil)
		d[1].connect(t, "there", nil)
		if _, w := read[any](t, d[0], "POST", "/clients/kickout/bulk", `["here", "there", "nobody"]`); w.Code != 204 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		d[0].told(t, "here", "e0 closed")
		d[1].told(t, "there", "e0 closed")
		if _, w := read[any](t, d[0], "POST", "/clients/kickout/bulk", `{`); w.Code != 400 {
			t.Errorf("what is no list: %d %s", w.Code, w.Body)
		}
	})
}

// shownPage is a page of any list.
type shownPage struct {
	Data []struct {
		Node     string `json:"node"`
		ClientID string `json:"clientid"`
		Topic    string `json:"topic"`
	} `json:"data"`
	Meta struct {
		Count   *int   `json:"count"`
		HasNext bool   `json:"hasnext"`
		Cursor  string `json:"cursor"`
		Partial bool   `json:"partial"`
	} `json:"meta"`
}

func (p *shownPage) rows() (all []string) {
	for _, row := range p.Data {
		all = append(all, row.Node+" "+row.ClientID+row.Topic)
	}
	return all
}

func TestListsRunOverAllNodesWithoutGapAndRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, d := openNodes(t, 3)
		var want, subs []string
		for i, n := range []int{5, 0, 4} {
			node := string(rune('a' + i))
			for k := range n {
				id := fmt.Sprint("dev", k, node)
				d[i].connect(t, id, []string{"x"})
				want = append(want, node+" "+id)
				subs = append(subs, node+" "+id+"x")
				if k == 1 {
					d[i].connect(t, "Other-"+node, []string{"y"})
				}
			}
		}
		for _, path := range []string{"/clients?like_clientid=dev", "/clients?proto_ver=5", "/subscriptions?topic=x", "/clients_v2?like_clientid=dev"} {
			list := want
			switch {
			case strings.HasPrefix(path, "/subscriptions"):
				list = subs
			case strings.Contains(path, "proto_ver"):
				list = slices.Insert(slices.Clone(want), 5, "c Other-c")
				list = slices.Insert(list, 0, "a Other-a")
			}
			for limit := 1; limit <= 12; limit++ {
				if got := walkPages(t, d[1], fmt.Sprintf("%s&limit=%d", path, limit), len(list)); !slices.Equal(got, list) {
					t.Fatalf("%s, %d a page: %v, want %v", path, limit, got, list)
				}
			}
		}
		if p, w := read[shownPage](t, d[0], "GET", "/clients?node=c&limit=2&page=2", ""); len(p.Data) != 2 || p.Data[0].ClientID != "dev1c" || *p.Meta.Count != 5 {
			t.Errorf("of one node: %s", w.Body)
		}
		if p, _ := read[shownPage](t, d[0], "GET", "/clients?page=900&limit=1", ""); len(p.Data) != 0 || p.Meta.HasNext || *p.Meta.Count != 11 {
			t.Errorf("behind the end: %+v", p)
		}
		for _, path := range []string{"/clients?proto_ver=9", "/clients?node=none", "/clients_v2?cursor=abc", "/clients_v2?proto_ver=9"} {
			if _, w := read[any](t, d[0], "GET", path, ""); w.Code < 400 {
				t.Errorf("%s answers %d", path, w.Code)
			}
		}
		topics, _ := read[[]any](t, d[1], "GET", "/topics/y", "")
		if _, w := read[any](t, d[1], "GET", "/topics/none", ""); len(topics) != 2 || w.Code != 404 {
			t.Errorf("topics: %v, of one that is not there %d", topics, w.Code)
		}
		mute(bus)
		for _, path := range []string{"/clients", "/clients_v2"} {
			p, w := read[shownPage](t, d[0], "GET", path, "")
			if len(p.Data) != 6 || !p.Meta.Partial || w.Header().Get("Millrace-Partial") != "b, c" {
				t.Errorf("%s while two nodes are silent: %s %v", path, w.Body, w.Header())
			}
		}
	})
}

// walkPages reads all pages of a list by number, or by cursor where it has them.
func walkPages(t *testing.T, d *door, path string, total int) (all []string) {
	t.Helper()
	next := "&page=1"
	for n := 2; n < 100; n++ {
		p, w := read[shownPage](t, d, "GET", path+next, "")
		all = append(all, p.rows()...)
		if p.Meta.Partial || p.Meta.Count != nil && *p.Meta.Count != total {
			t.Fatalf("%s: %s", path, w.Body)
		}
		if !p.Meta.HasNext {
			return all
		}
		if next = fmt.Sprint("&page=", n); p.Meta.Cursor != "" {
			next = "&cursor=" + p.Meta.Cursor
		}
	}
	t.Fatal("it does not end")
	return nil
}
