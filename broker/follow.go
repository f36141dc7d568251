package broker

// follower is this node's ear for what happens on others.
type follower struct{ b *Broker }

// Wants implements ClusterEvents.
func (follower) Wants(Space, string) bool { return false }

// Defined implements ClusterEvents.
func (follower) Defined(Definition) {}

// Gone implements ClusterEvents.
func (follower) Gone(Definition) {}

// Recorded implements ClusterEvents.
func (follower) Recorded(Space, Entry) {}

// Joined implements ClusterEvents.
func (f follower) Joined(n Node) { f.b.peers.join(n) }

// Left implements ClusterEvents.
func (f follower) Left(n Node) { f.b.peers.leave(n) }

// Led implements ClusterEvents.
func (follower) Led() {}

// Alone implements ClusterEvents.
func (follower) Alone(bool) {}
