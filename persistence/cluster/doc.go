// Package cluster makes one store of several nodes, over a NATS JetStream: one of
// them leads and works on it (package jetstream), the others ask it. So a queue,
// a stream or a session is on every node what it is on one: order, leases,
// attempts and limits are exact, whichever node a client is connected to.
//
// # Who leads
//
// The node that holds the prefix of the store leads. It renews that hold, and
// sends nothing more once it could not for a while (jetstream.Options.Shared);
// another node takes the prefix over when the hold was not renewed for a whole
// Hold, and its holder did not answer for as long. A leader that stops lets go at
// once. A leader that was given up must start again: its process ends.
//
// # What nodes send each other
//
// All of it goes over core NATS, at most once, on lanes that keep their order
// (wire.go). An operation of the store says which one its node sent before, and the
// leader takes none whose predecessor it has not: so operations are done in the
// order of their node, or not at all. What was not taken waits for a leader for
// forLeader, and for longer while one is about to lead (patience). What was taken, and
// has no answer when the leader is another one, is
// done again if that does no harm, else its outcome is unknown (ErrUnknown); nothing
// that the same source sent behind it is done then, until it knows (Batch.Source).
// A receive waits on, whoever leads, and what was sent for it and did not come is back
// when its lease ends. A session's lease does not end: its receive is told that
// something may be missing, and the broker reads what that is (Wait.Certain).
//
// A node has the answer to its join once all others know of it: whoever leads next
// waits for it with changes. One that stops says so to who asks it, for a moment after
// it has left as well (linger), and a leader passes on what it did not do any more.
//
// # What all nodes know
//
// The leader tells every node, itself included, of each change of a definition or
// of a key that nodes want to know, in the order of its commits; who made the
// change has the answer when all of them know (await). A node that was not heard of
// for a Hold is not waited for any more: it could do nothing in the store since,
// and learns what it missed by comparing all there is with what it was told
// (catchUp), before it counts as one of the cluster again.
//
// # What a node may say
//
// A node that was given up does not know what others were told since, and must not
// acknowledge, or deny, by what it knew: Current. It is certain to be one of the cluster
// at each beat that the leader answers, and while it sees that nobody has taken the
// prefix from a leader that can write nothing any more (stays), so that nodes which
// elect stay what they are. Without a sign for fenceAt of a Hold it is not current; that
// is before anybody gives it up. It counts as alone after a whole Hold. Back in the
// cluster, it is current again once it has caught up.
//
// A leader is given up for what was seen of it: while this node has no connection
// nothing counts, and where the servers were away the leader stays who it is.
//
// # Goroutines
//
// Two that look after the node: beats and the search for a leader; what takes too long,
// and whether it is alone.
// For as long as it takes: one for each request of a node that may take its time,
// and one that catches up. Everything else runs on those of the connection.
//
// # Locks
//
// lead.changing, then Store.calling; then Store.mu or lead.mu, which are held for
// no call but that of the wire. The broker's ClusterEvents are called under
// Store.calling, and at the leader under lead.changing.
package cluster
