package broker

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// replica is the ClusterEvents of a Broker: it hears what changes in a store that
// several nodes share, and has the broker go by it. There, what is in memory of
// definitions and keys follows these events alone, also what this node writes
// itself: so all nodes see one order of changes.
type replica struct {
	b *Broker

	mu    sync.Mutex // protects what follows
	ready bool       // the store was read
	early []func()   // what was told before that
}

// do goes by an event, or keeps it until the store was read.
func (r *replica) do(f func()) {
	r.mu.Lock()
	if !r.ready {
		r.early = append(r.early, f)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	f()
}

// begin goes by what was told while the store was read, and from now on by
// everything at once. What was read may be newer than the first of it, and is as
// the last of it says in the end.
func (r *replica) begin() {
	for {
		r.mu.Lock()
		early := r.early
		r.early = nil
		r.ready = len(early) == 0
		r.mu.Unlock()
		if len(early) == 0 {
			return
		}
		for _, f := range early {
			f()
		}
	}
}

// Wants implements ClusterEvents.
func (r *replica) Wants(s Space, key string) bool {
	switch s {
	case SpaceAuth, SpaceRetained:
		return true
	case SpaceSystem:
		return strings.HasPrefix(key, watchPrefix)
	case SpaceSessions:
		_, kind, _ := splitSessionKey(key)
		return kind == 0 || kind == keySubscription || kind == keyWill
	default:
		return false
	}
}

// Defined implements ClusterEvents.
func (r *replica) Defined(d Definition) {
	r.do(func() { r.failed(d, r.b.bind(d)) })
}

// Gone implements ClusterEvents.
func (r *replica) Gone(d Definition) {
	r.do(func() { r.b.unbind(d) })
}

// failed logs a definition that this node cannot go by.
func (r *replica) failed(d Definition, err error) {
	if err != nil {
		r.b.log.Error().Str("name", d.Def.Name).Err(err).Msg("definition of another node is not understood, and is not there on this one")
	}
}

// Recorded implements ClusterEvents.
func (r *replica) Recorded(s Space, e Entry) {
	r.do(func() {
		if err := r.record(s, e); err != nil {
			r.b.log.Error().Str("key", e.Key).Err(err).Msg("what another node recorded is not understood, and does not hold on this one")
		}
	})
}

func (r *replica) record(s Space, e Entry) error {
	switch s {
	case SpaceAuth:
		return r.b.auth.Apply(e.Key, e.Value, e.Rev)
	case SpaceRetained:
		r.b.retained.follow(e)
	case SpaceSystem:
		if topic, ok := strings.CutPrefix(e.Key, watchPrefix); ok {
			return r.b.watches.follow(topic, e.Value)
		}
	case SpaceSessions:
		return r.b.sessions.follow(e)
	default:
	}
	return nil
}

// Joined implements ClusterEvents.
func (r *replica) Joined(n Node) {
	r.b.peers.join(n)
	r.b.nodesChanged()
}

// Left implements ClusterEvents.
func (r *replica) Left(n Node) {
	r.b.peers.leave(n)
	r.b.nodesChanged()
	r.do(func() { r.b.sessions.bury(holder{n.Name, n.Start}) })
}

// Led implements ClusterEvents.
func (r *replica) Led() {
	r.b.peers.stats.led.Add(1)
	r.do(func() {
		r.b.retained.sweep.look()
		r.b.sessions.bury(holder{})
		r.b.sessions.lead()
	})
}

// Alone implements ClusterEvents.
func (r *replica) Alone(is bool) {
	r.do(func() {
		r.b.sessions.setAlone(is)
		r.b.nodesChanged()
	})
}

// leads reports whether what is done once for all nodes is this one's to do.
func (b *Broker) leads() bool { return b.cluster == nil || b.cluster.Leads() }

// known returns what get finds. What this node does not find it may only not have
// heard of: nil says that it is nowhere.
func known[T any](b *Broker, get func() *T) (*T, error) {
	x := get()
	if x != nil || b.cluster == nil {
		return x, nil
	}
	if _, err := b.cluster.Current(); err != nil {
		return nil, err
	}
	return get(), nil
}

// followAuth puts in force what was changed between the reading of the accounts,
// which is older than the broker, and the first event.
func (b *Broker) followAuth(ctx context.Context) error {
	if b.cluster == nil {
		return nil
	}
	var bad error
	err := b.store.List(ctx, SpaceAuth, "", func(e Entry) bool {
		bad = b.auth.Apply(e.Key, e.Value, e.Rev)
		return bad == nil
	})
	return errors.Join(err, bad)
}
