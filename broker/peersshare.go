package broker

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// shares are the shared subscriptions of which a live client of this node or of
// another is a member, MQTT 5 section 4.8.2. The node at which a message is published
// gives it to one of the nodes with members, by the id of the message: to each as often
// as it has members. That one gives it to one of its members that has room, or else
// passes it on to another node, where it stays.
//
// While members come and go, nodes may disagree about them for as long as the news
// travels; a message still goes to one node only. One that has lost its last member
// meanwhile passes the message on too.
type shares struct {
	mu sync.Mutex // protects what follows; nothing is taken under it but the tree's
	by map[string]*share
}

// share is one of them.
type share struct {
	filter  string // with $share/GROUP/
	rest    string // without
	members []*Subscription
	remote  map[*peer]*elsewhere
	seats   atomic.Pointer[seats]
}

// elsewhere are the members at a peer.
type elsewhere struct {
	sub     *Subscription // stands for them in the tree
	members int
}

// seats are the nodes with members, by name.
type seats struct {
	nodes []seat
	all   uint32 // members
}

// seat is a node, and how many members it and those before it have.
type seat struct {
	peer *peer // nil: this node
	to   uint32
}

// get returns the share of a filter. The caller holds mu.
func (ss *shares) get(filter, rest string) *share {
	s := ss.by[filter]
	if s == nil {
		s = &share{filter: filter, rest: rest, remote: make(map[*peer]*elsewhere)}
		s.seats.Store(new(seats)) // a publish may find its first member before that has a seat
		ss.by[filter] = s
	}
	return s
}

// place says anew which nodes have members. The caller holds mu.
func (ss *shares) place(s *share, self string) {
	var at seats
	names := slices.SortedFunc(maps.Keys(s.remote), func(a, b *peer) int { return cmp.Compare(a.node.Name, b.node.Name) })
	add := func(p *peer, members int) {
		at.all += uint32(members)
		at.nodes = append(at.nodes, seat{p, at.all})
	}
	here := len(s.members)
	for _, p := range names {
		if here > 0 && self < p.node.Name {
			add(nil, here)
			here = 0
		}
		add(p, s.remote[p].members)
	}
	if here > 0 {
		add(nil, here)
	}
	s.seats.Store(&at)
	if at.all == 0 {
		delete(ss.by, s.filter)
	}
}

// gives reports whether m is for the members at p, nil = at this node.
func (s *share) gives(m *Message, p *peer) bool {
	at := s.seats.Load()
	if len(at.nodes) < 2 {
		return len(at.nodes) == 1 && at.nodes[0].peer == p
	}
	n := murmur2(string(m.ID[:])) % at.all
	i := slices.IndexFunc(at.nodes, func(x seat) bool { return n < x.to })
	return at.nodes[i].peer == p
}

// shareJoin makes sub, of this node, a member. It is false if it was one.
func (ps *peers) shareJoin(sub *Subscription) bool {
	ss := &ps.shares
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.get(sub.Share, sub.Filter)
	if slices.Contains(s.members, sub) {
		return false
	}
	sub.via = &via{share: s}
	ps.b.tree.Insert(sub.Filter, sub)
	s.members = append(slices.Clip(s.members), sub)
	ss.place(s, ps.self.Name)
	return true
}

// shareLeave is the reverse. It is false if sub was no member.
func (ps *peers) shareLeave(sub *Subscription) bool {
	ss := &ps.shares
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.by[sub.Share]
	if s == nil || !slices.Contains(s.members, sub) {
		return false
	}
	s.members = slices.DeleteFunc(slices.Clone(s.members), func(m *Subscription) bool { return m == sub })
	ss.place(s, ps.self.Name)
	ps.b.tree.Remove(sub.Filter, sub)
	return true
}

// enter notes that p has so many members, and returns what stands for them in the tree.
func (ss *shares) enter(filter, rest string, p *peer, members int) *Subscription {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.get(filter, rest)
	sub := &Subscription{Filter: rest, Share: filter, Sink: p, via: &via{peer: p, share: s}}
	p.ps.b.tree.Insert(rest, sub)
	s.remote[p] = &elsewhere{sub, members}
	ss.place(s, p.ps.self.Name)
	return sub
}

// count notes how many members the peer of sub has now.
func (ss *shares) count(sub *Subscription, members int) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s, p := sub.via.share, sub.via.peer
	s.remote[p].members = members
	ss.place(s, p.ps.self.Name)
}

// leave notes that the peer of sub has none any more.
func (ss *shares) leave(sub *Subscription) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s, p := sub.via.share, sub.via.peer
	delete(s.remote, p)
	ss.place(s, p.ps.self.Name)
	p.ps.b.tree.Remove(s.rest, sub)
}

// here returns the members of this node; none is added or removed in the slice.
func (ss *shares) here(filter string) []*Subscription {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s := ss.by[filter]; s != nil {
		return s.members
	}
	return nil
}

// elsewhere returns another node with members, any, or nil.
func (ss *shares) elsewhere(filter string) *peer {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s := ss.by[filter]; s != nil {
		for p := range s.remote {
			return p
		}
	}
	return nil
}
