package cluster_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
)

// TestAQueueThatLostMessagesTakesNoneAtAnyNode, and all say what it lost.
func TestAQueueThatLostMessagesTakesNoneAtAnyNode(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	q := b.queue(t, "q")
	if err := b.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("mr_q_%d", q)
	have, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), have.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	if err := b.send(q, "in the place of another"); !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("it ends in %v", err)
	}
	for who, n := range map[string]*node{"a": a, "b": b} {
		if err := n.send(q, "more"); !errors.Is(err, broker.ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("at node %s it ends in %v", who, err)
		}
		eventually(t, "it says what is lost", func() bool { return len(n.State().Lost) == 1 && n.State().Lost[0].Place == name })
	}
}
