// Package mqtt is the MQTT edge: MQTT 5 and 3.1.1 over TCP in front of a
// broker.Broker. It is the only package that imports mochi, and no type of
// mochi leaves it.
//
// # Who does what
//
// mochi (v2.7.9) decodes and answers CONNECT, decodes SUBSCRIBE and
// UNSUBSCRIBE, and runs the loop of each connection.
// Everything else is ours: the hook takes the decoded packets and hands mochi
// one that does nothing, so none of mochi's topic tree, sessions, in-flight
// table, wills or fan-out is ever reached. Its decoders forget what the rules
// need (reserved bits, repeated properties, trailing bytes) and some panic, so
// every packet is checked from its raw bytes first (packet.go, connect.go). The packets that
// come by the million, PUBLISH and its acks and PINGREQ, are parsed straight
// from the read buffer and never become a mochi packet.
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
// something to write. mochi keeps a third, which sleeps.
//
// # Retained messages
//
// A publish with the retain flag is accepted, routed like any other, and
// delivered live with the flag cleared (set, for a subscription that asked for
// Retain As Published). It is not kept yet: a later subscriber does not get it.
// CONNACK does not say Retain Available 0, because MQTT 5 section 3.2.2.3.5
// would then have us refuse clients for a flag that does no harm.
//
// # Sessions
//
// Every session is clean so far: clean=false and a session expiry are accepted
// as clean, with session present 0, and Session Expiry Interval 0 in CONNACK.
// Ids of inbound QoS 2 publishes live as long as the connection.
//
// # Locks
//
// In this order, never the other way round: Server.mu, session.mu, conn.wmu.
// inbound.mu is taken alone or before conn.wmu. None is held while calling the
// broker.
package mqtt
