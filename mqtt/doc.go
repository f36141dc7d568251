// Package mqtt is the MQTT edge: MQTT 5, 3.1.1 and 3.1 over TCP, TLS, WebSocket
// and Unix sockets in front of a broker.Broker. It is the only package that
// imports mochi, and no type of mochi leaves it.
//
// # Who does what
//
// The codec of mochi (v2.7.9) decodes SUBSCRIBE and UNSUBSCRIBE. Everything else
// is ours: the topic tree is the broker's, and CONNECT, sessions, packet ids,
// windows, fan-out and wills are in this package. mochi's own lose messages, and
// half of what a connect cost was spent in its server.
//
// Its decoders forget what the rules need (reserved bits, repeated properties,
// trailing bytes) and one of them panics, so that every packet is checked from
// its raw bytes first (connect.go, packet.go). The packets that come by the
// million, PUBLISH and its acks and PINGREQ, are parsed straight from the read
// buffer.
//
// # One connection
//
// A goroutine reads. It frames packets in a buffer of 64 KiB that is borrowed
// only while there is something in it, hands each PUBLISH to the connection's
// broker.Producer, and calls Flush before it would wait for the socket: what
// one read brought is one batch, and shares one fsync. Outcomes come back in
// order, and become PUBACK and PUBREC in the order of arrival, many in one
// write. Writing never blocks the writer: bytes are appended to a bounded
// queue, which a second goroutine empties. It exists only while there is
// something to write.
//
// # Transports
//
// conn.Conn is the socket, whatever lies over it (transport.go): who closes a
// connection, or moves its deadlines, need not know. TLS reads through lower,
// which never waits once the handshake is over: it answers errAgain, TLS keeps
// what it has of a record, and the reader waits for the socket as for a plain
// one, without a buffer. Writing through lower tells a slow consumer from a
// slow link. Frames of WebSocket are taken apart where they lie in the read
// buffer (websocket.go), and put before what is written; there is no buffer
// and no goroutine for them. An HTTP server gives its connections to WebSocket
// (upgrade.go). Handshakes run on a goroutine of their own, whose stack grows
// and goes.
//
// # Counters, $SYS and $events
//
// Each connection gathers what it reads and writes, and adds it to the counters
// (stats.go) once a batch. sys.go tells them below $SYS, and sysnodes.go those of all
// nodes; metrics reads Stats.
// events.go puts what happens to clients in line, and one goroutine publishes
// it, so that nobody waits. rivals.go slows down clients that fight for one id.
//
// # Retained messages
//
// A publish with the retain flag is routed like any other, delivered live with
// the flag cleared (set, for a subscription that asked for Retain As
// Published), and kept by the broker in the commit of its publish. A new
// subscription gets what is kept after its SUBACK: a cursor of the session over
// the broker's retained messages (retained.go) goes on whenever window and
// output have room, so that neither the number of matches nor a slow client
// costs memory. Live messages are not held up by it. What was set after the
// subscription comes live only.
//
// # Shared subscriptions
//
// A group (share.go) chooses a member for each message, and keeps those that no
// member has room for; a member that makes room asks for them. The messages that
// it holds stand in its window with the group's mark, and go back when it leaves.
//
// # Queues and streams
//
// A subscription to $queue/NAME or $q/NAME is a broker.Consumer with the
// session as its sink (consumer.go); one to $stream/NAME is the same over a
// subscription of the broker on that stream, which is named after the client or
// its group, and is its cursor (source.go). The store calls it with leased messages as
// long as there is credit: min(window, 100) for all of the connection.
// They stand in the same window as live messages, and a PUBACK of one is
// gathered with the others of its read buffer into one commit. What may not be
// done inside the store's call, and what time brings, one goroutine does for
// all (keeper.go): it gives surplus back, and extends leases every 20 s.
//
// # Sessions
//
// A session here is a connection's: window, output, what is on its way. What
// outlives the connection is the broker's (broker.Session): subscriptions, the
// backlog, packet ids of QoS 2, the will. A clean session without a will has
// nothing there. inbox.go takes from the backlog what the window has room for; the
// packet id of such a message follows from its place there (keptID), so that
// nothing has to be recorded when it is sent. On resuming, PUBREL comes first,
// then what was sent before, read page by page, then what waits.
//
// A connection ends in this order (conn.leave): what it published and settled is
// handed over, the session closed, everything before it answered by the store,
// and only then the broker's session is free for the next connection, which
// waits for that. What was taken of queues waits for the client in grace.go.
//
// A shared subscription with a durable member has a backlog of its own, from
// which the group takes (source.go).
//
// # Goroutines
//
// Of the server: one for each listener, review (rights and bans, woken by a
// change, once a second at most), keeper (leases), events ($events), and tell
// ($SYS, unless it is off). Of a connection: the reader, and drain while there
// is something to write; a handshake of TLS has one of its own until it is made.
//
// # Locks
//
// In this order, never the other way round: Server.mu, group.mu, session.mu,
// conn.wmu. inbound.mu is taken alone or before conn.wmu. None is held while
// calling the broker, but for questions about rights, which only read.
package mqtt
