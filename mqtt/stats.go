package mqtt

import "sync/atomic"

// Stats are the counters of a Server since it started, read one by one and
// therefore not of one instant.
type Stats struct {
	Open     int64 // connections now, after their CONNACK
	Waiting  int64 // connections before their CONNECT
	Accepted int64 // sockets ever accepted
	Refused  map[string]int64
	Closed   map[string]int64

	Logins    int64 // clients that were ever let in
	MaxOpen   int64 // most connections that were ever open at once
	In, Out   Flow  // what clients sent, and were sent
	Received  int64 // PUBLISH packets taken; In.Messages
	Delivered int64 // PUBLISH packets written; Out.Messages
	Dropped   map[string]int64
	Limited   int64 // PUBLISH packets over the rate of their identity: made to wait, or refused

	SlowConsumers int64
	Panics        int64
}

// Flow is a number of packets of all kinds, their bytes, and the PUBLISH among
// them with the bytes of their payloads.
type Flow struct{ Packets, Bytes, Messages, Payload int64 }

// dropReason says why a message did not go on.
type dropReason uint8

// The reasons of Stats.Dropped.
const (
	dropDenied   dropReason = iota // publisher may not publish there
	dropReserved                   // publish to a reserved topic
	dropShed                       // QoS 0 for a client whose output is full
	dropBacklog                    // oldest of a full backlog
	dropTooLarge                   // over the client's Maximum Packet Size
	dropExpired                    // expired while it waited
	dropEnded                      // still waiting when its clean session ended
	dropFormat                     // payload is not the UTF-8 it says it is
	dropWill                       // will that could not be published
	dropEvent                      // event that nobody could take down in time
	dropReasons
)

var dropNames = [dropReasons]string{"denied", "reserved", "shed", "backlog", "too_large", "expired", "session_ended", "payload_format", "will", "event"}

// closeReason says why a connection ended, or never began.
type closeReason uint8

// The reasons of Stats.Refused (before CONNACK) and Stats.Closed.
const (
	closeClient    closeReason = iota // the client left
	closeTimeout                      // keep alive, or no CONNECT in time
	closeProtocol                     // a packet that breaks the protocol
	closeAuth                         // wrong credentials or no right
	closeCrowded                      // oldest of too many before CONNECT
	closeAddress                      // too many from one address
	closeTakenOver                    // the client id connected again
	closeSlow                         // its socket took nothing
	closeServer                       // the server is going down
	closeQuota                        // a limit was passed
	closePanic                        // a fault of ours
	closeKicked                       // an operator ended it
	closeTLS                          // its TLS handshake failed
	closeUpgrade                      // its request for WebSocket was refused
	closeProxy                        // no PROXY header where one must come, or from a stranger
	closeIdentity                     // too many of one identity
	closeOverload                     // memory is short
	closeReasons
)

var closeNames = [closeReasons]string{
	"client", "timeout", "protocol", "auth", "crowded", "address", "taken_over", "slow_consumer", "server", "quota", "panic", "kicked",
	"tls", "websocket", "proxy", "identity", "overload",
}

// counters is what Stats is read from.
type counters struct {
	open, waiting, accepted atomic.Int64
	maxOpen, logins         atomic.Int64
	kept                    atomic.Int64 // connections whose session the broker keeps
	limited                 atomic.Int64
	slow, panics            atomic.Int64
	received, sent          traffic         // by type of packet
	anonymous               atomic.Int64    // logins that were let in without credentials
	rejected                atomic.Int64    // CONNECTs that were answered with a refusal
	denied                  atomic.Int64    // publishes that the client had no right to
	acked                   atomic.Int64    // deliveries of QoS 1 and 2 that were completed
	missed                  [4]atomic.Int64 // PUBACK, PUBREC, PUBREL, PUBCOMP with an unknown id

	inUse       atomic.Int64 // QoS 2 publishes under an id that is not released yet
	overQuota   atomic.Int64 // publishes that were refused for the rate of their identity
	overMaximum atomic.Int64 // publishes beyond our Receive Maximum
	own         striped      // deliveries that a publisher did not want back

	badUnsubscribes                               atomic.Int64 // packets
	badSubscribes, deniedSubscribes               atomic.Int64 // filters
	created, resumed, takenOver, discarded, ended atomic.Int64 // sessions
	dropped                                       [dropReasons]atomic.Int64
	refused, closed                               [closeReasons]atomic.Int64
}

// striped is a counter that many connections count on at once, each in its own
// stripe as a rule, so that they do not wait for each other's cache line.
type striped [16]struct {
	n atomic.Int64
	_ [56]byte
}

// count adds one for whoever has that number.
func (s *striped) count(of uint64) { s[of%uint64(len(s))].n.Add(1) }

func (s *striped) load() (sum int64) {
	for i := range s {
		sum += s[i].n.Load()
	}
	return sum
}

func (n *counters) drop(r dropReason) { n.dropped[r].Add(1) }

// opened counts a connection.
func (n *counters) opened() {
	n.logins.Add(1)
	now := n.open.Add(1)
	for most := n.maxOpen.Load(); now > most && !n.maxOpen.CompareAndSwap(most, now); {
		most = n.maxOpen.Load()
	}
}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	n := &s.stats
	st := Stats{
		Open: n.open.Load(), Waiting: n.waiting.Load(), Accepted: n.accepted.Load(),
		MaxOpen: n.maxOpen.Load(), Logins: n.logins.Load(), In: n.received.flow(), Out: n.sent.flow(), Limited: n.limited.Load(),
		SlowConsumers: n.slow.Load(), Panics: n.panics.Load(),
		Dropped: map[string]int64{}, Refused: map[string]int64{}, Closed: map[string]int64{},
	}
	st.Received, st.Delivered = st.In.Messages, st.Out.Messages
	for i, name := range dropNames {
		st.Dropped[name] = n.dropped[i].Load()
	}
	st.Dropped[dropNames[dropWill]] = s.o.Broker.LostWills()
	for i, name := range closeNames {
		st.Refused[name] = n.refused[i].Load()
		st.Closed[name] = n.closed[i].Load()
	}
	return st
}
