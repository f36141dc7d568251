package clustertest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"millrace/broker"
)

// Shared is one store that several nodes share, in one process: what a
// broker.Cluster and its events promise, and nothing that they do not.
type Shared struct {
	store broker.Store // the real one
	bind  sync.Once

	telling  sync.Mutex // events come one after the other
	defining sync.Mutex // and in the order of what they tell

	mu     sync.Mutex // protects what follows
	nodes  []*View
	leader *View
	starts uint64
}

// NewShared returns what several nodes share; s is closed by the caller.
func NewShared(s broker.Store) *Shared { return &Shared{store: s} }

// View is one node's view: its Store and its Cluster.
type View struct {
	broker.Store
	of   *Shared
	Node broker.Node

	// Guarded by of.mu.
	events  broker.ClusterEvents
	lapses  broker.Events
	dead    bool
	cut     bool     // reaches nobody
	deaf    bool     // answers nobody
	behind  func()   // brings it up to date; nil where it is
	lags    bool     // hears of nothing yet
	missed  []func() // events while it was cut, or lagged
	answers map[string]func(context.Context, string, []byte) ([]byte, error)
	heeds   map[string]func(string, []byte)
	waits   map[*broker.Wait]*wait
	told    []func()
	telling bool
}

// Join adds a node without a broker. The first one leads.
func (s *Shared) Join(name string) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	n := &View{
		Store: s.store, of: s, Node: broker.Node{Name: name, Start: s.starts},
		answers: map[string]func(context.Context, string, []byte) ([]byte, error){},
		heeds:   map[string]func(string, []byte){}, waits: map[*broker.Wait]*wait{},
	}
	s.nodes = append(s.nodes, n)
	if s.leader == nil {
		s.leader = n
	}
	return n
}

// live are the nodes that are there.
func (s *Shared) live() []*View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *View) bool { return n.dead || n.cut })
}

// tellAll tells all nodes but one; those that are cut off hear it when they are back.
func (s *Shared) tellAll(but *View, f func(broker.ClusterEvents)) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	var now []broker.ClusterEvents
	for _, n := range s.nodes {
		switch e := n.events; {
		case n == but || n.dead || e == nil:
		case n.cut, n.lags:
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

// Kill ends a node as a crash does; the next one leads if it did.
func (n *View) Kill() {
	n.of.mu.Lock()
	n.dead = true
	n.of.mu.Unlock()
	n.leave()
}

// SetDeaf has a node answer nobody, or answer again.
func (n *View) SetDeaf(is bool) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.deaf = is
}

// Arrived tells the others that the broker of a node is there.
func (n *View) Arrived() {
	n.of.tellAll(n, func(e broker.ClusterEvents) { e.Joined(n.Node) })
}

// leave is what the others see of a node's end.
func (n *View) leave() {
	s := n.of
	n.endWaits()
	s.tellAll(n, func(e broker.ClusterEvents) { e.Left(n.Node) })
	s.mu.Lock()
	led := s.leader == n
	s.mu.Unlock()
	if led {
		s.lead(s.live()[0])
	}
}

// lead makes n the leader.
func (s *Shared) lead(n *View) {
	s.mu.Lock()
	s.leader = n
	e := n.events
	s.mu.Unlock()
	s.telling.Lock()
	defer s.telling.Unlock()
	e.Led()
}

// CutOff has a node reach nobody: for the others it is gone.
func (n *View) CutOff() {
	n.of.mu.Lock()
	n.cut = true
	e := n.events
	n.of.mu.Unlock()
	n.leave()
	e.Alone(true)
}

// Lag has a node hear of nothing until CatchUp, as one that has just joined a new
// leader.
func (n *View) Lag() {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.lags = true
}

// CatchUp has it hear of everything since.
func (n *View) CatchUp() {
	n.of.telling.Lock()
	defer n.of.telling.Unlock()
	n.of.mu.Lock()
	missed := n.missed
	n.missed, n.lags = nil, false
	n.of.mu.Unlock()
	for _, f := range missed {
		f()
	}
}

// Reconnect has it come back.
func (n *View) Reconnect() {
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
	s.tellAll(n, func(e broker.ClusterEvents) { e.Joined(n.Node) })
}

// endWaits ends what waits for messages on a node that is gone.
func (n *View) endWaits() {
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
func (n *View) out() error {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	if n.dead || n.cut {
		return broker.ErrClosed
	}
	return nil
}

// State implements broker.Store.
func (n *View) State() broker.State {
	st := n.of.store.State()
	st.Nodes = len(n.of.live())
	st.Err = n.out()
	return st
}

// Bind implements broker.Store: what lapses is told to the leader.
func (n *View) Bind(e broker.Events) {
	n.of.mu.Lock()
	n.lapses = e
	n.of.mu.Unlock()
	n.of.bind.Do(func() { n.of.store.Bind(n.of) })
}

// Lapsed implements broker.Events.
func (s *Shared) Lapsed(t broker.Target, why broker.Reason, ds []broker.Delivery) {
	s.leads().Lapsed(t, why, ds)
}

// Dropped implements broker.Events.
func (s *Shared) Dropped(t broker.Target, why broker.Reason, count int) {
	s.leads().Dropped(t, why, count)
}

func (s *Shared) leads() broker.Events {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader.lapses
}

// Define implements broker.Store.
func (n *View) Define(ctx context.Context, d broker.Def) (broker.Target, error) {
	if err := n.out(); err != nil {
		return 0, err
	}
	n.of.defining.Lock()
	defer n.of.defining.Unlock()
	t, err := n.of.store.Define(ctx, d)
	if err == nil {
		n.of.tellAll(nil, func(e broker.ClusterEvents) { e.Defined(broker.Definition{Target: t, Def: d}) })
	}
	return t, err
}

// Drop implements broker.Store.
func (n *View) Drop(ctx context.Context, t broker.Target) error {
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
			n.of.tellAll(nil, func(e broker.ClusterEvents) { e.Gone(d) })
		}
	}
	return err
}

// Submit implements broker.Store.
func (n *View) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
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
	n *View
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
func (s *Shared) tell(ops []broker.Op, rev uint64) {
	puts := slices.DeleteFunc(slices.Clone(ops), func(op broker.Op) bool { return op.Kind != broker.OpPut })
	for i, op := range puts {
		e := broker.Entry{Key: op.Key, Value: slices.Clone(op.Value), Rev: rev - uint64(len(puts)-1-i)}
		if op.Value != nil && e.Value == nil {
			e.Value = []byte{}
		}
		s.tellAll(nil, func(events broker.ClusterEvents) {
			if events.Wants(op.Space, op.Key) {
				events.Recorded(op.Space, e)
			}
		})
	}
}

// Receive implements broker.Store.
func (n *View) Receive(w *broker.Wait) {
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
func (n *View) Cancel(w *broker.Wait) bool {
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
	n  *View
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
func (n *View) Read(ctx context.Context, t broker.Target, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	if err := n.out(); err != nil {
		return nil, err
	}
	return n.of.store.Read(ctx, t, p, limit, dst)
}

// Get implements broker.Store.
func (n *View) Get(ctx context.Context, s broker.Space, key string) (broker.Entry, error) {
	if err := n.out(); err != nil {
		return broker.Entry{}, err
	}
	return n.of.store.Get(ctx, s, key)
}

// List implements broker.Store.
func (n *View) List(ctx context.Context, s broker.Space, prefix string, f func(broker.Entry) bool) error {
	if err := n.out(); err != nil {
		return err
	}
	return n.of.store.List(ctx, s, prefix, f)
}

// Close implements broker.Store.
func (n *View) Close(context.Context) error { return nil }
