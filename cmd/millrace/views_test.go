package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// view asks the management API of a node.
func (s *server) view(t *testing.T, method, path, body string) (status int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.url()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(testKeyID, testSecret)
	r.Header.Set("Content-Type", "application/json")
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(b)
}

// shown lists the clients that a node shows, each with its node and whether it is connected.
func (s *server) shown(t *testing.T) string {
	t.Helper()
	_, text := s.view(t, "GET", "/api/v5/clients", "")
	var l struct {
		Data []struct {
			ID        string `json:"clientid"`
			Node      string `json:"node"`
			Connected bool   `json:"connected"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var all []string
	for _, c := range l.Data {
		all = append(all, fmt.Sprintf("%s@%s:%v", c.ID, c.Node, c.Connected))
	}
	return strings.Join(all, " ")
}

// TestEveryNodeShowsAllClients has clients come, leave and be kept out at nodes
// that they are not connected to.
func TestEveryNodeShowsAllClients(t *testing.T) {
	f := startNodes(t, "a", "b")
	a, b := f.node(0), f.node(1)
	expect := func(want string) {
		t.Helper()
		for _, s := range []*server{a, b} {
			got := ""
			if !eventually(time.Minute, func() bool { got = s.shown(t); return got == want }) {
				t.Errorf("shown are %q, want %q", got, want)
			}
		}
	}
	here, err := dial(a, "here", true)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Disconnect(0)
	there, err := dial(b, "there", false)
	if err != nil {
		t.Fatal(err)
	}
	expect("here@a:true there@b:true")
	if _, text := a.view(t, "GET", "/api/v5/nodes", ""); strings.Count(text, `"running"`) != 2 || strings.Count(text, `"leader":true`) != 1 {
		t.Errorf("nodes: %s", text)
	}
	// What a node says of itself is what others say of it when it is silent.
	out, _, _ := command(t, "version")
	if _, text := b.view(t, "GET", "/api/v5/nodes", ""); strings.Count(text, fmt.Sprintf(`"version":%q`, strings.TrimSuffix(strings.Fields(out)[1], ","))) != 2 {
		t.Errorf("of version %s nodes show %s", out, text)
	}
	for i, s := range []*server{a, b} {
		_, text := s.view(t, "GET", "/metrics", "")
		for _, want := range []string{"millrace_cluster_nodes 2\n", fmt.Sprintf("millrace_cluster_leads %d\n", 1-i), "millrace_cluster_led_total 0\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("metrics of node %d have no %s", i, want)
			}
		}
	}
	there.Disconnect(0)
	expect("here@a:true there@a:false") // the leader shows who is away

	if there, err = dial(b, "there", false); err != nil {
		t.Fatal(err)
	}
	expect("here@a:true there@b:true")
	if status, text := a.view(t, "DELETE", "/api/v5/clients/there", ""); status != http.StatusNoContent {
		t.Errorf("kick: %d %s", status, text)
	}
	expect("here@a:true")
	if there.IsConnected() && !eventually(time.Minute, func() bool { return !there.IsConnected() }) {
		t.Error("a client that was kicked at another node stays")
	}

	if there, err = dial(b, "there", true); err != nil {
		t.Fatal(err)
	}
	defer there.Disconnect(0)
	if status, text := a.view(t, "POST", "/api/v5/banned", `{"as": "clientid", "who": "there"}`); status != http.StatusOK {
		t.Fatalf("ban: %d %s", status, text)
	}
	answered := time.Now()
	if !eventually(time.Minute, func() bool { return !there.IsConnected() }) {
		t.Error("a client that was banned at another node stays")
	}
	t.Logf("it was closed %v after the answer to the ban", time.Since(answered))
	if _, err := dial(b, "there", true); err == nil {
		t.Error("a client that is banned at another node connects")
	}
}

// TestANodeThatIsCutOffIsNotReady and is again when it is back.
func TestANodeThatIsCutOffIsNotReady(t *testing.T) {
	f := startNodes(t, "a", "b")
	b, way := f.up["b"], f.ways["b"]
	ready := func(want int) {
		t.Helper()
		got, text := 0, ""
		if !eventually(time.Minute, func() bool { got, text = b.view(t, "GET", "/readyz", ""); return got == want }) {
			t.Errorf("readyz is %d %s, want %d", got, text, want)
		}
	}
	ready(http.StatusOK)
	way.Cut()
	ready(http.StatusServiceUnavailable)
	if _, text := b.view(t, "GET", "/livez", ""); !strings.Contains(text, "ok") {
		t.Errorf("livez: %s", text)
	}
	way.Mend()
	ready(http.StatusOK)
}
