package main_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"millrace/persistence/jetstream/jetstreamtest"
)

// fleetOf are Millrace nodes on one NATS, as processes, each with a way of its own
// to the servers.
type fleetOf struct {
	t     *testing.T
	boot  string
	names []string
	ways  map[string]jetstreamtest.Way

	mu   sync.Mutex
	up   map[string]*server
	data map[string]string
}

// startNodes starts nodes that share a NATS server; the first leads.
func startNodes(t *testing.T, names ...string) *fleetOf {
	t.Helper()
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	return startNodesOver(t, func() jetstreamtest.Way { return jetstreamtest.NewWay(t, c.Servers[0].Addr().String()) }, names...)
}

// startNodesOver starts nodes, each with a way that way makes.
func startNodesOver(t *testing.T, way func() jetstreamtest.Way, names ...string) *fleetOf {
	t.Helper()
	f := &fleetOf{t: t, names: names, ways: map[string]jetstreamtest.Way{}, up: map[string]*server{}, data: map[string]string{}, boot: bootstrapFile(t, testKeyYAML+`
queues:
- {name: e, topic_filter: "e/#"}
- {name: held, topic_filter: "held/#"}
`)}
	for _, name := range names {
		f.data[name], f.ways[name] = t.TempDir(), way()
		f.start(name)
	}
	return f
}

// start starts a node, or starts it again. Its devices may come again in a hurry.
func (f *fleetOf) start(name string) {
	f.t.Helper()
	s := startServer(f.t, "--data", f.data[name], "--node-name", name, "--allow-anonymous", "--store", f.ways[name].URL(), "--nats-sync", "always", "--bootstrap-file", f.boot,
		"--memfifo-listen", "127.0.0.1:0", "--set", "mqtt.max_session_queue=10000000", "--set", "mqtt.max_session_bytes=4GiB", "--set", "mqtt.rival_takeovers=0")
	f.mu.Lock()
	f.up[name] = s
	f.mu.Unlock()
}

// node returns the i-th node that is up, counted in a ring.
func (f *fleetOf) node(i int) *server {
	f.mu.Lock()
	defer f.mu.Unlock()
	for j := range f.names {
		if s := f.up[f.names[(i+j)%len(f.names)]]; s != nil {
			return s
		}
	}
	return nil
}

// other returns a node that is up and is not that one.
func (f *fleetOf) other(name string) *server {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, s := range f.up {
		if n != name {
			return s
		}
	}
	return nil
}

// at returns a node by name, nil where it is not up.
func (f *fleetOf) at(name string) *server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.up[name]
}

// down takes a node out, before something happens to it.
func (f *fleetOf) down(name string) *server {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.up[name]
	delete(f.up, name)
	return s
}

// leader names the node that leads: of those that are up it was the last to begin to.
func (f *fleetOf) leader() (name string) {
	f.t.Helper()
	var last time.Time
	ok := eventually(time.Minute, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for n, s := range f.up {
			text, err := os.ReadFile(s.log)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				if !strings.Contains(line, `"leads the cluster"`) {
					continue
				}
				_, at, _ := strings.Cut(line, `"time":"`)
				at, _, _ = strings.Cut(at, `"`)
				if when, err := time.Parse(time.RFC3339, at); err == nil && when.After(last) {
					name, last = n, when
				}
			}
		}
		return name != ""
	})
	if !ok {
		f.t.Fatal("no node leads")
	}
	return name
}

func mosquitto(ctx context.Context, tool string, s *server, args ...string) ([]byte, error) {
	_, port, _ := strings.Cut(s.ports["mqtt"], ":")
	return exec.CommandContext(ctx, tool, append([]string{"-p", port}, args...)...).CombinedOutput()
}

func TestNodesAreOneBroker(t *testing.T) {
	needTools(t)
	f := startNodes(t, "a", "b", "c")
	a, b, c := f.node(0), f.node(1), f.node(2)

	// A service waits at one node for what a device sends to another; a third acknowledges.
	type outcome struct {
		hs  []held
		err error
	}
	got := make(chan outcome, 1)
	go func() {
		hs, err := newService(c).consume(t.Context(), "e", 10, 30, 30)
		got <- outcome{hs, err}
	}()
	if out, err := mosquitto(t.Context(), "mosquitto_pub", b, "-q", "1", "-t", "e/1", "-m", "hello"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := <-got
	if o.err != nil || len(o.hs) != 1 || string(o.hs[0].bytes()) != "hello" {
		t.Fatalf("got %v, %v", o.hs, o.err)
	}
	if err := newService(a).ack(t.Context(), "e", o.hs[0]); err != nil {
		t.Fatal(err)
	}
	if n, err := newService(b).counts(t.Context(), "e"); err != nil || n.Waiting+n.Held+n.Books.Difference != 0 {
		t.Errorf("%+v are left, %v", n, err)
	}

	// What is retained at one node is there at another at once.
	for i, s := range []*server{a, b, c, a} {
		if out, err := mosquitto(t.Context(), "mosquitto_pub", s, "-q", "1", "-r", "-t", "state", "-m", fmt.Sprint(i)); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := mosquitto(t.Context(), "mosquitto_sub", f.node(i+1), "-t", "state", "-C", "1", "-W", "20")
		if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(i) {
			t.Errorf("retained %d: %q, %v", i, out, err)
		}
	}

	// A subscriber at one node has what others publish at all.
	sub, err := dial(b, "sub", true)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Disconnect(0)
	live := make(chan string, 10)
	token := sub.Subscribe("live/#", 1, func(_ paho.Client, m paho.Message) { live <- string(m.Payload()) })
	if !token.WaitTimeout(20*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	for i, s := range []*server{a, b, c} {
		if out, err := mosquitto(t.Context(), "mosquitto_pub", s, "-q", "1", "-t", "live/x", "-m", fmt.Sprint(i)); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		select {
		case text := <-live:
			if text != fmt.Sprint(i) {
				t.Errorf("got %q, want %d", text, i)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("message %d did not come", i)
		}
	}
	shareOut(t, a, b, c)
}

// shareOut has a member of one shared subscription at each node: what is published at one
// goes to each of them, and once.
func shareOut(t *testing.T, nodes ...*server) {
	t.Helper()
	const messages = 90
	type arrival struct {
		node int
		text string
	}
	got := make(chan arrival, 2*messages)
	for i, s := range nodes {
		member, err := dial(s, fmt.Sprint("member", i), true)
		if err != nil {
			t.Fatal(err)
		}
		defer member.Disconnect(0)
		token := member.Subscribe("$share/g/spread", 1, func(_ paho.Client, m paho.Message) { got <- arrival{i, string(m.Payload())} })
		if !token.WaitTimeout(20*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	for i := range messages {
		if out, err := mosquitto(t.Context(), "mosquitto_pub", nodes[0], "-q", "1", "-t", "spread", "-m", fmt.Sprint(i)); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	had, texts := make([]int, len(nodes)), map[string]bool{}
	for range messages {
		select {
		case x := <-got:
			had[x.node]++
			texts[x.text] = true
		case <-time.After(30 * time.Second):
			t.Fatalf("the members of three nodes have %v of %d messages", had, messages)
		}
	}
	if slices.Min(had) < messages/9 || len(texts) != messages {
		t.Errorf("the members of three nodes have %v of %d messages, %d different ones", had, messages, len(texts))
	}
}

func TestAUserThatOneNodeRemovesIsGoneFromAll(t *testing.T) {
	f := startNodes(t, "a", "b")
	a, b := f.node(0), f.node(1)
	made := map[string]any{"username": "dev", "password": "a password of its own"}
	if err := newService(a).call(t.Context(), http.MethodPost, "/users", made, nil); err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 1)
	o := paho.NewClientOptions().AddBroker("tcp://" + b.ports["mqtt"]).SetClientID("dev").SetUsername("dev").SetPassword("a password of its own").
		SetAutoReconnect(false).SetConnectionLostHandler(func(_ paho.Client, err error) { lost <- err })
	c := paho.NewClient(o)
	if token := c.Connect(); !token.WaitTimeout(20*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	if err := newService(a).call(t.Context(), http.MethodDelete, "/users/dev", nil, nil); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if token := paho.NewClient(o).Connect(); !token.WaitTimeout(20*time.Second) || token.Error() == nil {
		t.Error("a user that another node has removed logs in")
	}
	select {
	case <-lost:
		t.Logf("its connection ended %s after the answer", time.Since(begun))
	case <-time.After(30 * time.Second):
		t.Error("its connection stays")
	}
}
