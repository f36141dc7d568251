package broker

import "slices"

// tellFigures is the kind of what nodes tell each other about themselves.
const tellFigures = "figures"

// Self is the name of this node, "" where there is no Cluster.
func (b *Broker) Self() string {
	if b.cluster == nil {
		return ""
	}
	return b.cluster.Self()
}

// Nodes are those that share the store, by name, this one among them: it alone
// while it reaches no other. There are none where there is no Cluster.
func (b *Broker) Nodes() []Node {
	if b.peers == nil {
		return nil
	}
	all := []Node{b.peers.self}
	if !b.sessions.isAlone() {
		for _, p := range b.peers.list() {
			all = append(all, p.node)
		}
	}
	slices.SortFunc(all, compareNodes)
	return all
}

// OnNodes has changed called whenever Nodes has changed, and figures with what
// another node tells about itself by TellNodes. They must not block, and are never
// called where there is no Cluster.
func (b *Broker) OnNodes(changed func(), figures func(node string, body []byte)) {
	if b.peers == nil {
		return
	}
	b.peers.changed.Store(&changed)
	b.cluster.Heed(tellFigures, figures)
}

// TellNodes tells all other nodes something about this one, at most once.
func (b *Broker) TellNodes(figures []byte) {
	for _, n := range b.Nodes() {
		if n.Name != b.Self() {
			b.cluster.Tell(n.Name, tellFigures, figures)
		}
	}
}

// nodesChanged has whoever asked for it look at the nodes again.
func (b *Broker) nodesChanged() {
	if f := b.peers.changed.Load(); f != nil {
		(*f)()
	}
}
