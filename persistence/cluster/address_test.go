package cluster_test

import (
	"fmt"
	"testing"

	"millrace/broker"
)

func TestNodesSayWhereTheirClientsReachThem(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	shown := func(all []broker.Node) (text string) {
		for _, n := range all {
			text += fmt.Sprintln(n.Name, n.Version, n.MQTT)
		}
		return text
	}
	const want = "a 1 a.example:1883\nb 1 b.example:1883\n"
	for _, n := range []*node{a, b} {
		if got := shown(n.Nodes()); got != want {
			t.Errorf("%s knows\n%swant\n%s", n.Self(), got, want)
		}
	}
}
