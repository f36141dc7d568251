package broker

import "context"

// Cluster is what nodes that share one Store are to each other. Each node has a
// Broker of its own; the store has one content, and one node leads: what is done
// once for all nodes (wills of the dead, sessions that end, what expires) is done
// there. All methods may be called from any goroutine.
type Cluster interface {
	// Self is the name of this node.
	Self() string
	// Nodes are those that are there, this one among them, by name.
	Nodes() []Node
	// Leads reports whether this node leads now. Two never do.
	Leads() bool
	// Current returns once this node knows all that any node has answered until now, so
	// that what it says of itself holds: nobody acknowledges, or denies, by what was
	// before. It waits while that is not so, and waited says that it did: what was read
	// before may have been out of date. A node that reaches no other, or for some seconds
	// none that leads, is Unavailable.
	Current() (waited bool, err error)
	// Follow has e told of what others do, from now on. It is called once, before
	// the Store is read: what changes meanwhile may be seen both there and by e.
	Follow(e ClusterEvents)
	// Ask has node answer a request, which it takes by Answer, and waits. An *Error
	// that it answers with comes back as one. A node that is not there is
	// Unavailable, and nothing was done; one that does not answer in time is Unknown.
	Ask(ctx context.Context, node, kind string, body []byte) ([]byte, error)
	// Answer has f answer requests of a kind, each on a goroutine of its own.
	Answer(kind string, f func(ctx context.Context, from string, body []byte) ([]byte, error))
	// Tell sends to a node without an answer, at most once. What one node tells
	// another of one kind comes in order. It does not block, and does not keep body,
	// which may be of 8 MiB.
	Tell(node, kind string, body []byte)
	// Heed has f called with what others tell of a kind, one after the other. It
	// must not block. body is f's.
	Heed(kind string, f func(from string, body []byte))
}

// Node is one of a Cluster.
type Node struct {
	Name    string // its name
	Start   uint64 // a number that no other start of a node had
	Version string // of the program
	MQTT    string // host:port at which clients reach it; "" = it does not say
	Leads   bool
}

// ClusterEvents hears what happens on other nodes, and what of it is this node's
// to do. Calls come one after the other. Those about the store come on every
// node, the one that wrote included, in the order of its commits and before the
// writer has its answer; and the writer has that only when every node has
// returned from them. So an answer means that no node goes by what was before. After
// a change of leaders some may be told again, and of several changes of one thing
// the last alone. They must not wait for a write, nor for a lock that anybody holds
// while waiting for one: the write may be waiting for them, on this node or another.
type ClusterEvents interface {
	// Wants reports whether this node has to know of changes to a key; it is the
	// same on all nodes.
	Wants(s Space, key string) bool
	// Defined: d was defined or altered.
	Defined(d Definition)
	// Gone: d was dropped.
	Gone(d Definition)
	// Recorded: e is the newest entry of its key; a nil Value says it was deleted, and
	// Rev is newer then than all before.
	Recorded(s Space, e Entry)
	// Joined and Left: a node came or went. It is not there any more when it can do
	// nothing more in the store, and it is told before another node leads.
	Joined(n Node)
	Left(n Node)
	// Led: this node leads from now on.
	Led()
	// Alone: this node has reached no other for so long that it counts as gone there
	// (true), or is back (false), and has been told what it missed.
	Alone(is bool)
}
