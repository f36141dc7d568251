// Package broker is the core: what Millrace does, in no protocol's words. It
// takes messages, routes them by topic to queues, streams and live
// subscribers, leases them to consumers and settles them. Every protocol calls
// it and nothing below it; it declares the Store it needs and implements none.
//
// # Nouns
//
//   - Message: what a producer sent; immutable once published.
//   - Queue: competing consumers. Each message goes to one of them at a time,
//     until it is acknowledged.
//   - Stream: an append-only partitioned log; reading removes nothing.
//   - Subscription: a live interest in a topic filter; stores nothing.
//   - Session: what is kept for a client that comes and goes: subscriptions, a
//     backlog of references, packet ids, a will. A shared subscription of
//     sessions has a backlog too.
//   - Subscription: a live interest in a topic filter; stores nothing. One on a
//     stream (SubscriptionConfig) is durable: consumers that share its messages.
//   - Source: a queue, or a subscription on a stream: what leases messages.
//   - Delivery: a message leased to one consumer; its receipt settles it.
//   - Target: a queue, stream or backlog as the store knows it.
//
// # States of a queue message
//
//	            publish                          publish with a delay
//	               │                                      │
//	               ▼            the delay is over         ▼
//	┌──────────▶ ready ◀────────────────────────────── delayed
//	│              │                                      ▲
//	│              │ receive: lease, attempt + 1          │
//	│              ▼                                      │
//	├─────────── leased ──────────────────────────────────┘
//	│  lease     │    │                nack with a delay
//	│  lapses,   │    │ last attempt lapses or is nacked
//	│  nack      │    ▼
//	│            │   held ───────▶ moved to the dead-letter topic (gone)
//	│        ack │    │
//	│            ▼    │ no queue or stream took it
//	│          gone   ▼
//	└───────────── dead: parked, until redriven, purged or out of retention
//	     redrive
//
// A ready or delayed message also ends by its time to live, by an overflow
// that drops the oldest, or by a purge. Every way out has a Reason and is
// counted: in = ready + delayed + leased + held + dead + out.
//
// # Goroutines
//
// The broker has five goroutines of its own: deadLetters, which publishes or
// parks what the store tells it has lapsed, delayed, which publishes to
// clients what is due, sessions, which publishes wills, ends sessions when their
// time is over, gives them retained messages that they just missed, and of several
// nodes takes in the sessions of those that are gone, retained,
// which removes retained messages that have expired, and members, which extends
// the leases of consumers that outlive a request. Of several nodes it has two more
// for each other one: one tells it which messages are wanted here, one sends it
// those that it wants; and a connection that ends because its session is another
// node's has one for as long as that takes. Everything else runs on the goroutine of the caller or of
// the store. A new kind needs a line here.
//
// # Locks
//
// Broker.defining is taken before Broker.mu, sessions.mu before Session.mu, and
// Session.mu before the topic tree's and interest.mu; peers.mu before
// interest.mu and theirs.mu, that before shares.mu, and that before the topic
// tree's; nothing else nests. No lock is
// held while calling the Store, a Sink or a callback, but for defining, which
// exists to order calls that define and drop (a queue is made without it, its name reserved), and a turn of sessions, taken before
// Session.mu, which orders the Submits of one session's record, and over a shared
// store is held until their outcome. So events of a Cluster take neither of the two.
package broker
