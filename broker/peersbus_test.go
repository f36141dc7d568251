package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/broker"
)

// bus connects Clusters of one process. Its nodes have a store each, so that all
// of them lead.
type bus struct {
	tb      testing.TB
	lose    func(kind string) bool // nil: nothing is lost
	delay   time.Duration          // of everything
	asks    atomic.Int64
	running sync.WaitGroup

	mu     sync.Mutex
	starts uint64
	nodes  map[string]*busNode
}

func newBus(tb testing.TB) *bus {
	tb.Helper()
	b := &bus{tb: tb, nodes: map[string]*busNode{}}
	tb.Cleanup(b.running.Wait)
	return b
}

// busNode is one node's Cluster.
type busNode struct {
	bus  *bus
	node broker.Node

	mu      sync.Mutex
	events  broker.ClusterEvents
	answers map[string]func(context.Context, string, []byte) ([]byte, error)
	heeds   map[string]*busQueue
	held    chan struct{}                  // Tell waits for it; nil: it does not
	tells   func(kind string, body []byte) // in place of Tell; nil: as it is
}

// hold lets Tell wait for a channel from now on.
func (n *busNode) hold(c chan struct{}) {
	n.mu.Lock()
	n.held = c
	n.mu.Unlock()
}

// setTell has f called in place of Tell.
func (n *busNode) setTell(f func(kind string, body []byte)) {
	n.mu.Lock()
	n.tells = f
	n.mu.Unlock()
}

// hear is what a node hears, at once.
func (n *busNode) hear(kind, from string, body []byte) {
	n.mu.Lock()
	q := n.heeds[kind]
	n.mu.Unlock()
	q.f(from, body)
}

// busQueue is what was told of a kind and not heard yet.
type busQueue struct {
	f       func(from string, body []byte)
	mu      sync.Mutex
	waiting []told
	news    chan struct{}
	end     chan struct{}
}

type told struct {
	from string
	body []byte
	due  time.Time
}

// join adds a node, or a new start of one that has left.
func (b *bus) join(name string) *busNode {
	b.mu.Lock()
	b.starts++
	n := &busNode{
		bus: b, node: broker.Node{Name: name, Start: b.starts, Leads: true},
		answers: map[string]func(context.Context, string, []byte) ([]byte, error){}, heeds: map[string]*busQueue{},
	}
	b.nodes[name] = n
	b.mu.Unlock()
	b.each(func(o *busNode) { o.tell(func(e broker.ClusterEvents) { e.Joined(n.node) }) }, n)
	return n
}

// leave takes a node off: it reaches nobody any more.
func (b *bus) leave(n *busNode) {
	b.mu.Lock()
	delete(b.nodes, n.node.Name)
	b.mu.Unlock()
	b.each(func(o *busNode) { o.tell(func(e broker.ClusterEvents) { e.Left(n.node) }) }, n)
}

func (b *bus) each(f func(*busNode), but *busNode) {
	b.mu.Lock()
	var all []*busNode
	for _, n := range b.nodes {
		if n != but {
			all = append(all, n)
		}
	}
	b.mu.Unlock()
	for _, n := range all {
		f(n)
	}
}

func (b *bus) find(name string) *busNode {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes[name]
}

// tell has f called with what follows the node, if there is somebody yet.
func (n *busNode) tell(f func(broker.ClusterEvents)) {
	n.mu.Lock()
	e := n.events
	n.mu.Unlock()
	if e != nil {
		f(e)
	}
}

func (n *busNode) Self() string { return n.node.Name }
func (n *busNode) Leads() bool  { return true }

func (n *busNode) Nodes() []broker.Node {
	all := []broker.Node{n.node}
	n.bus.each(func(o *busNode) { all = append(all, o.node) }, n)
	slices.SortFunc(all, func(a, b broker.Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (n *busNode) Follow(e broker.ClusterEvents) {
	n.mu.Lock()
	n.events = e
	n.mu.Unlock()
}

func (n *busNode) Ask(ctx context.Context, node, kind string, body []byte) ([]byte, error) {
	n.bus.asks.Add(1)
	to := n.bus.find(node)
	if to == nil || n.bus.find(n.node.Name) != n {
		return nil, &broker.Error{Kind: broker.Unavailable, Message: "no such node"}
	}
	to.mu.Lock()
	f := to.answers[kind]
	to.mu.Unlock()
	if f == nil {
		return nil, &broker.Error{Kind: broker.Unavailable, Message: "nobody answers " + kind}
	}
	body = slices.Clone(body)
	type answer struct {
		body []byte
		err  error
	}
	answered := make(chan answer, 1)
	n.bus.running.Go(func() {
		time.Sleep(n.bus.delay)
		if n.bus.loses(kind) {
			return
		}
		b, err := f(ctx, n.node.Name, body)
		if !n.bus.loses(kind) {
			answered <- answer{b, err}
		}
	})
	select {
	case a := <-answered:
		return a.body, a.err
	case <-ctx.Done():
		return nil, &broker.Error{Kind: broker.Unknown, Message: "no answer from " + node}
	}
}

func (b *bus) loses(kind string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lose != nil && b.lose(kind)
}

func (b *bus) setLoss(lose func(kind string) bool) {
	b.mu.Lock()
	b.lose = lose
	b.mu.Unlock()
}

func (n *busNode) Answer(kind string, f func(context.Context, string, []byte) ([]byte, error)) {
	n.mu.Lock()
	n.answers[kind] = f
	n.mu.Unlock()
}

func (n *busNode) Tell(node, kind string, body []byte) {
	n.mu.Lock()
	held, tells := n.held, n.tells
	n.mu.Unlock()
	if held != nil {
		<-held
	}
	if tells != nil {
		tells(kind, body)
		return
	}
	to := n.bus.find(node)
	if to == nil || n.bus.find(n.node.Name) != n || n.bus.loses(kind) {
		return
	}
	to.mu.Lock()
	q := to.heeds[kind]
	to.mu.Unlock()
	if q == nil {
		return
	}
	q.mu.Lock()
	q.waiting = append(q.waiting, told{n.node.Name, slices.Clone(body), time.Now().Add(n.bus.delay)})
	q.mu.Unlock()
	select {
	case q.news <- struct{}{}:
	default:
	}
}

func (n *busNode) Heed(kind string, f func(string, []byte)) {
	q := &busQueue{f: f, news: make(chan struct{}, 1), end: make(chan struct{})}
	n.mu.Lock()
	n.heeds[kind] = q
	n.mu.Unlock()
	n.bus.tb.Cleanup(func() { close(q.end) })
	n.bus.running.Go(func() {
		for {
			select {
			case <-q.end:
				return
			case <-q.news:
			}
			q.mu.Lock()
			waiting := q.waiting
			q.waiting = nil
			q.mu.Unlock()
			for _, t := range waiting {
				if n.bus.delay > 0 {
					time.Sleep(time.Until(t.due))
				}
				f(t.from, t.body)
			}
		}
	})
}

// start opens a broker on a new node of the bus.
func (b *bus) start(name string, change ...func(*broker.Options)) (*fixture, *busNode) {
	b.tb.Helper()
	n := b.join(name)
	f := open(b.tb, append(change, func(o *broker.Options) { o.Cluster = n })...)
	return f, n
}

// recorder is a sink that keeps what it was given.
type recorder struct {
	mu  sync.Mutex
	got []string
	ms  []*broker.Message
}

func (r *recorder) Deliver(m *broker.Message, to []*broker.Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, string(m.Payload))
	r.ms = append(r.ms, m)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// listen adds a live subscription with a sink of its own.
func (f *fixture) listen(filter string) (*broker.Subscription, *recorder) {
	f.tb.Helper()
	r := &recorder{}
	s := &broker.Subscription{Filter: filter, Principal: admin, Sink: r}
	if group, rest, shared := strings.Cut(strings.TrimPrefix(filter, "$share/"), "/"); strings.HasPrefix(filter, "$share/") && shared && group != "" {
		s.Filter, s.Share = rest, filter
	}
	if err := f.Subscribe(s); err != nil {
		f.tb.Fatal(err)
	}
	return s, r
}

// say publishes text in a QoS to topic, and returns what it matched.
func (f *fixture) say(qos byte, topic, text string) broker.Matched {
	f.tb.Helper()
	p, err := f.Publish(f.ctx, &broker.Message{Topic: topic, Payload: []byte(text), QoS: qos})
	if err != nil {
		f.tb.Fatal(err)
	}
	return p.Matched
}

// wantText wants exactly these, in order.
func wantText(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
