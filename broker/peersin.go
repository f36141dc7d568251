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
		var met matches
		met, h.found, h.routes, h.subs = ps.b.match(nil, &h.m, nearby, h.found, h.routes[:0], h.subs)
		add(&ps.b.stats.own, met.own)
	}
	for _, g := range h.groups {
		members := ps.shares.here(g)
		if h.subs = append(h.subs, members...); len(members) == 0 {
			ps.passOn(g, flags)
		}
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

// passOn gives a message for a group that has no member here to another node
// with members.
func (ps *peers) passOn(group string, flags byte) {
	to := ps.shares.elsewhere(group)
	if to == nil || flags&livePassed != 0 {
		ps.stats.unclaimed.Add(1)
		return
	}
	to.via.peer.give(&ps.heard.m, livePassed, []string{group})
}
