package main_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

var fleetSize = flag.Int("fleet", 1000, "clients of the fleet that the management API is tried on")

// management is the management API of a running server.
type management struct {
	t    *testing.T
	s    *server
	base string
}

// manage starts a server with a listener of the management API.
func manage(t *testing.T) *management {
	t.Helper()
	s := startServer(t, "--data", t.TempDir(), "--allow-anonymous", "--emqx-listen", "127.0.0.1:0", "--bootstrap-file", bootstrapFile(t, testKeyYAML))
	return &management{t, s, "http://" + s.ports["emqx"] + "/api/v5"}
}

// do sends a request and decodes the answer into out, which may be nil.
func (m *management) do(method, path, body string, out any) int {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), method, m.base+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	r.SetBasicAuth(testKeyID, testSecret)
	r.Header.Set("Content-Type", "application/json")
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	if out != nil && json.Unmarshal(text, out) != nil {
		m.t.Fatalf("%s %s: %d %s", method, path, w.StatusCode, text)
	}
	return w.StatusCode
}

func (m *management) must(status int, method, path, body string, out any) {
	m.t.Helper()
	if got := m.do(method, path, body, out); got != status {
		m.t.Fatalf("%s %s %s: %d, want %d", method, path, body, got, status)
	}
}

// clientPage is a page of GET /clients.
type clientPage struct {
	Data []struct {
		ClientID string `json:"clientid"`
		RecvMsg  int    `json:"recv_msg"`
		SendMsg  int    `json:"send_msg"`
	}
	Meta struct {
		Count   *int
		HasNext bool
		Cursor  string
	}
}

func (m *management) count(query string) int {
	m.t.Helper()
	n := 0
	for page := 1; ; page++ {
		var p clientPage
		m.must(200, "GET", fmt.Sprintf("/clients?limit=64&page=%d&%s", page, query), "", &p)
		if n += len(p.Data); !p.Meta.HasNext {
			if p.Meta.Count != nil && *p.Meta.Count != n {
				m.t.Errorf("%s: %d clients were listed, %d counted", query, n, *p.Meta.Count)
			}
			return n
		}
	}
}

// metrics are the counters of now.
func (m *management) metrics() (n map[string]int) {
	m.t.Helper()
	m.must(200, "GET", "/metrics?aggregate=true", "", &n)
	return n
}

// member is one client of the fleet, which counts what it sees.
type member struct {
	*wire.Conn
	id string

	mu            sync.Mutex
	got, acked    int
	closed        bool
	subscriptions int
}

// join logs a client in, subscribes it and has it read until its end.
func join(t *testing.T, addr, id, user string, filters ...string) (*member, error) {
	t.Helper()
	c, err := wire.Dial(t.Context(), addr, wire.Login{ClientID: id, User: user})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, f := range filters {
		if err := c.Subscribe(f, 1); err != nil {
			return nil, err
		}
	}
	m := &member{Conn: c, id: id, subscriptions: len(filters)}
	go m.read()
	return m, nil
}

func (m *member) read() {
	for {
		p, err := m.Read1()
		m.mu.Lock()
		switch {
		case err != nil:
			m.closed = true
		case p.Type == wire.Publish:
			m.got++
			if _, id, _, _ := p.Message(); id != 0 {
				_, _ = m.Write(wire.AppendAck(nil, wire.Puback, id)) // an error is the end, which comes
			}
		case p.Type == wire.Puback:
			m.acked++
		}
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (m *member) state() (got, acked int, closed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got, m.acked, m.closed
}

// fleet connects the clients fleet-0000, …: all subscribe to all/#, the even
// ones are of user even.
func (m *management) fleet(n int) []*member {
	m.t.Helper()
	all := make([]*member, n)
	for i := range all {
		user := "odd"
		if i%2 == 0 {
			user = "even"
		}
		var err error
		if all[i], err = join(m.t, m.s.ports["mqtt"], fmt.Sprintf("fleet-%04d", i), user, "all/#", fmt.Sprint("cmd/", i)); err != nil {
			m.t.Fatal(err)
		}
	}
	return all
}

func (m *management) await(what string, ok func() bool) {
	m.t.Helper()
	if !eventually(20*time.Second, ok) {
		m.t.Errorf("never came: %s", what)
	}
}

func TestAFleetIsListedCountedKickedAndBanned(t *testing.T) {
	m := manage(t)
	n := *fleetSize
	fleet := m.fleet(n)
	if got := m.count(""); got != n {
		t.Errorf("%d clients are listed, want %d", got, n)
	}
	if got := m.count("username=even&conn_state=connected&proto_ver=4"); got != n/2 {
		t.Errorf("%d clients of user even, want %d", got, n/2)
	}
	if got := m.count("like_clientid=fleet-00"); got != 100 {
		t.Errorf("%d clients fleet-00, want 100", got)
	}
	if got := m.count("ip_address=127.0.0.1&conn_state=disconnected"); got != 0 {
		t.Errorf("%d clients are away, want none", got)
	}
	m.cursors("", n)
	m.cursors("&like_clientid=7", sevens(n))
	for query, want := range map[string]int{"": 2 * n, "match_topic=all/1": n, "topic=all/%23": n, "match_topic=cmd/17": 1, "clientid=fleet-0007": 2} {
		if got := m.subscriptions(query); got != want {
			t.Errorf("%s: %d subscriptions, want %d", query, got, want)
		}
	}
	m.traffic(fleet)
	m.kickSome(fleet)
	m.banSome(fleet)
}

// sevens is how many of the numbers below n have a 7 among four digits.
func sevens(n int) (k int) {
	for i := range n {
		if strings.Contains(fmt.Sprintf("%04d", i), "7") {
			k++
		}
	}
	return k
}

// subscriptions counts by going through the pages.
func (m *management) subscriptions(query string) (n int) {
	m.t.Helper()
	for page := 1; ; page++ {
		var p struct {
			Data []struct{ Topic string }
			Meta struct {
				Count   *int
				HasNext bool
			}
		}
		m.must(200, "GET", fmt.Sprintf("/subscriptions?limit=300&page=%d&%s", page, query), "", &p)
		if n += len(p.Data); p.Meta.HasNext {
			continue
		}
		if p.Meta.Count != nil && *p.Meta.Count != n {
			m.t.Errorf("%s: %d subscriptions were listed, %d counted", query, n, *p.Meta.Count)
		}
		return n
	}
}

// cursors reads clients by cursor.
func (m *management) cursors(query string, n int) {
	m.t.Helper()
	seen, cursor := 0, ""
	for {
		var p clientPage
		m.must(200, "GET", "/clients_v2?limit=30&cursor="+cursor+query, "", &p)
		if seen += len(p.Data); !p.Meta.HasNext {
			break
		}
		cursor = p.Meta.Cursor
	}
	if seen != n {
		m.t.Errorf("%d clients by cursor%s, want %d", seen, query, n)
	}
}

// traffic compares what the clients saw with what the counters say.
func (m *management) traffic(fleet []*member) {
	m.t.Helper()
	n, before := len(fleet), m.metrics()
	m.must(200, "POST", "/publish", `{"topic":"all/1","payload":"one","qos":1}`, nil)
	for i, c := range fleet {
		if _, err := c.Write(wire.AppendPublish(nil, fmt.Sprint("cmd/", i), 1, 1, []byte("mine"))); err != nil {
			m.t.Fatal(err)
		}
	}
	m.await("two messages and one ack for each client", func() bool {
		for _, c := range fleet {
			if got, acked, _ := c.state(); got != 2 || acked != 1 {
				return false
			}
		}
		return true
	})
	want := map[string]int{
		"messages.received": n, "messages.qos1.received": n, "messages.sent": 2 * n, "messages.qos1.sent": 2 * n,
		"packets.puback.sent": n, "packets.puback.received": 2 * n, "messages.acked": 2 * n, "messages.publish": n + 1,
		"client.connected": 0, "messages.dropped": 0, "delivery.dropped": 0,
		"client.authorize": n, "authorization.allow": n, "authorization.deny": 0,
	}
	var after map[string]int
	m.await("counters that agree with what the clients saw", func() bool {
		after = m.metrics()
		for name, k := range want {
			if after[name]-before[name] != k {
				return false
			}
		}
		return true
	})
	for name, k := range want {
		if after[name]-before[name] != k {
			m.t.Errorf("%s: %d, want %d", name, after[name]-before[name], k)
		}
	}
	var c struct {
		RecvMsg int `json:"recv_msg"`
		SendMsg int `json:"send_msg"`
		SubsCnt int `json:"subscriptions_cnt"`
	}
	m.must(200, "GET", "/clients/fleet-0007", "", &c)
	if c.RecvMsg != 1 || c.SendMsg != 2 || c.SubsCnt != 2 {
		m.t.Errorf("the client's own counters: %+v", c)
	}
	if n := before["client.connected"]; n != len(fleet) {
		m.t.Errorf("%d clients connected, want %d", n, len(fleet))
	}
}

// kickSome kicks ten clients, who find out; the others do not.
func (m *management) kickSome(fleet []*member) {
	m.t.Helper()
	var ids []string
	for _, c := range fleet[:10] {
		ids = append(ids, c.id)
	}
	body, err := json.Marshal(ids)
	if err != nil {
		m.t.Fatal(err)
	}
	m.must(204, "POST", "/clients/kickout/bulk", string(bytes.TrimSpace(body)), nil)
	if got := m.count("like_clientid=fleet-"); got != len(fleet)-10 {
		m.t.Errorf("%d clients are left, want %d", got, len(fleet)-10)
	}
	m.await("the end of ten connections, and of no other", func() bool {
		for i, c := range fleet {
			if _, _, closed := c.state(); closed != (i < 10) {
				return false
			}
		}
		return true
	})
}

// banSome bans clients by a part of their id: they are thrown out, and refused.
func (m *management) banSome(fleet []*member) {
	m.t.Helper()
	m.must(200, "POST", "/banned", `{"as":"clientid_re","who":"^fleet-01[0-4]","reason":"noise"}`, nil)
	banned := func(c *member) bool { return strings.HasPrefix(c.id, "fleet-01") && c.id[8] < '5' }
	m.await("the end of the banned", func() bool {
		for _, c := range fleet[10:] {
			if _, _, closed := c.state(); closed != banned(c) {
				return false
			}
		}
		return true
	})
	m.await("a list without them", func() bool { return m.count("like_clientid=fleet-010") == 0 })
	if _, err := join(m.t, m.s.ports["mqtt"], "fleet-0100", "even"); err == nil {
		m.t.Error("a banned client was let in")
	}
	if code := m.do("DELETE", "/banned/clientid_re/%5Efleet-01%5B0-4%5D", "", nil); code != 204 {
		m.t.Errorf("lift the ban: %d", code)
	}
	if _, err := join(m.t, m.s.ports["mqtt"], "fleet-0100", "even"); err != nil {
		m.t.Errorf("after the ban: %v", err)
	}
}

func TestAnAlarmIsStillKnownAfterARestart(t *testing.T) {
	data := t.TempDir()
	args := []string{"--data", data, "--allow-anonymous", "--emqx-listen", "127.0.0.1:0", "--bootstrap-file", bootstrapFile(t, testKeyYAML+
		"queues:\n- {name: short, topic_filter: x, max_messages: 1}\n")}
	s := startServer(t, args...)
	m := &management{t, s, "http://" + s.ports["emqx"] + "/api/v5"}
	var page struct {
		Data []struct {
			Name         string
			DeactivateAt string `json:"deactivate_at"`
		}
	}
	for range 2 {
		m.must(200, "POST", "/publish", `{"topic":"x","payload":"","qos":1}`, nil)
	}
	m.await("an alarm about the full queue", func() bool {
		m.must(200, "GET", "/alarms?activated=true", "", &page)
		return len(page.Data) == 1 && page.Data[0].Name == "queue_overflow:short"
	})
	s.stop()
	s = startServer(t, args...)
	m = &management{t, s, "http://" + s.ports["emqx"] + "/api/v5"}
	m.must(200, "GET", "/alarms?activated=true", "", &page)
	if len(page.Data) != 0 {
		t.Errorf("still active: %+v", page.Data)
	}
	m.must(200, "GET", "/alarms?activated=false", "", &page)
	if len(page.Data) != 1 || page.Data[0].Name != "queue_overflow:short" || page.Data[0].DeactivateAt == "infinity" {
		t.Errorf("over: %+v", page.Data)
	}
	m.must(204, "DELETE", "/alarms", "", nil)
	m.must(200, "GET", "/alarms?activated=false", "", &page)
	if len(page.Data) != 0 {
		t.Errorf("forgotten, and there: %+v", page.Data)
	}
}

func TestTheManagementAPIShowsTheSettingsInForce(t *testing.T) {
	m := manage(t)
	var c struct {
		Anonymous string `json:"allow_anonymous"`
		MQTT      struct {
			MaxInflight int    `json:"max_inflight"`
			Listen      string `json:"listen"`
		}
	}
	m.must(200, "GET", "/configs", "", &c)
	if c.Anonymous != "true" || c.MQTT.MaxInflight != 1024 || c.MQTT.Listen != "127.0.0.1:0" {
		t.Errorf("%+v", c)
	}
}

func TestAListenerStopsAndStartsAgain(t *testing.T) {
	m := manage(t)
	addr := m.s.ports["mqtt"]
	stays, err := join(t, addr, "stays", "", "x")
	if err != nil {
		t.Fatal(err)
	}
	m.must(204, "POST", "/listeners/tcp:default/stop", "", nil)
	if _, err := join(t, addr, "late", ""); err == nil {
		t.Error("a stopped listener let a client in")
	}
	m.must(200, "POST", "/publish", `{"topic":"x","payload":"still here","qos":1}`, nil)
	m.await("a message on the connection that stayed", func() bool { got, _, _ := stays.state(); return got == 1 })
	m.must(204, "POST", "/listeners/tcp:default/start", "", nil)
	if _, err := join(t, addr, "late", ""); err != nil {
		t.Errorf("after the start: %v", err)
	}
	m.must(204, "POST", "/listeners/tcp:default/restart", "", nil)
	var l struct {
		Bind   string
		Status struct {
			Running     bool
			Connections int `json:"current_connections"`
		}
	}
	m.must(200, "GET", "/listeners/tcp:default", "", &l)
	if !l.Status.Running || l.Bind != addr || l.Status.Connections != 2 {
		t.Errorf("%+v at %s", l, addr)
	}
}

func TestUsersAndRulesOfTheManagementAPIHoldForMQTT(t *testing.T) {
	m := manage(t)
	m.must(201, "POST", "/authentication/password_based%3Abuilt_in_database/users", `{"user_id":"meter","password":"correct horse"}`, nil)
	m.must(204, "POST", "/authorization/sources/built_in_database/rules/users", `[{"username":"meter","rules":[{"topic":"up/${username}","permission":"allow","action":"publish"}]}]`, nil)
	hears, err := join(t, m.s.ports["mqtt"], "hears", "", "up/#")
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.Dial(t.Context(), m.s.ports["mqtt"], wire.Login{ClientID: "c", User: "meter", Password: "correct horse"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Subscribe("up/#", 1); err == nil {
		t.Error("the rules let the user subscribe")
	}
	out := wire.AppendPublish(wire.AppendPublish(nil, "up/other", 1, 1, []byte("no")), "up/meter", 1, 2, []byte("yes"))
	if _, err := c.Write(out); err != nil {
		t.Fatal(err)
	}
	m.await("the permitted message", func() bool { got, _, _ := hears.state(); return got == 1 })
	m.await("the refusal in the counters", func() bool { return m.metrics()["authorization.deny"] == 2 })
	m.must(204, "DELETE", "/authentication/password_based%3Abuilt_in_database/users/meter", "", nil)
	m.await("the end of a user's connection", func() bool {
		_, err := c.Write(wire.AppendPing(nil))
		return err != nil
	})
}
