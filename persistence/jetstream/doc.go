// Package jetstream is a store over an existing NATS JetStream, through nats.go:
// what is kept is kept by its servers, in as many copies as they are told.
//
// # What is where
//
// A queue is a stream of its own with work-queue retention and one pull
// consumer; a partition of a stream is a stream with limits. Three streams are
// shared: one holds what is delayed and uses JetStream's schedules, one what is
// dead, and one is the log of all sessions: a publish is one message there, which
// says for whom it is, and which the node reads back from the tail, live and when
// it starts alike (sessionlog.go). What of it is waited for is booked in pages, so that
// a start reads only what came after them (sessionbook.go). What a session is done with
// is one key of it (sessionkeep.go). Keys and definitions are key/value buckets, of which
// the node keeps a copy. The number of a target is the revision of its first definition, and
// stands in the names of its streams, so that no name is ever used again.
// names.go has them all. A message is stored as broker.AppendMessage writes it;
// headers are there for what JetStream acts upon.
//
// A subscription on a stream is the node's: JetStream has no consumer for it. The
// node leases in memory, reads through the partitions, and writes to a bucket what
// is settled before it says so, many settlements at once (subscriptionrecord.go).
//
// The consumer of a queue knows no topics and no keys. A message that is received by
// topic the node finds and leases itself (parts.go); of a key that is in flight it
// puts off what JetStream hands out (groups.go).
//
// A message that was handed out to somebody who did not take it is kept for a moment
// for the next that asks (unclaimed.go): JetStream has what it is given back in the
// order in which it comes.
//
// The node knows what it handed out of queues (entry.go) and how much there is: by that it
// counts, keeps the limits, and tells the broker of last attempts. Whose turn it is
// and when a lease ends is JetStream's, whose own lease of a last attempt is
// longer, so that the node is first. What JetStream does not know is written to the
// ledger of each queue when the store closes (ledger.go).
//
// How far each stream goes the node writes down beside them. One that ends earlier lost
// what was acknowledged, and nothing is added to it until somebody has seen that
// (watermark.go, loss.go). Without the bucket of the node nobody knows, and a start is refused.
//
// # One node
//
// One node at a time holds a prefix, by a key that ends when it is not renewed
// (member.go). A second one is refused. A node that was cut off for longer, and
// finds that another was there meanwhile, takes no more work.
//
// # The way of a message
//
// Submit looks up the targets and reserves room, then sends one publish for each
// route, all at once, each with the message's id; the unit is done when all are
// acknowledged. What stays unanswered is sent again with the same id, which
// JetStream tells as a duplicate, and is unknown after 8 s without an answer to it or
// to what was sent before it (call.go); the queue finds out later (doubt.go). Removals of
// a unit leave when all its additions are confirmed.
//
// # What it cannot promise
//
// State says so, and storetest expects it:
//   - Atomic: a unit over several streams is not one commit. A crash between two
//     acknowledgements leaves some of them; the producer got no answer, and its
//     repeat completes the rest.
//   - Ordered: batches are answered in order of Submit for one Completion, not
//     over all.
//   - StaleRefused: a receipt of an older attempt is refused while this process
//     knows the newer one; after a restart JetStream accepts it.
//   - Resolution: leases and delays end within 15 ms of their time, and may be
//     seconds late when a leader changes.
//   - Lag: counts follow within 50 ms.
//
// Also: after a crash (not a close) messages that were leased count as leased
// until JetStream hands them out again, a delivery that was returned to nobody
// may count as an attempt, and what left since is booked as acked. What lands late of
// a node that was given up is counted a second later. In a subscription
// leases and attempts are then those of the newest settlement near them, so that a
// message may come again before its lease ends. What was received by topic is ready
// again at once, and attempts of a queue with FIFO groups are counted anew. What a stream
// holds too much is taken by the node, soon after. A message that waits longer
// than it may goes when its time comes if the node runs, else when it is opened.
//
// A unit that publishes and puts a key of a session writes the key first: with it
// the broker tells a publish of QoS 2 that comes again after a crash, for as long as
// JetStream knows ids (5 minutes). What a session was sent is recorded within a
// second, so that after a crash it may count as ready.
//
// A key is written over the revision that is known, so that a write that was on its
// way when this node was given up undoes nothing that was written since. Where nobody
// wrote the key since it may still land: its outcome was unknown. So may one that makes
// a key which was made and deleted since, a minute ago or longer.
//
// # Goroutines
//
// Those of the connection, which run the ends of calls and deliver messages; one
// that renews the membership; one that writes down how far streams go, and asks them;
// the mover of delayed messages; the tail of the log of
// sessions. For as long as it takes: one for each purge, settlement of an unknown
// message, Defer, Return, repeat of a de-duplicated message, for a full queue that drops its
// oldest, for a read of a stream that finds something, for each answer of a
// subscription or to a receive by topic, for a queue whose topics are looked through, for one that does not know all it has,
// for a record of a session, to sweep and to book the log, and to count what is stored when that is
// asked for. Timers run
// for leases and waits that are there, and for the retention of streams that have
// subscriptions.
//
// # Locks
//
// A turn of Store.defining, then sessionLog.booking or order, then one queue's, subscription's or session's,
// then one stream's, then sessionLog.mu, then Store.mu or those of the calls: sending, mu. lines.mu is
// taken before that of the Lines in it.
// watermarks.mu, keySpace.mu, gate.mu, turns.mu and unit.mu stand alone. No lock is held while a
// Completion, a WaitSink or Events is called.
package jetstream
