package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/cluster"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// heard is what a node's broker is told.
type heard struct {
	mu   sync.Mutex
	list []string
	revs map[string]uint64
	hold chan struct{} // nil, or closed when it may return from events
}

func (h *heard) add(format string, args ...any) {
	h.mu.Lock()
	h.list = append(h.list, fmt.Sprintf(format, args...))
	hold := h.hold
	h.mu.Unlock()
	if hold != nil {
		<-hold
	}
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}

func (h *heard) has(what string) bool { return slices.Contains(h.all(), what) }

func (*heard) Wants(_ broker.Space, key string) bool { return key != "unwanted" }
func (h *heard) Defined(d broker.Definition)         { h.add("defined %s", d.Def.Name) }
func (h *heard) Gone(d broker.Definition)            { h.add("gone %s", d.Def.Name) }
func (h *heard) Recorded(_ broker.Space, e broker.Entry) {
	h.mu.Lock()
	if h.revs == nil {
		h.revs = map[string]uint64{}
	}
	stale := e.Rev <= h.revs[e.Key]
	h.revs[e.Key] = e.Rev
	h.mu.Unlock()
	if stale {
		h.add("stale %s", e.Key)
	}
	h.add("recorded %s=%s", e.Key, e.Value)
}
func (h *heard) Joined(n broker.Node) { h.add("joined %s", n.Name) }
func (h *heard) Left(n broker.Node)   { h.add("left %s", n.Name) }
func (h *heard) Led()                 { h.add("led") }
func (h *heard) Alone(is bool)        { h.add("alone %v", is) }

// Lapsed and Dropped implement broker.Events.
func (*heard) Lapsed(broker.Target, broker.Reason, []broker.Delivery) {}
func (*heard) Dropped(broker.Target, broker.Reason, int)              {}

// node is one of a cluster, whose way to the servers can be cut.
type node struct {
	*cluster.Store
	heard  *heard
	log    *logs
	way    jetstreamtest.Way
	failed chan error
}

// brief is the hold of nodes that are to be given up; patient is longer than a loaded
// machine keeps one from saying that it is there.
const (
	brief   = 3 * time.Second
	patient = 20 * time.Second
)

// logs are what a node has logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

func startNode(tb testing.TB, c *jetstreamtest.Cluster, name string, hold time.Duration) *node {
	tb.Helper()
	n := &node{heard: &heard{}, log: &logs{}, way: jetstreamtest.NewWay(tb, c.Servers[0].Addr().String()), failed: make(chan error, 1)}
	n.Store = open(tb, jetstream.Options{
		URL: n.way.URL(), Replicas: 1, Hold: hold, Node: name, Log: zerolog.New(n.log),
		Failed: func(err error) { n.failed <- err },
	})
	n.Follow(n.heard)
	n.Bind(n.heard)
	tb.Cleanup(func() {
		n.way.Mend()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = n.Close(ctx)
	})
	return n
}

// eventually waits until is holds.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !is(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatalf("not within a minute: %s", what)
		}
	}
}

// done is a Completion that is waited for.
type done chan *broker.Batch

func (d done) Done(b *broker.Batch) { d <- b }

// put writes a key and returns the outcome.
func (n *node) put(key, value string) error {
	b, d := new(broker.Batch), make(done, 1)
	b.Put(broker.SpaceAuth, key, []byte(value), 0)
	b.End()
	n.Submit(b, broker.Durable, d)
	return (<-d).Units[0].Result.Err
}

// forget deletes a key.
func (n *node) forget(key string) error {
	b, d := new(broker.Batch), make(done, 1)
	b.Put(broker.SpaceAuth, key, nil, 0)
	b.End()
	n.Submit(b, broker.Durable, d)
	return (<-d).Units[0].Result.Err
}

// send publishes to a queue.
func (n *node) send(t broker.Target, text string) error {
	b, d := new(broker.Batch), make(done, 1)
	m := &broker.Message{Topic: "a", Payload: []byte(text), ID: broker.ID{0: 1, 15: text[0]}, Published: time.Now().UnixMilli()}
	b.Publish(m, broker.Route{Target: t})
	b.End()
	n.Submit(b, broker.Durable, d)
	return (<-d).Units[0].Result.Err
}

// got is a WaitSink.
type got chan *broker.Wait

func (g got) Deliver(w *broker.Wait) { g <- w }

// wait makes a wait for so long, which Receive is to be called with.
func (n *node) wait(t broker.Target, d time.Duration) *broker.Wait {
	return &broker.Wait{Target: t, Max: 10, Lease: time.Minute, Until: n.Now().Add(d), Sink: make(got, 1)}
}

func (n *node) receive(t broker.Target, wait time.Duration) got {
	w := n.wait(t, wait)
	n.Receive(w)
	return w.Sink.(got)
}

func texts(w *broker.Wait) string {
	s := ""
	for i := range w.Got {
		s += string(w.Got[i].Payload)
	}
	return s
}

func servers(tb testing.TB) *jetstreamtest.Cluster {
	tb.Helper()
	return jetstreamtest.Start(tb, jetstreamtest.Options{Servers: 1})
}

// queue defines one on a node.
func (n *node) queue(tb testing.TB, name string) broker.Target {
	tb.Helper()
	t, err := n.Define(tb.Context(), broker.Def{Name: name, Kind: broker.QueueTarget})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestWhatOneNodeWritesAllKnowBeforeItIsAnswered(t *testing.T) {
	c := servers(t)
	a, b, x := startNode(t, c, "a", patient), startNode(t, c, "b", patient), startNode(t, c, "x", patient)
	for i, n := range []*node{a, b, x} {
		name := fmt.Sprint("q", i)
		target := n.queue(t, name)
		if err := n.put(name, "v"); err != nil {
			t.Fatal(err)
		}
		for _, other := range []*node{a, b, x} {
			if !other.heard.has("defined "+name) || !other.heard.has("recorded "+name+"=v") {
				t.Errorf("node %s heard %q", other.Self(), other.heard.all())
			}
		}
		if err := n.Drop(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		if err := n.forget(name); err != nil {
			t.Fatal(err)
		}
		for _, other := range []*node{a, b, x} {
			if !other.heard.has("gone "+name) || !other.heard.has("recorded "+name+"=") || other.heard.has("stale "+name) {
				t.Errorf("node %s heard %q", other.Self(), other.heard.all())
			}
		}
	}
	if err := b.put("unwanted", "v"); err != nil || a.heard.has("recorded unwanted=v") {
		t.Error("a key that no node wants was told", err)
	}
}

func TestANodeThatFollowsHasTheStateOfItsLeader(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	q := b.queue(t, "q")
	if err := b.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it knows how much is stored", func() bool { return a.Stored() > 0 && b.Stored() == a.Stored() })
	if x, y := a.State(), b.State(); !reflect.DeepEqual(x, y) || x.Nodes != 2 || x.Err != nil {
		t.Errorf("the states are %+v and %+v", x, y)
	}
	if d := b.Now().Sub(a.Now()).Abs(); d > time.Second {
		t.Errorf("the clocks are %s apart", d)
	}
}

func TestAWriterWaitsForANodeThatDoesNotKnowYet(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	b.heard.mu.Lock()
	b.heard.hold = make(chan struct{})
	b.heard.mu.Unlock()
	end := make(chan error, 1)
	go func() { end <- a.put("k", "v") }()
	eventually(t, "the other node is told", func() bool { return b.heard.has("recorded k=v") })
	select {
	case err := <-end:
		t.Fatal("answered before the other node knew", err)
	case <-time.After(50 * time.Millisecond): // it is held back, whatever the time
	}
	close(b.heard.hold)
	if err := <-end; err != nil {
		t.Fatal(err)
	}
}

// Whoever leads next waits for all nodes there are before it answers a change, and
// takes in the sessions of those that are not there: it must know who has just come.
func TestAllKnowOfANodeThatJoinedAndOfOneThatLeft(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	x := startNode(t, c, "x", patient)
	want := []string{"a", "b", "x"}
	for _, n := range []*node{a, b, x} {
		if got := n.names(); !slices.Equal(got, want) {
			t.Errorf("%s knows of %v when a node has joined, want %v", n.Self(), got, want)
		}
	}
	if err := x.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it left", func() bool { return b.heard.has("left x") })
	if got, want := b.names(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("b knows of %v when a node has left, want %v", got, want)
	}
}

// names of the nodes that n knows of.
func (n *node) names() (all []string) {
	for _, m := range n.Nodes() {
		all = append(all, m.Name)
	}
	return all
}

func TestWhenTheLeaderStopsAnotherGoesOn(t *testing.T) {
	c := servers(t)
	a, b, x := startNode(t, c, "a", patient), startNode(t, c, "b", patient), startNode(t, c, "x", patient)
	q := b.queue(t, "q")
	waiting := b.receive(q, time.Minute)
	if err := x.put("k", "1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	eventually(t, "another leads", func() bool { return b.Leads() || x.Leads() })
	if err := x.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	t.Logf("a publish was answered %s after the leader had stopped", time.Since(begun))
	if w := <-waiting; w.Err != nil || texts(w) != "m" {
		t.Fatalf("got %q, %v", texts(w), w.Err)
	}
	for _, n := range []*node{b, x} {
		eventually(t, "all know who left", func() bool { return n.heard.has("left a") })
		if len(n.Nodes()) != 2 {
			t.Errorf("nodes of %s are %v", n.Self(), n.Nodes())
		}
	}
	if b.heard.has("led") == x.heard.has("led") {
		t.Error("who leads was told", b.heard.all(), x.heard.all())
	}
}

func TestALeaderThatIsCutOffIsReplacedAndWritesNothingMore(t *testing.T) {
	c := servers(t)
	a, b, x := startNode(t, c, "a", brief), startNode(t, c, "b", brief), startNode(t, c, "x", brief)
	q := a.queue(t, "q")
	waiting := x.receive(q, time.Minute)
	a.way.Cut()
	begun := time.Now()
	eventually(t, "another leads", func() bool { return b.Leads() || x.Leads() })
	t.Logf("another leads after %s", time.Since(begun))
	if err := b.put("k", "new"); err != nil {
		t.Fatal(err)
	}
	if err := b.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	if w := <-waiting; w.Err != nil || texts(w) != "m" {
		t.Fatalf("got %q, %v", texts(w), w.Err)
	}
	end := make(chan error, 1)
	go func() { end <- a.put("k", "old") }()
	eventually(t, "it knows that it is alone", func() bool { return a.heard.has("alone true") })
	a.way.Mend()
	if err := <-a.failed; err == nil {
		t.Error("the old leader goes on")
	}
	if err := <-end; err == nil {
		t.Error("the old leader wrote a key")
	}
	if e, err := x.Get(t.Context(), broker.SpaceAuth, "k"); err != nil || string(e.Value) != "new" {
		t.Errorf("the key is %q, %v", e.Value, err)
	}
}

func TestANodeThatIsCutOffIsNotWaitedForAndHearsWhatItMissed(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", brief), startNode(t, c, "b", brief)
	if err := a.put("gone", "v"); err != nil {
		t.Fatal(err)
	}
	q := b.queue(t, "q")
	waiting := b.receive(q, time.Minute)
	b.way.Cut()
	if err := a.put("k", "v"); err != nil { // once the other is given up
		t.Fatal(err)
	}
	eventually(t, "it is given up", func() bool { return a.heard.has("left b") })
	eventually(t, "it knows that it is alone", func() bool { return b.heard.has("alone true") })
	if err := a.forget("gone"); err != nil {
		t.Fatal(err)
	}
	a.queue(t, "later")
	b.way.Mend()
	eventually(t, "it is back", func() bool { return b.heard.has("alone false") })
	for _, what := range []string{"recorded k=v", "recorded gone=", "defined later"} {
		if !b.heard.has(what) || b.heard.has("stale gone") {
			t.Errorf("%q is not among %q", what, b.heard.all())
		}
	}
	if err := a.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	if w := <-waiting; w.Err != nil || texts(w) != "m" {
		t.Fatalf("got %q, %v", texts(w), w.Err)
	}
}

func TestNodesAskAndTellEachOther(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b node, with a name", patient)
	b.Answer("double", func(_ context.Context, from string, body []byte) ([]byte, error) {
		if len(body) == 0 {
			return nil, &broker.Error{Kind: broker.Invalid, Subject: broker.FieldSubject, Field: "body", Message: "empty"}
		}
		return append(body, body...), nil
	})
	large := make([]byte, 9<<20) // more than the servers take at once
	large[len(large)-1] = 7
	for _, body := range [][]byte{[]byte("x"), large} {
		answer, err := a.Ask(t.Context(), b.Self(), "double", body)
		if err != nil || !slices.Equal(answer, append(slices.Clone(body), body...)) {
			t.Fatalf("the answer has %d bytes: %v", len(answer), err)
		}
	}
	_, err := a.Ask(t.Context(), b.Self(), "double", nil)
	if e, ok := errors.AsType[*broker.Error](err); !ok || e.Kind != broker.Invalid || e.Field != "body" || e.Message != "empty" {
		t.Errorf("the error is %#v", err)
	}
	if _, err := a.Ask(t.Context(), "nobody", "double", nil); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("a node that is not there: %v", err)
	}
	told := make(chan string, 200)
	a.Heed("say", func(from string, body []byte) { told <- from + ": " + string(body) })
	for i := range 100 {
		b.Tell("a", "say", fmt.Append(nil, i))
	}
	for i := range 100 {
		if got, want := <-told, fmt.Sprintf("%s: %d", b.Self(), i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}
