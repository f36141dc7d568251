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
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"millrace/persistence/jetstream/jetstreamtest"
)

// fleetOf are Millrace nodes on one NATS, as processes.
type fleetOf struct {
	t     *testing.T
	url   string
	boot  string
	names []string

	mu   sync.Mutex
	up   map[string]*server
	data map[string]string
}

// startNodes starts nodes that share a NATS server; the first leads.
func startNodes(t *testing.T, names ...string) *fleetOf {
	t.Helper()
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	f := &fleetOf{t: t, url: c.URL(), names: names, up: map[string]*server{}, data: map[string]string{}, boot: bootstrapFile(t, testKeyYAML+`
queues:
- {name: e, topic_filter: "e/#"}
`)}
	for _, name := range names {
		f.data[name] = t.TempDir()
		f.start(name)
	}
	return f
}

// start starts a node, or starts it again.
func (f *fleetOf) start(name string) {
	f.t.Helper()
	s := startServer(f.t, "--data", f.data[name], "--node-name", name, "--allow-anonymous", "--store", f.url, "--nats-sync", "always", "--bootstrap-file", f.boot,
		"--set", "mqtt.max_session_queue=10000000", "--set", "mqtt.max_session_bytes=4GiB")
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

// traffic publishes to queue e and consumes from it, at all nodes, and keeps book.
type traffic struct {
	f    *fleetOf
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	stored  map[string]bool // its publish was acknowledged
	seen    map[string]bool
	settled map[string]bool // its acknowledgement was
	wrong   []string
	last    time.Time
	gap     time.Duration // the longest between two acknowledged publishes
}

func (f *fleetOf) begin() *traffic {
	x := &traffic{f: f, stored: map[string]bool{}, seen: map[string]bool{}, settled: map[string]bool{}}
	ctx, stop := context.WithCancel(f.t.Context())
	x.stop = stop
	for i := range f.names {
		x.work.Go(func() { x.publish(ctx, i, i) })
		x.work.Go(func() { x.consume(ctx, i) })
	}
	return x
}

// publish goes to the next node when one does not answer.
func (x *traffic) publish(ctx context.Context, name, at int) {
	for n := 0; ctx.Err() == nil; n++ {
		s := x.f.node(at)
		if s == nil {
			at++
			continue
		}
		text := fmt.Sprintf("%d-%05d", name, n)
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := newService(s).publish(one, "e/t", text)
		cancel()
		if err != nil {
			at++
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		x.mu.Lock()
		x.stored[text] = true
		if now := time.Now(); !x.last.IsZero() {
			x.gap = max(x.gap, now.Sub(x.last))
		}
		x.last = time.Now()
		x.mu.Unlock()
	}
}

func (x *traffic) consume(ctx context.Context, at int) {
	for ctx.Err() == nil {
		s := x.f.node(at)
		if s == nil {
			at++
			continue
		}
		api := newService(s)
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		hs, err := api.consume(one, "e", 50, 1, 30)
		if err == nil {
			x.take(one, api, hs)
		} else {
			at++
		}
		cancel()
	}
}

// take notes what was received, and acknowledges it.
func (x *traffic) take(ctx context.Context, api *service, hs []held) {
	x.mu.Lock()
	for _, h := range hs {
		text := string(h.bytes())
		x.seen[text] = true
		if x.settled[text] {
			x.wrong = append(x.wrong, text+" was acknowledged, and came again")
		}
	}
	x.mu.Unlock()
	for _, h := range hs {
		if api.ack(ctx, "e", h) == nil {
			x.mu.Lock()
			x.settled[string(h.bytes())] = true
			x.mu.Unlock()
		}
	}
}

// more waits until so many more publishes were acknowledged.
func (x *traffic) more(n int) {
	x.f.t.Helper()
	count := func() int {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.stored)
	}
	from := count()
	if !eventually(90*time.Second, func() bool { return count() >= from+n }) {
		x.f.t.Fatalf("within 90 s %d publishes were acknowledged, not %d", count()-from, n)
	}
}

// end stops the clients, takes out what is left, and looks at the books.
func (x *traffic) end() {
	t := x.f.t
	t.Helper()
	x.stop()
	x.work.Wait()
	api := newService(x.f.node(0))
	if !eventually(2*time.Minute, func() bool { // what was leased to a client that is gone comes again
		hs, err := api.consume(t.Context(), "e", 100, 5, 60)
		if err == nil {
			x.take(t.Context(), api, hs)
		}
		n, err := api.counts(t.Context(), "e")
		return err == nil && n.Waiting+n.Held == 0
	}) {
		n, err := api.counts(t.Context(), "e")
		t.Errorf("%+v are left, %v", n, err)
	}
	var lost []string
	for text := range x.stored {
		if !x.seen[text] {
			lost = append(lost, text)
		}
	}
	slices.Sort(lost)
	if len(lost) > 0 || len(x.wrong) > 0 {
		t.Errorf("of %d acknowledged publishes %d were lost: %v; %v", len(x.stored), len(lost), lost, x.wrong)
	}
	t.Logf("%d publishes, %d acknowledged messages, the longest gap %s", len(x.stored), len(x.settled), x.gap)
}

// TestNodesComeAndGo has nodes killed and stopped while others publish and consume:
// nothing that was acknowledged is lost, or comes again.
func TestNodesComeAndGo(t *testing.T) {
	f := startNodes(t, "a", "b", "c")
	rounds := fromEnv(t, "MILLRACE_NODES_ROUNDS", 0)
	kinds := nodeFaults
	if rounds == 0 {
		rounds, kinds = 1, nodeFaults[:2]
	}
	for round := range rounds {
		for _, what := range kinds {
			x := f.begin()
			x.more(50)
			name := f.leader()
			x.mu.Lock()
			x.gap = 0
			x.mu.Unlock()
			t.Logf("round %d: the leader %s is %s", round, name, what.name)
			what.do(f, name)
			x.more(50)
			f.start(name)
			x.more(50)
			x.end()
		}
	}
}

// nodeFaults are what happens to a leader. It is down after that.
var nodeFaults = []struct {
	name string
	do   func(f *fleetOf, name string)
}{
	{"killed", func(f *fleetOf, name string) { f.down(name).kill() }},
	{"stopped", func(f *fleetOf, name string) { f.down(name).stop() }},
	{"halted for longer than others wait for it", func(f *fleetOf, name string) {
		s := f.down(name)
		_ = s.cmd.Process.Signal(syscall.SIGSTOP)
		if !eventually(time.Minute, func() bool { return f.leader() != name }) {
			f.t.Fatal("nobody leads in its place")
		}
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		select {
		case <-s.ended:
			if code := s.cmd.ProcessState.ExitCode(); code != 75 {
				f.t.Errorf("the node that was given up ends with code %d", code)
			}
		case <-time.After(40 * time.Second):
			f.t.Error("the node that was given up goes on")
			s.kill()
		}
	}},
}
