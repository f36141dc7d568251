package mqtt

import "sync/atomic"

// packetTypes is how many there can be, section 2.1.2.
const packetTypes = 16

// tally is what one direction of a connection has counted and not booked yet:
// plain numbers, so that a packet costs no more than it must. It is booked when
// the connection would wait for its socket.
type tally struct {
	packets  [packetTypes]uint32
	messages [3]uint32 // PUBLISH, by QoS
	bytes    uint64
	payload  uint64 // of PUBLISH
	asked    uint32 // questions whether the client may publish or subscribe
}

// count notes a packet by its first byte and its length.
func (t *tally) count(head byte, n int) {
	kind := head >> 4
	t.packets[kind]++
	t.bytes += uint64(n)
	if kind == typePublish {
		t.messages[min(head>>1&3, 2)]++
	}
}

// book adds t to the sums, and begins anew.
func (t *tally) book(all *traffic, own *share) {
	if t.bytes == 0 {
		return
	}
	n := int64(0)
	for kind, k := range t.packets {
		if k > 0 {
			all.packets[kind].Add(int64(k))
			n += int64(k)
		}
	}
	for qos, k := range t.messages {
		if k > 0 {
			all.messages[qos].Add(int64(k))
			own.messages[qos].Add(int64(k))
		}
	}
	all.bytes.Add(int64(t.bytes))
	all.payload.Add(int64(t.payload))
	if t.asked > 0 {
		all.asked.Add(int64(t.asked))
	}
	own.bytes.Add(int64(t.bytes))
	own.packets.Add(n)
	*t = tally{}
}

// traffic is one direction of all connections since the start.
type traffic struct {
	packets  [packetTypes]atomic.Int64
	messages [3]atomic.Int64
	bytes    atomic.Int64
	payload  atomic.Int64
	asked    atomic.Int64
}

// flow sums up the kinds of packets.
func (t *traffic) flow() (f Flow) {
	for kind := range t.packets {
		f.Packets += t.packets[kind].Load()
	}
	for qos := range t.messages {
		f.Messages += t.messages[qos].Load()
	}
	f.Bytes, f.Payload = t.bytes.Load(), t.payload.Load()
	return f
}

// share is one direction of one connection.
type share struct {
	packets, bytes atomic.Int64
	messages       [3]atomic.Int64
}

// losses are the messages of one client that did not go on.
type losses struct{ full, expired, tooLarge, shed, refused atomic.Int64 }

// drop counts a message that did not go on to the client.
func (c *conn) drop(r dropReason) {
	c.srv.stats.drop(r)
	switch r {
	case dropBacklog:
		c.lost.full.Add(1)
	case dropExpired:
		c.lost.expired.Add(1)
	case dropTooLarge:
		c.lost.tooLarge.Add(1)
	case dropShed:
		c.lost.shed.Add(1)
	default:
		c.lost.refused.Add(1) // of its own publishes
	}
}

// countNames are the names of packets in Counters.
var countNames = [packetTypes]string{
	typeConnect: "connect", typeConnack: "connack", typePublish: "publish", typePuback: "puback", typePubrec: "pubrec",
	typePubrel: "pubrel", typePubcomp: "pubcomp", typeSubscribe: "subscribe", typeSuback: "suback",
	typeUnsubscribe: "unsubscribe", typeUnsuback: "unsuback", typePingreq: "pingreq", typePingresp: "pingresp",
	typeDisconnect: "disconnect", typeAuth: "auth",
}

type counted struct {
	name string
	n    int64
}

// Counters yields every counter by name, as "mqtt.publish.received.qos1": packets
// and bytes by direction, and what Stats has besides. A packet is counted once
// the buffer that it came in is worked off, or once it is handed to the socket.
func (s *Server) Counters(yield func(name string, n int64) bool) {
	n := &s.stats
	closed, authFailed := int64(0), n.refused[closeAuth].Load()
	for i := range n.closed {
		closed += n.closed[i].Load()
	}
	// What was asked is booked with its packet, a refusal when it is told.
	refused := n.denied.Load() + n.deniedSubscribes.Load()
	asked := max(n.received.asked.Load(), refused)
	all := []counted{
		{"access.asked", asked},
		{"access.allowed", asked - refused},
		{"access.denied", refused},
		{"clients.connected", n.logins.Load()},
		{"clients.disconnected", closed},
		{"connack.error", n.rejected.Load()},
		{"connack.auth_error", authFailed},
		{"login.accepted", n.logins.Load()},
		{"login.anonymous", n.anonymous.Load()},
		{"login.refused", authFailed},
		{"refused.publish", n.denied.Load()},
		{"acked", n.acked.Load()},
		{"subscribe.error", n.badSubscribes.Load()},
		{"subscribe.auth_error", n.deniedSubscribes.Load()},
		{"unsubscribe.error", n.badUnsubscribes.Load()},
		{"publish.in_use", n.inUse.Load()},
		{"publish.quota", n.overQuota.Load()},
		{"publish.receive_maximum", n.overMaximum.Load()},
		{"unwanted.own", n.own.load()},
		{"puback.missed", n.missed[0].Load()},
		{"pubrec.missed", n.missed[1].Load()},
		{"pubrel.missed", n.missed[2].Load()},
		{"pubcomp.missed", n.missed[3].Load()},
		{"sessions.created", n.created.Load()},
		{"sessions.resumed", n.resumed.Load()},
		{"sessions.taken_over", n.takenOver.Load()},
		{"sessions.discarded", n.discarded.Load()},
		{"sessions.ended", n.ended.Load()},
	}
	for i, name := range dropNames {
		all = append(all, counted{"dropped." + name, n.dropped[i].Load()})
	}
	for _, c := range all {
		if !yield("mqtt."+c.name, c.n) {
			return
		}
	}
	_ = n.received.yield("received", yield) && n.sent.yield("sent", yield)
}

// yield yields the counters of one direction.
func (t *traffic) yield(direction string, yield func(name string, n int64) bool) bool {
	total := int64(0)
	for kind, name := range countNames {
		if name == "" {
			continue
		}
		n := t.packets[kind].Load()
		if total += n; !yield("mqtt."+name+"."+direction, n) {
			return false
		}
	}
	for qos, suffix := range [...]string{".qos0", ".qos1", ".qos2"} {
		if !yield("mqtt.publish."+direction+suffix, t.messages[qos].Load()) {
			return false
		}
	}
	return yield("mqtt.packets."+direction, total) && yield("mqtt.bytes."+direction, t.bytes.Load())
}
