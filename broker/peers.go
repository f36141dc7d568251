package broker

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// peers are the other nodes of a Cluster, as far as live messages go. Each node
// tells the others which filters its clients subscribe to (interest), and a
// publish whose match has filters of another node goes there once (outbox). There
// it meets the live subscribers of that node and nothing else: queues, streams,
// backlogs and what is retained are in the store, which is one for all.
type peers struct {
	b        *Broker
	cluster  Cluster
	self     Node
	interest interest
	shares   shares
	stats    nodeCounters
	heard    hearing
	links    atomic.Uint64          // peers ever made
	changed  atomic.Pointer[func()] // who wants to know when peers come and go; see OnNodes

	mu     sync.Mutex // protects what follows; taken before interest.mu
	by     map[string]*peer
	closed bool

	running sync.WaitGroup
}

// peer is one of them.
type peer struct {
	ps   *peers
	node Node
	link uint64          // a number that no other peer of this start of ours had
	gone <-chan struct{} // closed by end
	end  context.CancelFunc

	// all and zero stand in the topic tree for filters of the peer: zero for those
	// of which it wants only what is given out in QoS 0, since the rest comes by
	// the store. The peer is their sink.
	all, zero *Subscription

	out    outbox
	theirs theirs
	in     numbers // of Heed alone

	acked  uint64        // the version of our interest that it has; under interest.mu
	warned time.Time     // when it was last said that it is late; under interest.mu
	news   chan struct{} // our interest has changed
}

// via is where a live subscription of a Cluster is, if it is not simply one of
// this node.
type via struct {
	peer  *peer  // nil: this node
	zero  bool   // only what is in QoS 0
	share *share // the shared subscription that it is a member of
	// passed: by another node, on to this one.
	passed bool
}

// takes reports whether a message that the filter matched goes by v.
func (v *via) takes(m *Message, w who) bool {
	switch {
	case w == nearby: // it has come from another node, which named the groups
		return false
	case v.share == nil:
		return !v.zero || m.QoS == 0
	case !v.share.gives(m, v.peer):
		return false
	default:
		return v.peer == nil || m.QoS == 0 || v.peer.ps.b.groupNamed(v.share.filter) == nil
	}
}

// joinTimeout is how long a node that starts waits for the others to tell their
// interest. One that does not is left behind: it is about to be expelled.
const joinTimeout = 2 * time.Second

// openPeers meets the nodes that are there.
func openPeers(b *Broker, c Cluster) *peers {
	ps := &peers{b: b, cluster: c, by: make(map[string]*peer)}
	ps.interest.init(ps)
	ps.shares.by = make(map[string]*share)
	for _, n := range c.Nodes() {
		if n.Name == c.Self() {
			ps.self = n
		}
	}
	c.Answer(kindInterest, ps.hearInterest)
	c.Heed(kindDigest, ps.hearDigest)
	c.Heed(kindLive, ps.receive)
	return ps
}

// meet joins those that are there, and waits until they have told what they want.
func (ps *peers) meet(ctx context.Context) {
	for _, n := range ps.cluster.Nodes() {
		ps.join(n) //nolint:contextcheck // it goes on until the node leaves
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	for _, p := range ps.list() {
		if !p.theirs.await(ctx) {
			ps.b.log.Warn().Str("node", p.node.Name).Msg("node has not told which messages it wants; live messages for it are lost until it does")
		}
	}
}

// join begins to tell n what is wanted here, unless that goes on already.
func (ps *peers) join(n Node) *peer {
	if n.Name == ps.self.Name {
		return nil
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	old := ps.by[n.Name]
	if ps.closed || old != nil && old.node.Start == n.Start {
		return old
	}
	if old != nil {
		ps.part(old)
	}
	ctx, end := context.WithCancel(context.Background())
	p := &peer{ps: ps, node: n, link: ps.links.Add(1), gone: ctx.Done(), end: end, news: make(chan struct{}, 1)}
	p.all = &Subscription{Sink: p, via: &via{peer: p}}
	p.zero = &Subscription{Sink: p, via: &via{peer: p, zero: true}}
	p.out.init(ps.b.opts.NodeBuffer)
	p.theirs.init(p)
	ps.by[n.Name] = p
	ps.interest.enter(p)
	ps.running.Go(func() { p.tellInterest(ctx) })
	ps.running.Go(p.send)
	return p
}

// leave forgets n and what it wanted.
func (ps *peers) leave(n Node) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.by[n.Name]; p != nil && p.node.Start == n.Start {
		ps.part(p)
	}
}

// part takes p out. The caller holds mu.
func (ps *peers) part(p *peer) {
	delete(ps.by, p.node.Name)
	p.end()
	ps.interest.leave(p)
	p.theirs.end()
}

// known returns the peer that speaks, or nil when this node has not been told
// yet that it is there, or knows that it is not any more.
func (ps *peers) known(name string, start uint64) *peer {
	ps.mu.Lock()
	p := ps.by[name]
	ps.mu.Unlock()
	if p != nil && p.node.Start == start {
		return p
	}
	nodes := ps.cluster.Nodes()
	if i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name && n.Start == start }); i >= 0 {
		return ps.join(nodes[i])
	}
	return nil
}

// list returns the peers by name.
func (ps *peers) list() []*peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	all := make([]*peer, 0, len(ps.by))
	for _, p := range ps.by {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int { return compareNodes(a.node, b.node) })
	return all
}

func compareNodes(a, b Node) int { return strings.Compare(a.Name, b.Name) }

// close parts from all, after what waits for them was sent.
func (ps *peers) close() {
	ps.mu.Lock()
	ps.closed = true
	for _, p := range ps.by {
		ps.part(p)
	}
	ps.mu.Unlock()
	ps.running.Wait()
}

// subscribe adds s to the tree, and returns when the others know of it.
func (ps *peers) subscribe(s *Subscription) {
	w, known := wishOf(s.whole(), false)
	added := false
	if known && s.Share != "" {
		added = ps.shareJoin(s)
	} else {
		added = ps.b.tree.Insert(s.Filter, s)
	}
	ps.b.joined.Add(1)
	ps.await(ps.want(w, known && added))
}

// unsubscribe is the reverse, and waits for nobody.
func (ps *peers) unsubscribe(s *Subscription) {
	w, known := wishOf(s.whole(), false)
	removed := false
	if known && s.Share != "" {
		removed = ps.shareLeave(s)
	} else {
		removed = ps.b.tree.Remove(s.Filter, s)
	}
	ps.unwant(w, known && removed)
}

// whole is the filter with the group.
func (s *Subscription) whole() string { return cmp.Or(s.Share, s.Filter) }

// want counts one subscription more with a wish, if it is one, and returns the
// version of our interest that has it.
func (ps *peers) want(w wish, is bool) uint64 {
	if !is {
		return 0
	}
	return ps.interest.add(w)
}

// unwant counts one less.
func (ps *peers) unwant(w wish, is bool) {
	if is {
		ps.interest.drop(w)
	}
}

// await returns when all peers have a version of our interest; see interest.await.
func (ps *peers) await(version uint64) {
	if ps != nil && version > 0 {
		ps.interest.await(version)
	}
}

// Advance tells other nodes of subscriptions that are about to be made, and waits
// as Subscribe does, so that many at once wait once. subs yields their filters,
// with $share/GROUP/, and whether QoS 1 and 2 come by a session's backlog. release
// is to be called when they have been made.
func (b *Broker) Advance(subs iter.Seq2[string, bool]) (release func()) {
	if b.peers == nil {
		return func() {}
	}
	var ws []wish
	version := uint64(0)
	for filter, stored := range subs {
		if b.CheckFilter(filter) != nil {
			continue
		}
		if w, is := wishOf(filter, stored); is {
			ws, version = append(ws, w), max(version, b.peers.interest.add(w))
		}
	}
	b.peers.await(version)
	return func() {
		for _, w := range ws {
			b.peers.interest.drop(w)
		}
	}
}
