package broker

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"millrace/broker/fields"
)

// kindLive is what nodes tell each other about: live messages, in frames.
const kindLive = "live"

// A frame begins with frameFormat, the start of the sender, the link, the number
// of its first message on that link and how many it has. Each message is flags,
// the groups that it is for, and itself with its length in four bytes.
const (
	frameFormat = 1
	frameHead   = 1 + 8 + 8 + 8 + 4
	frameBytes  = 64 << 10 // that a frame has at most, unless one message is larger
	frameSpares = 8        // kept for the next messages
)

// Flags of a message in a frame.
const (
	livePlain  = 1 << iota // for subscriptions that are not shared
	livePassed             // on, by a node that had no member of the group
)

// frame is a number of messages on their way to a peer.
type frame struct {
	buf   []byte
	count uint32
}

// outbox is what waits to be sent to a peer: nothing, as a rule. What comes while
// a frame is being sent gathers in the next; nothing ever waits for more to come.
type outbox struct {
	limit int

	mu     sync.Mutex // protects what follows
	frames []*frame   // the last is open
	bytes  int        // in them and in the one that is being sent
	number uint64     // of messages that were taken
	spare  []*frame
	ended  bool

	news chan struct{}
}

func (o *outbox) init(limit int) { o.limit, o.news = limit, make(chan struct{}, 1) }

// Deliver implements Sink: m goes to the peer once. It never blocks: when too
// much waits, m is let go, as for any live subscriber that is too slow.
func (p *peer) Deliver(m *Message, to []*Subscription) {
	var room [4]string
	groups, flags := room[:0], byte(0)
	for _, s := range to {
		if s.via.share != nil {
			groups = append(groups, s.via.share.filter)
		} else {
			flags |= livePlain
		}
	}
	p.give(m, flags, groups)
}

func (p *peer) give(m *Message, flags byte, groups []string) {
	if p.out.add(m, flags, groups) {
		p.ps.stats.sent.Add(1)
	} else {
		p.ps.stats.shed.Add(1)
	}
}

// add appends m to the open frame. It is false when there is no room.
func (o *outbox) add(m *Message, flags byte, groups []string) bool {
	size := SizeBound(m)
	need := 1 + sizeUint(uint64(len(groups))) + 4 + size
	for _, g := range groups {
		need += sizeString(g)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.bytes > 0 && o.bytes+need > o.limit {
		return false
	}
	f := o.open(need)
	before := len(f.buf)
	b := fields.AppendUints(append(f.buf, flags), uint64(len(groups)))
	for _, g := range groups {
		b = fields.AppendText(b, g)
	}
	at := len(b)
	b = AppendMessage(append(b, 0, 0, 0, 0), m)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	f.buf = b
	f.count++
	o.number++
	o.bytes += len(b) - before
	signal(o.news)
	return true
}

// open returns a frame with room for need bytes more. The caller holds mu.
func (o *outbox) open(need int) *frame {
	if n := len(o.frames); n > 0 && len(o.frames[n-1].buf)+need <= frameBytes {
		return o.frames[n-1]
	}
	var f *frame
	if n := len(o.spare); n > 0 && frameHead+need <= frameBytes {
		f, o.spare = o.spare[n-1], o.spare[:n-1]
	} else {
		f = &frame{buf: make([]byte, 0, max(frameHead+need, frameBytes))}
	}
	f.buf = f.buf[:frameHead]
	f.count = 0
	o.frames = append(o.frames, f)
	o.bytes += frameHead
	return f
}

// take closes the oldest frame and hands it out; nil when there is none.
func (o *outbox) take(start, link uint64) *frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.frames) == 0 {
		return nil
	}
	f, later := o.frames[0], uint64(0)
	for _, x := range o.frames {
		later += uint64(x.count)
	}
	o.frames = append(o.frames[:0], o.frames[1:]...)
	h := f.buf
	h[0] = frameFormat
	binary.LittleEndian.PutUint64(h[1:], start)
	binary.LittleEndian.PutUint64(h[9:], link)
	binary.LittleEndian.PutUint64(h[17:], o.number-later+1)
	binary.LittleEndian.PutUint32(h[25:], f.count)
	return f
}

// sent takes a frame back.
func (o *outbox) sent(f *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes -= len(f.buf)
	if len(o.spare) < frameSpares && cap(f.buf) == frameBytes {
		o.spare = append(o.spare, f)
	}
}

// send sends what waits, until p is gone and nothing waits any more.
func (p *peer) send() {
	for gone := false; !gone; {
		select {
		case <-p.gone:
			gone = true
			p.out.mu.Lock()
			p.out.ended = true
			p.out.mu.Unlock()
		case <-p.out.news:
		}
		for f := p.out.take(p.ps.self.Start, p.link); f != nil; f = p.out.take(p.ps.self.Start, p.link) {
			p.ps.cluster.Tell(p.node.Name, kindLive, f.buf)
			p.ps.stats.frames.Add(1)
			p.out.sent(f)
		}
	}
}

// nodeCounters count live messages between this node and the others: of what one
// has sent, the other has received or lost each.
type nodeCounters struct {
	sent, frames, received, shed, lost, unclaimed, repairs, led atomic.Uint64
}

// NodeStats are the counters of live messages between nodes, since the start.
// What one node has sent to another, that one has received or lost.
type NodeStats struct {
	Sent      uint64 // messages, once for each node
	Frames    uint64 // that they were sent in
	Shed      uint64 // not sent, because too much waited for a node
	Received  uint64
	Lost      uint64 // that others have sent and that did not come
	Unclaimed uint64 // received for groups that have no member any more
	Repairs   uint64 // copies of another node's interest that had to be asked for
	Led       uint64 // times that this node took the lead from another
}

func (n *nodeCounters) read() NodeStats {
	return NodeStats{
		Sent: n.sent.Load(), Frames: n.frames.Load(), Shed: n.shed.Load(), Received: n.received.Load(),
		Lost: n.lost.Load(), Unclaimed: n.unclaimed.Load(), Repairs: n.repairs.Load(), Led: n.led.Load(),
	}
}
