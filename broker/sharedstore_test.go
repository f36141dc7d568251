package broker_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
)

// sharedStore is one store that several nodes share, in one process: what a
// broker.Cluster and its events promise, and nothing that they do not.
type sharedStore struct {
	tb    testing.TB
	store broker.Store
	bind  sync.Once

	telling  sync.Mutex // events come one after the other
	defining sync.Mutex // and in the order of what they tell

	mu     sync.Mutex // protects what follows
	nodes  []*node
	leader *node
	starts uint64
}

// share makes a shared store of the memory driver; on, of a directory.
func share(tb testing.TB, dir string) *sharedStore {
	tb.Helper()
	s, err := local.Open(local.Options{Dir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return &sharedStore{tb: tb, store: s}
}

// node is one node's view: its Store and its Cluster.
type node struct {
	broker.Store
	of   *sharedStore
	info broker.Node

	// Guarded by of.mu.
	events  broker.ClusterEvents
	lapses  broker.Events
	dead    bool
	cut     bool     // reaches nobody
	deaf    bool     // answers nobody
	missed  []func() // events while it was cut
	answers map[string]func(context.Context, string, []byte) ([]byte, error)
	heeds   map[string]func(string, []byte)
	waits   map[*broker.Wait]*wait
	told    []func()
	telling bool
}

// join adds a node without a broker. The first one leads.
func (s *sharedStore) join(name string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	n := &node{
		Store: s.store, of: s, info: broker.Node{Name: name, Start: s.starts, Since: s.store.Now()},
		answers: map[string]func(context.Context, string, []byte) ([]byte, error){},
		heeds:   map[string]func(string, []byte){}, waits: map[*broker.Wait]*wait{},
	}
	s.nodes = append(s.nodes, n)
	if s.leader == nil {
		s.leader = n
	}
	return n
}

// start adds a node with a broker.
func (s *sharedStore) start(name string, change ...func(*broker.Options)) *fixture {
	s.tb.Helper()
	return s.open(s.join(name), change...)
}

// open starts the broker of a node.
func (s *sharedStore) open(n *node, change ...func(*broker.Options)) *fixture {
	s.tb.Helper()
	ctx := auth.WithPrincipal(context.Background(), admin)
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(n, broker.SpaceAuth), AllowAnonymous: true, Log: zerolog.Nop()})
	if err != nil {
		s.tb.Fatal(err)
	}
	o := broker.Options{Store: n, Cluster: n, Auth: a, Log: zerolog.Nop()}
	for _, f := range change {
		f(&o)
	}
	b, err := broker.Open(ctx, o)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() {
		if err := b.Close(ctx); err != nil {
			s.tb.Errorf("close the broker of %s: %v", n.info.Name, err)
		}
	})
	s.each(n, func(e broker.ClusterEvents) { e.Joined(n.info) })
	return &fixture{Broker: b, ctx: ctx, store: n, tb: s.tb}
}

// live are the nodes that are there.
func (s *sharedStore) live() []*node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return n.dead || n.cut })
}

// each tells all nodes but one; those that are cut off hear it when they are back.
func (s *sharedStore) each(but *node, f func(broker.ClusterEvents)) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	var now []broker.ClusterEvents
	for _, n := range s.nodes {
		switch e := n.events; {
		case n == but || n.dead || e == nil:
		case n.cut:
			n.missed = append(n.missed, func() { f(e) })
		default:
			now = append(now, e)
		}
	}
	s.mu.Unlock()
	for _, e := range now {
		f(e)
	}
}

// kill ends a node as a crash does; the next one leads if it did.
func (n *node) kill() {
	n.of.mu.Lock()
	n.dead = true
	n.of.mu.Unlock()
	n.leave()
}

// leave is what the others see of a node's end.
func (n *node) leave() {
	s := n.of
	n.endWaits()
	s.each(n, func(e broker.ClusterEvents) { e.Left(n.info) })
	s.mu.Lock()
	led := s.leader == n
	s.mu.Unlock()
	if led {
		s.lead(s.live()[0])
	}
}

// lead makes n the leader.
func (s *sharedStore) lead(n *node) {
	s.mu.Lock()
	s.leader = n
	e := n.events
	s.mu.Unlock()
	s.telling.Lock()
	defer s.telling.Unlock()
	e.Led()
}

// cutOff has a node reach nobody: for the others it is gone.
func (n *node) cutOff() {
	n.of.mu.Lock()
	n.cut = true
	e := n.events
	n.of.mu.Unlock()
	n.leave()
	e.Alone(true)
}

// reconnect has it come back.
func (n *node) reconnect() {
	s := n.of
	s.telling.Lock()
	s.mu.Lock()
	missed := n.missed
	n.missed, n.cut = nil, false
	e := n.events
	s.mu.Unlock()
	for _, f := range missed {
		f()
	}
	e.Alone(false)
	s.telling.Unlock()
	s.each(n, func(e broker.ClusterEvents) { e.Joined(n.info) })
}

// endWaits ends what waits for messages on a node that is gone.
func (n *node) endWaits() {
	n.of.mu.Lock()
	var ws []*wait
	for _, w := range n.waits {
		if w.in {
			ws = append(ws, w)
		}
	}
	n.of.mu.Unlock()
	for _, w := range ws {
		w.end()
	}
}

// out is why the node cannot use the store.
func (n *node) out() error {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	if n.dead || n.cut {
		return broker.ErrClosed
	}
	return nil
}

// State implements broker.Store.
func (n *node) State() broker.State {
	st := n.of.store.State()
	st.Nodes = len(n.of.live())
	st.Err = n.out()
	return st
}

// Bind implements broker.Store: what lapses is told to the leader.
func (n *node) Bind(e broker.Events) {
	n.of.mu.Lock()
	n.lapses = e
	n.of.mu.Unlock()
	n.of.bind.Do(func() { n.of.store.Bind(n.of) })
}

// Lapsed implements broker.Events.
func (s *sharedStore) Lapsed(t broker.Target, why broker.Reason, ds []broker.Delivery) {
	s.leads().Lapsed(t, why, ds)
}

// Dropped implements broker.Events.
func (s *sharedStore) Dropped(t broker.Target, why broker.Reason, count int) {
	s.leads().Dropped(t, why, count)
}

func (s *sharedStore) leads() broker.Events {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader.lapses
}

// Define implements broker.Store.
func (n *node) Define(ctx context.Context, d broker.Def) (broker.Target, error) {
	if err := n.out(); err != nil {
		return 0, err
	}
	n.of.defining.Lock()
	defer n.of.defining.Unlock()
	t, err := n.of.store.Define(ctx, d)
	if err == nil {
		n.of.each(nil, func(e broker.ClusterEvents) { e.Defined(broker.Definition{Target: t, Def: d}) })
	}
	return t, err
}

// Drop implements broker.Store.
func (n *node) Drop(ctx context.Context, t broker.Target) error {
	if err := n.out(); err != nil {
		return err
	}
	n.of.defining.Lock()
	defer n.of.defining.Unlock()
	var gone []broker.Definition
	all, err := n.of.store.Definitions(ctx)
	for _, d := range all {
		if d.Target == t || d.Def.Source == t {
			gone = append(gone, d)
		}
	}
	if err = errors.Join(err, n.of.store.Drop(ctx, t)); err == nil {
		for _, d := range gone {
			n.of.each(nil, func(e broker.ClusterEvents) { e.Gone(d) })
		}
	}
	return err
}

// Submit implements broker.Store.
func (n *node) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	if err := n.out(); err != nil {
		for i := range b.Units {
			b.Units[i].Result.Err = err
		}
		go c.Done(b)
		return
	}
	n.of.store.Submit(b, l, &afterEvents{n, c})
}

// afterEvents is a completion that comes after the events.
type afterEvents struct {
	n *node
	c broker.Completion
}

// Done implements broker.Completion.
func (t *afterEvents) Done(b *broker.Batch) {
	for i := range b.Units {
		if b.Units[i].Result.Err == nil {
			t.n.of.tell(b.OpsOf(i), b.Units[i].Result.Rev)
		}
	}
	if t.n.out() != nil {
		for i := range b.Units {
			b.Units[i].Result = broker.Result{Err: broker.ErrUnknown}
		}
	}
	t.c.Done(b)
}

// tell tells what a unit wrote; rev is the revision of the last.
func (s *sharedStore) tell(ops []broker.Op, rev uint64) {
	puts := slices.DeleteFunc(slices.Clone(ops), func(op broker.Op) bool { return op.Kind != broker.OpPut })
	for i, op := range puts {
		e := broker.Entry{Key: op.Key, Value: slices.Clone(op.Value), Rev: rev - uint64(len(puts)-1-i)}
		if op.Value != nil && e.Value == nil {
			e.Value = []byte{}
		}
		s.each(nil, func(events broker.ClusterEvents) {
			if events.Wants(op.Space, op.Key) {
				events.Recorded(op.Space, e)
			}
		})
	}
}

// Receive implements broker.Store.
func (n *node) Receive(w *broker.Wait) {
	if err := n.out(); err != nil {
		w.Got, w.Err = nil, err
		w.Sink.Deliver(w)
		return
	}
	p := &wait{Wait: *w, n: n, w: w}
	p.Sink, p.Got, p.Priv = p, nil, nil
	n.of.mu.Lock()
	n.waits[w] = p
	n.of.mu.Unlock()
	n.of.store.Receive(&p.Wait)
	n.of.mu.Lock()
	p.in = true
	late := n.waits[w] == p && (n.dead || n.cut)
	n.of.mu.Unlock()
	if late {
		p.end()
	}
}

// Cancel implements broker.Store.
func (n *node) Cancel(w *broker.Wait) bool {
	n.of.mu.Lock()
	p := n.waits[w]
	n.of.mu.Unlock()
	if p == nil || !n.of.store.Cancel(&p.Wait) {
		return false
	}
	p.over()
	return true
}

// wait is a Wait of a node, under way: one of its own, so that it can be ended
// from outside.
type wait struct {
	broker.Wait
	n  *node
	w  *broker.Wait
	in bool // the store has it; guarded by n.of.mu
}

// end ends a wait of a node that is gone.
func (p *wait) end() {
	if p.n.of.store.Cancel(&p.Wait) {
		p.Err = broker.ErrClosed
		p.Deliver(&p.Wait)
	}
}

func (p *wait) over() {
	p.n.of.mu.Lock()
	defer p.n.of.mu.Unlock()
	delete(p.n.waits, p.w)
}

// Deliver implements broker.WaitSink.
func (p *wait) Deliver(*broker.Wait) {
	p.over()
	p.w.Got, p.w.Bounds, p.w.Err = append(p.w.Got[:0], p.Got...), p.Bounds, p.Err
	p.w.Sink.Deliver(p.w)
}

// Read implements broker.Store.
func (n *node) Read(ctx context.Context, t broker.Target, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	if err := n.out(); err != nil {
		return nil, err
	}
	return n.of.store.Read(ctx, t, p, limit, dst)
}

// Get implements broker.Store.
func (n *node) Get(ctx context.Context, s broker.Space, key string) (broker.Entry, error) {
	if err := n.out(); err != nil {
		return broker.Entry{}, err
	}
	return n.of.store.Get(ctx, s, key)
}

// List implements broker.Store.
func (n *node) List(ctx context.Context, s broker.Space, prefix string, f func(broker.Entry) bool) error {
	if err := n.out(); err != nil {
		return err
	}
	return n.of.store.List(ctx, s, prefix, f)
}

// Close implements broker.Store.
func (n *node) Close(context.Context) error { return nil }

// Self implements broker.Cluster.
func (n *node) Self() string { return n.info.Name }

// Nodes implements broker.Cluster.
func (n *node) Nodes() []broker.Node {
	if n.out() != nil {
		return []broker.Node{n.info}
	}
	var all []broker.Node
	for _, o := range n.of.live() {
		i := o.info
		i.Leads = o.Leads()
		all = append(all, i)
	}
	return all
}

// Leads implements broker.Cluster.
func (n *node) Leads() bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	return n.of.leader == n
}

// Follow implements broker.Cluster.
func (n *node) Follow(e broker.ClusterEvents) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.events = e
}

// peer finds another node that both can be reached from, or nil.
func (n *node) peer(name string) *node {
	if n.out() != nil {
		return nil
	}
	for _, o := range n.of.live() {
		if o.info.Name == name {
			return o
		}
	}
	return nil
}

// Ask implements broker.Cluster.
func (n *node) Ask(ctx context.Context, to, kind string, body []byte) ([]byte, error) {
	o := n.peer(to)
	if o == nil {
		return nil, &broker.Error{Kind: broker.Unavailable, Message: "no node " + to}
	}
	o.of.mu.Lock()
	f := o.answers[kind]
	if o.deaf {
		f = nil
	}
	o.of.mu.Unlock()
	type answer struct {
		body []byte
		err  error
	}
	got := make(chan answer, 1)
	if f != nil {
		go func() {
			b, err := f(ctx, n.info.Name, slices.Clone(body))
			got <- answer{b, err}
		}()
	}
	select {
	case a := <-got:
		return a.body, a.err
	case <-ctx.Done():
		return nil, &broker.Error{Kind: broker.Unknown, Message: "no answer", Err: ctx.Err()}
	}
}

// Answer implements broker.Cluster.
func (n *node) Answer(kind string, f func(context.Context, string, []byte) ([]byte, error)) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.answers[kind] = f
}

// Tell implements broker.Cluster.
func (n *node) Tell(to, kind string, body []byte) {
	o := n.peer(to)
	if o == nil {
		return
	}
	body = slices.Clone(body)
	o.of.mu.Lock()
	defer o.of.mu.Unlock()
	o.told = append(o.told, func() {
		o.of.mu.Lock()
		f := o.heeds[kind]
		o.of.mu.Unlock()
		if f != nil && o.out() == nil {
			f(n.info.Name, body)
		}
	})
	if !o.telling {
		o.telling = true
		go o.hear()
	}
}

// hear takes what was told, until there is nothing more.
func (n *node) hear() {
	for {
		n.of.mu.Lock()
		if len(n.told) == 0 {
			n.telling = false
			n.of.mu.Unlock()
			return
		}
		f := n.told[0]
		n.told = n.told[1:]
		n.of.mu.Unlock()
		f()
	}
}

// Heed implements broker.Cluster.
func (n *node) Heed(kind string, f func(string, []byte)) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.heeds[kind] = f
}
