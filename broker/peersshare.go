package broker

import (
	"slices"
	"sync"
	"sync/atomic"
)

// shares are the shared subscriptions of which a live client of this node or of
// another is a member, MQTT 5 section 4.8.2. One node takes all messages of a
// group: that with the highest hash of group and name among those with members,
// so that all nodes agree without asking. It gives each to one of its members that
// has room, or else passes it on to another node, where it stays.
//
// While members come and go on several nodes, nodes may disagree for as long as
// the news travels; a message still goes to one node only. One that has lost its
// last member meanwhile passes the message on too.
type shares struct {
	mu sync.Mutex // protects what follows; nothing is taken under it but the tree's
	by map[string]*share
}

// share is one of them.
type share struct {
	filter  string // with $share/GROUP/
	rest    string // without
	members []*Subscription
	remote  map[*peer]*Subscription
	owner   atomic.Pointer[peer] // that takes the messages; nil = this node
}

// get returns the share of a filter. The caller holds mu.
func (ss *shares) get(filter, rest string) *share {
	s := ss.by[filter]
	if s == nil {
		s = &share{filter: filter, rest: rest, remote: make(map[*peer]*Subscription)}
		ss.by[filter] = s
	}
	return s
}

// elect finds who takes the messages. The caller holds mu.
func (ss *shares) elect(s *share, self string) {
	var best *peer
	most, name := uint32(0), ""
	if len(s.members) > 0 {
		most, name = weight(s.filter, self), self
	}
	for p := range s.remote {
		n := p.node.Name
		if w := weight(s.filter, n); name == "" || w > most || w == most && n > name {
			best, most, name = p, w, n
		}
	}
	s.owner.Store(best)
	if name == "" {
		delete(ss.by, s.filter)
	}
}

// weight is what a node counts for a group.
func weight(filter, node string) uint32 { return murmur2(node + "\x00" + filter) }

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
	ss.elect(s, ps.self.Name)
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
	ss.elect(s, ps.self.Name)
	ps.b.tree.Remove(sub.Filter, sub)
	return true
}

// enter notes that p has members, and returns what stands for them in the tree.
func (ss *shares) enter(filter, rest string, p *peer) *Subscription {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.get(filter, rest)
	sub := &Subscription{Filter: rest, Share: filter, Sink: p, via: &via{peer: p, share: s}}
	p.ps.b.tree.Insert(rest, sub)
	s.remote[p] = sub
	ss.elect(s, p.ps.self.Name)
	return sub
}

// leave notes that the peer of sub has none any more.
func (ss *shares) leave(sub *Subscription) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s, p := sub.via.share, sub.via.peer
	delete(s.remote, p)
	ss.elect(s, p.ps.self.Name)
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
