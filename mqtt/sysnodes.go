package mqtt

import (
	"strings"
	"sync"

	"millrace/broker"
	"millrace/broker/fields"
)

// sysNodes is what $SYS/brokers is made of: the names of the nodes that share a
// store, as EMQX has them there, and below it what each node tells of itself below
// $SYS/broker. Each tells the others all of that in every round, so that one that
// missed it knows with the next.
type sysNodes struct {
	self string        // "" where there is no Cluster
	news chan struct{} // something waits, or there are other nodes

	mu      sync.Mutex
	waiting map[string][]byte // figures that nodes told since, by name
}

// ownFigures is where those are that a node tells the others.
const ownFigures = "broker/"

// nodeTopic is where a figure of a node stands below $SYS.
func nodeTopic(node, figure string) string {
	return "brokers/" + escapeLevel.Replace(node) + "/" + figure
}

// meetNodes begins to hear of the other nodes.
func (t *sys) meetNodes() {
	b, n := t.s.o.Broker, &t.nodes
	n.self, n.news, n.waiting = b.Self(), make(chan struct{}, 1), map[string][]byte{}
	wake := func() {
		select {
		case n.news <- struct{}{}:
		default:
		}
	}
	b.OnNodes(wake, func(node string, body []byte) {
		n.mu.Lock()
		n.waiting[node] = body
		n.mu.Unlock()
		wake()
	})
}

// hearNodes shows what is new of the other nodes. One that was not shown before
// has just started, and is told our figures.
func (t *sys) hearNodes() {
	t.nodes.mu.Lock()
	waiting := t.nodes.waiting
	t.nodes.waiting = map[string][]byte{}
	t.nodes.mu.Unlock()
	fresh := false
	for _, n := range t.showNodes() {
		if body, ok := waiting[n.Name]; ok && n.Name != t.nodes.self {
			fresh = fresh || t.told[nodeTopic(n.Name, "version")] == ""
			r := fields.Reader{Rest: body}
			for len(r.Rest) > 0 {
				if name, value := r.Text(), r.Text(); !r.Bad {
					t.show(nodeTopic(n.Name, name), value)
				}
			}
		}
	}
	if fresh {
		t.tellNodes()
	}
	t.to.Flush()
}

// showNodes tells which nodes there are, takes away what was told of others, and
// returns them.
func (t *sys) showNodes() []broker.Node {
	nodes := t.s.o.Broker.Nodes()
	var names []string
	here := map[string]bool{}
	for _, n := range nodes {
		names = append(names, n.Name)
		here[nodeTopic(n.Name, "")] = true
	}
	t.show("brokers", strings.Join(names, ","))
	for topic := range t.told {
		if rest, ok := strings.CutPrefix(topic, "brokers/"); ok {
			node, _, _ := strings.Cut(rest, "/")
			if !here["brokers/"+node+"/"] {
				t.show(topic, "")
			}
		}
	}
	return nodes
}

// tellNodes tells the other nodes the figures of this one.
func (t *sys) tellNodes() {
	if t.nodes.self == "" {
		return
	}
	t.showNodes()
	var body []byte
	for topic, value := range t.told {
		if name, own := strings.CutPrefix(topic, ownFigures); own {
			body = fields.AppendText(fields.AppendText(body, name), value)
		}
	}
	t.s.o.Broker.TellNodes(body)
}
