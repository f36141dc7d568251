package broker

import (
	"slices"

	"millrace/broker/fields"
)

// numbers tell what is missing of what a peer sends.
type numbers struct{ link, next uint64 }

// missing takes the number of the first message of a frame with count of them,
// and returns how many have not come before it.
func (n *numbers) missing(link, first uint64, count uint32) (lost uint64) {
	if link != n.link {
		n.link, n.next = link, 1
	}
	if first > n.next {
		lost = first - n.next
	}
	n.next = first + uint64(count)
	return lost
}

// hearing is what Heed works with; it is called for one frame after the other.
type hearing struct {
	m      Message // over the bytes of the frame
	groups []string
	found  []destination
	routes []Route
	subs   []*Subscription
}

// receive gives the messages of a frame to the live subscribers of this node.
func (ps *peers) receive(from string, body []byte) {
	r := fields.Reader{Rest: body}
	format, start, link, first := r.Byte(), r.Fixed64(), r.Fixed64(), r.Fixed64()
	count := r.Fixed32()
	if r.Bad || format != frameFormat {
		ps.b.log.Warn().Str("node", from).Uint8("format", format).Msg("frame of live messages cannot be read; run the same version on all nodes")
		return
	}
	p := ps.known(from, start)
	if p == nil {
		return // the first frame after it is known tells what was lost
	}
	ps.stats.lost.Add(p.in.missing(link, first, count))
	got := uint32(0)
	for ; got < count && ps.receiveOne(&r); got++ {
	}
	ps.stats.received.Add(uint64(got))
	ps.stats.lost.Add(uint64(count - got))
	ps.heard.m = Message{}
}

// receiveOne takes the next message of a frame. It is false when it cannot be read.
func (ps *peers) receiveOne(r *fields.Reader) bool {
	h := &ps.heard
	flags := r.Byte()
	h.groups = h.groups[:0]
	for range r.Count(1) {
		h.groups = append(h.groups, r.Shared())
	}
	body := r.Take(int(r.Fixed32()))
	if r.Bad || DecodeMessage(body, &h.m) != nil {
		return false
	}
	h.subs = h.subs[:0]
	if flags&livePlain != 0 {
		_, h.found, h.routes, h.subs = ps.b.match(nil, &h.m, nearby, h.found, h.routes[:0], h.subs)
	}
	for _, g := range h.groups {
		h.subs = ps.members(h.subs, g, flags)
	}
	if len(h.subs) > 0 {
		// The frame is not kept for the sake of one of its messages.
		m := new(Message)
		_ = DecodeMessage(slices.Clone(body), m) // it was read above
		ps.b.fanOut(m, h.subs)
	}
	clear(h.subs)
	return true
}

// members appends the members of a group to whom the message goes. If there are
// none any more, it goes to another node that has some.
func (ps *peers) members(subs []*Subscription, group string, flags byte) []*Subscription {
	here := ps.shares.here(group)
	switch {
	case len(here) == 0 && (flags&livePassed != 0 || !ps.passOn(group, &ps.heard.m)):
		ps.stats.unclaimed.Add(1)
	case flags&livePassed == 0:
		subs = append(subs, here...)
	default:
		for _, s := range here {
			subs = append(subs, &Subscription{
				Filter: s.Filter, Share: s.Share, Principal: s.Principal, Sink: s.Sink, Member: s.Member, asked: s.asked,
				via: &via{share: s.via.share, passed: true},
			})
		}
	}
	return subs
}

// passOn gives a message of a group to another node with members, if there is one.
func (ps *peers) passOn(group string, m *Message) bool {
	p := ps.shares.elsewhere(group)
	if p == nil {
		return false
	}
	p.give(m, livePassed, []string{group})
	return true
}

// PassOn gives a live message of a shared subscription, whose whole filter is
// given, to another node with members: no member here has room for it, or none is
// left. It is false if there is no such node. One that was passed on before
// (Passed) stays where it is.
func (b *Broker) PassOn(share string, m *Message) bool {
	return b.peers != nil && b.peers.passOn(share, m)
}

// Passed reports whether a message that came by s was passed on by another node:
// for the time of Deliver.
func (s *Subscription) Passed() bool { return s.via != nil && s.via.passed }
