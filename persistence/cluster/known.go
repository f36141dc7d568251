package cluster

import (
	"context"
	"reflect"
	"strings"

	"millrace/broker"
)

// spaces are all of them.
var spaces = []broker.Space{
	broker.SpaceSystem, broker.SpaceAuth, broker.SpaceSessions, broker.SpaceRetained, broker.SpaceCursors, broker.SpaceSchemas,
}

func compareNames(a, b string) int { return strings.Compare(a, b) }

// known is what this node was told, so that it can be told what it missed. One that
// leads misses nothing, and needs none.
type known struct {
	keys  map[broker.Space]map[string]uint64 // revisions
	defs  map[broker.Target]broker.Definition
	nodes map[string]broker.Node
}

// note keeps what was told.
func (k *known) note(e *event) {
	switch e.kind {
	case recorded:
		if e.entry.Value == nil {
			delete(k.keys[e.space], e.entry.Key)
		} else {
			k.set(e.space, &e.entry)
		}
	case defined:
		k.defs[e.def.Target] = e.def
	case dropped:
		delete(k.defs, e.def.Target)
	case joined:
		k.nodes[e.node.Name] = e.node
	case left:
		delete(k.nodes, e.node.Name)
	}
}

func (k *known) set(space broker.Space, e *broker.Entry) {
	if k.keys[space] == nil {
		k.keys[space] = map[string]uint64{}
	}
	k.keys[space][e.Key] = e.Rev
}

// older reports whether e was overtaken by what is known.
func (k *known) older(e *event) bool {
	return e.kind == recorded && e.entry.Value != nil && e.entry.Rev < k.keys[e.space][e.entry.Key]
}

// Follow implements broker.Cluster.
func (s *Store) Follow(e broker.ClusterEvents) {
	for s.ctx.Err() == nil {
		if l := s.lead.Load(); l != nil {
			l.changing.Lock()
			s.followed.Store(&followed{ClusterEvents: e})
			l.changing.Unlock()
			return
		}
		h := &followed{ClusterEvents: e, known: &known{
			keys: map[broker.Space]map[string]uint64{}, defs: map[broker.Target]broker.Definition{}, nodes: map[string]broker.Node{},
		}}
		s.mu.Lock()
		to := s.to
		s.ready = false // changes wait
		s.mu.Unlock()
		err := h.fill(s)
		s.mu.Lock()
		same := s.to == to && to != nil
		if same {
			s.followed.Store(h)
			s.ready = true
		}
		s.mu.Unlock()
		if same {
			s.report(err)
			s.drain()
			return
		}
	}
}

// report fails a node that cannot know what there is.
func (s *Store) report(err error) {
	if err != nil && s.ctx.Err() == nil {
		s.fail(err)
	}
}

// fill reads what there is.
func (h *followed) fill(s *Store) error {
	ds, err := s.Definitions(s.ctx)
	if err != nil {
		return err
	}
	for _, d := range ds {
		h.known.defs[d.Target] = d
	}
	for _, n := range s.Nodes() {
		h.known.nodes[n.Name] = n
	}
	for _, space := range spaces {
		err := s.List(s.ctx, space, "", func(e broker.Entry) bool {
			if h.Wants(space, e.Key) {
				h.known.set(space, &e)
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// catchUp tells the broker what changed while this node had no leader.
func (s *Store) catchUp(ctx context.Context) error {
	h := s.followed.Load()
	if h == nil {
		return nil
	}
	ds, err := s.Definitions(ctx)
	if err != nil {
		return err
	}
	var es []event
	// missed adds what f finds; a node that leads by now has missed nothing.
	missed := func(f func() []event) {
		s.calling.Lock()
		defer s.calling.Unlock()
		if h.known != nil {
			es = append(es, f()...)
		}
	}
	missed(func() []event { return h.nodesSince(s.Nodes()) })
	missed(func() []event { return h.definedSince(ds) })
	for _, space := range spaces {
		var all []broker.Entry
		err := s.List(ctx, space, "", func(e broker.Entry) bool {
			if h.Wants(space, e.Key) {
				all = append(all, e)
			}
			return true
		})
		if err != nil {
			return err
		}
		missed(func() []event { return h.recordedSince(space, all) })
	}
	for i := range es {
		s.hear(&es[i])
	}
	return nil
}

func (h *followed) nodesSince(now []broker.Node) (es []event) {
	is := map[string]broker.Node{}
	for _, n := range now {
		is[n.Name] = n
	}
	for name, n := range h.known.nodes {
		if is[name].Start != n.Start {
			es = append(es, event{kind: left, node: n})
		}
	}
	for name, n := range is {
		if h.known.nodes[name].Start != n.Start {
			es = append(es, event{kind: joined, node: n})
		}
	}
	return es
}

func (h *followed) definedSince(now []broker.Definition) (es []event) {
	is := map[broker.Target]bool{}
	for _, d := range now {
		is[d.Target] = true
		if have, ok := h.known.defs[d.Target]; !ok || !reflect.DeepEqual(have, d) {
			es = append(es, event{kind: defined, def: d})
		}
	}
	var gone []event
	for t, d := range h.known.defs {
		if !is[t] {
			gone = append(gone, event{kind: dropped, def: d})
		}
	}
	return append(gone, es...)
}

func (h *followed) recordedSince(space broker.Space, now []broker.Entry) (es []event) {
	is := map[string]bool{}
	for _, e := range now {
		is[e.Key] = true
		if rev, ok := h.known.keys[space][e.Key]; !ok || rev != e.Rev {
			es = append(es, event{kind: recorded, space: space, entry: e})
		}
	}
	for key, rev := range h.known.keys[space] {
		if !is[key] { // its deletion is newer than what is known, and older than all that comes
			es = append(es, event{kind: recorded, space: space, entry: broker.Entry{Key: key, Rev: rev + 1}})
		}
	}
	return es
}
