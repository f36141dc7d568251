// Package clustertest connects nodes of one process, for tests.
package clustertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/broker"
)

// Bus connects Clusters of one process. Its nodes have a store each, so that all
// of them lead.
type Bus struct {
	Delay time.Duration // of everything; set before nodes join
	Asks  atomic.Int64  // requests so far

	tb      testing.TB
	running sync.WaitGroup

	mu     sync.Mutex
	lose   func(kind string) bool // nil: nothing is lost
	starts uint64
	nodes  map[string]*Node
}

// New returns a bus without nodes, which ends with the test.
func New(tb testing.TB) *Bus {
	tb.Helper()
	b := &Bus{tb: tb, nodes: map[string]*Node{}}
	tb.Cleanup(b.running.Wait)
	return b
}

// Node is one node's Cluster.
type Node struct {
	bus  *Bus
	Info broker.Node

	mu      sync.Mutex
	events  broker.ClusterEvents
	answers map[string]func(context.Context, string, []byte) ([]byte, error)
	heeds   map[string]*queue
	held    chan struct{}                  // Tell waits for it; nil: it does not
	tells   func(kind string, body []byte) // in place of Tell; nil: as it is
}

// Hold lets Tell wait for a channel from now on.
func (n *Node) Hold(c chan struct{}) {
	n.mu.Lock()
	n.held = c
	n.mu.Unlock()
}

// SetTell has f called in place of Tell.
func (n *Node) SetTell(f func(kind string, body []byte)) {
	n.mu.Lock()
	n.tells = f
	n.mu.Unlock()
}

// Hear is what a node hears, at once.
func (n *Node) Hear(kind, from string, body []byte) {
	n.mu.Lock()
	q := n.heeds[kind]
	n.mu.Unlock()
	q.f(from, body)
}

// queue is what was told of a kind and not heard yet.
type queue struct {
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

// Join adds a node, or a new start of one that has left.
func (b *Bus) Join(name string) *Node {
	b.mu.Lock()
	b.starts++
	n := &Node{
		bus: b, Info: broker.Node{Name: name, Start: b.starts, Leads: true},
		answers: map[string]func(context.Context, string, []byte) ([]byte, error){}, heeds: map[string]*queue{},
	}
	b.nodes[name] = n
	b.mu.Unlock()
	b.each(func(o *Node) { o.Events(func(e broker.ClusterEvents) { e.Joined(n.Info) }) }, n)
	return n
}

// Leave takes a node off: it reaches nobody any more.
func (b *Bus) Leave(n *Node) {
	b.mu.Lock()
	delete(b.nodes, n.Info.Name)
	b.mu.Unlock()
	b.each(func(o *Node) { o.Events(func(e broker.ClusterEvents) { e.Left(n.Info) }) }, n)
}

func (b *Bus) each(f func(*Node), but *Node) {
	b.mu.Lock()
	var all []*Node
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

func (b *Bus) find(name string) *Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes[name]
}

// Events has f called with what follows the node, if there is somebody yet.
func (n *Node) Events(f func(broker.ClusterEvents)) {
	n.mu.Lock()
	e := n.events
	n.mu.Unlock()
	if e != nil {
		f(e)
	}
}

// Self implements broker.Cluster.
func (n *Node) Self() string { return n.Info.Name }

// Leads implements broker.Cluster: a node has a store of its own.
func (n *Node) Leads() bool { return true }

// Current implements broker.Cluster: each node has a store of its own.
func (n *Node) Current() (bool, error) { return false, nil }

// Nodes implements broker.Cluster.
func (n *Node) Nodes() []broker.Node {
	all := []broker.Node{n.Info}
	n.bus.each(func(o *Node) { all = append(all, o.Info) }, n)
	slices.SortFunc(all, func(a, b broker.Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Follow implements broker.Cluster.
func (n *Node) Follow(e broker.ClusterEvents) {
	n.mu.Lock()
	n.events = e
	n.mu.Unlock()
}

// Ask implements broker.Cluster.
func (n *Node) Ask(ctx context.Context, node, kind string, body []byte) ([]byte, error) {
	n.bus.Asks.Add(1)
	to := n.bus.find(node)
	if to == nil || n.bus.find(n.Info.Name) != n {
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
		n.bus.rest(n.bus.Delay)
		if n.bus.loses(kind) {
			return
		}
		b, err := f(ctx, n.Info.Name, body)
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

func (b *Bus) loses(kind string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lose != nil && b.lose(kind)
}

// rest waits for what is on its way.
func (b *Bus) rest(d time.Duration) {
	if b.Delay > 0 && d > 0 {
		<-time.After(d)
	}
}

// SetLoss has lose asked about everything that goes over the bus; nil: nothing is lost.
func (b *Bus) SetLoss(lose func(kind string) bool) {
	b.mu.Lock()
	b.lose = lose
	b.mu.Unlock()
}

// Answer implements broker.Cluster.
func (n *Node) Answer(kind string, f func(context.Context, string, []byte) ([]byte, error)) {
	n.mu.Lock()
	n.answers[kind] = f
	n.mu.Unlock()
}

// Tell implements broker.Cluster.
func (n *Node) Tell(node, kind string, body []byte) {
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
	if to == nil || n.bus.find(n.Info.Name) != n || n.bus.loses(kind) {
		return
	}
	to.mu.Lock()
	q := to.heeds[kind]
	to.mu.Unlock()
	if q == nil {
		return
	}
	q.mu.Lock()
	q.waiting = append(q.waiting, told{n.Info.Name, slices.Clone(body), time.Now().Add(n.bus.Delay)})
	q.mu.Unlock()
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// Heed implements broker.Cluster.
func (n *Node) Heed(kind string, f func(string, []byte)) {
	q := &queue{f: f, news: make(chan struct{}, 1), end: make(chan struct{})}
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
				n.bus.rest(time.Until(t.due))
				f(t.from, t.body)
			}
		}
	})
}
