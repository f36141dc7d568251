package clustertest

import (
	"context"
	"slices"

	"millrace/broker"
)

// Self implements broker.Cluster.
func (n *View) Self() string { return n.Node.Name }

// Nodes implements broker.Cluster.
func (n *View) Nodes() []broker.Node {
	if n.out() != nil {
		return []broker.Node{n.Node}
	}
	var all []broker.Node
	for _, o := range n.of.live() {
		i := o.Node
		i.Leads = o.Leads()
		all = append(all, i)
	}
	return all
}

// Leads implements broker.Cluster.
func (n *View) Leads() bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	return n.of.leader == n
}

// Current implements broker.Cluster.
func (n *View) Current() (bool, error) {
	if n.out() != nil {
		return false, &broker.Error{Kind: broker.Unavailable, Message: "cut off"}
	}
	n.of.mu.Lock()
	f := n.behind
	n.behind = nil
	n.of.mu.Unlock()
	if f == nil {
		return false, nil
	}
	f()
	return true, nil
}

// Behind has the node be out of date once: it is current after f.
func (n *View) Behind(f func()) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.behind = f
}

// Follow implements broker.Cluster.
func (n *View) Follow(e broker.ClusterEvents) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.events = e
}

// peer finds another node that both can be reached from, or nil.
func (n *View) peer(name string) *View {
	if n.out() != nil {
		return nil
	}
	for _, o := range n.of.live() {
		if o.Node.Name == name {
			return o
		}
	}
	return nil
}

// Ask implements broker.Cluster.
func (n *View) Ask(ctx context.Context, to, kind string, body []byte) ([]byte, error) {
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
			b, err := f(ctx, n.Node.Name, slices.Clone(body))
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
func (n *View) Answer(kind string, f func(context.Context, string, []byte) ([]byte, error)) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.answers[kind] = f
}

// Tell implements broker.Cluster.
func (n *View) Tell(to, kind string, body []byte) {
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
			f(n.Node.Name, body)
		}
	})
	if !o.telling {
		o.telling = true
		go o.hear()
	}
}

// hear takes what was told, until there is nothing more.
func (n *View) hear() {
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
func (n *View) Heed(kind string, f func(string, []byte)) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.heeds[kind] = f
}
