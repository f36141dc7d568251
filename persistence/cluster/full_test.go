package cluster_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"millrace/broker"
	"millrace/persistence/cluster"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// fill opens two nodes, the first of which leads, and has them store so much that the
// servers take nothing more. It returns the queue and how many messages are in it.
func fill(t *testing.T) (a, b *node, c *jetstreamtest.Cluster, q broker.Target, n int) {
	t.Helper()
	c = jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *server.Options) { o.JetStreamMaxStore = 16 << 20 }})
	a, b = startNode(t, c, "a", brief), startNode(t, c, "b", brief)
	q = b.queue(t, "q")
	for size := 512 << 10; size > 0; size /= 2 {
		for {
			err := b.send(q, fmt.Sprintf("%c%*d", rune('0'+n), size, n))
			if errors.Is(err, broker.ErrFull) {
				break
			}
			if n++; err != nil || n > 200 {
				t.Fatalf("publish %d answers %v", n, err)
			}
		}
	}
	return a, b, c, q, n
}

// settle acknowledges what a wait got.
func (n *node) settle(tb testing.TB, w *broker.Wait) {
	tb.Helper()
	if w.Err != nil || len(w.Got) == 0 {
		tb.Fatalf("%s got %d messages, %v", n.Self(), len(w.Got), w.Err)
	}
	b, d := new(broker.Batch), make(done, 1)
	for i := range w.Got {
		b.Settle(w.Got[i].Ref, broker.ReasonAcked)
		b.End()
	}
	n.Submit(b, broker.Durable, d)
	for i, u := range (<-d).Units {
		if u.Result.Err != nil {
			tb.Fatalf("acknowledgement %d at %s answers %v", i, n.Self(), u.Result.Err)
		}
	}
}

// TestAClusterGoesOnWhileNATSIsFull: messages are handed out and acknowledged on every
// node, for longer than a leader is waited for that says nothing, and that makes room
// for others.
func TestAClusterGoesOnWhileNATSIsFull(t *testing.T) {
	a, b, _, q, _ := fill(t)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * brief)
	for over := false; !over; {
		select {
		case <-tick.C:
			if err := b.send(q, "x"); !errors.Is(err, broker.ErrFull) {
				t.Fatalf("while the servers are full a publish answers %v", err)
			}
			if st := a.State(); st.Err != nil {
				t.Fatalf("the leader's state is %+v", st)
			}
		case err := <-a.failed:
			t.Fatal(err)
		case <-end:
			over = true
		}
	}
	if _, err := b.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, MaxMessages: 1000}); !errors.Is(err, broker.ErrFull) {
		t.Errorf("a change of the queue answers %v", err)
	}
	for _, at := range []*node{b, a} {
		at.settle(t, <-at.receive(q, time.Minute))
	}
	eventually(t, "publishes are taken again", func() bool { return b.send(q, "y") == nil })
	if _, err := b.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, MaxMessages: 1000}); err != nil {
		t.Errorf("a change of the queue answers %v", err)
	}
}

// TestAPurgeMakesRoomWhileNATSIsFull, so that queues can be deleted.
func TestAPurgeMakesRoomWhileNATSIsFull(t *testing.T) {
	_, b, _, q, n := fill(t)
	if err := b.Drop(t.Context(), q); !errors.Is(err, broker.ErrFull) {
		t.Errorf("a drop answers %v", err)
	}
	batch, d := new(broker.Batch), make(done, 1)
	batch.Purge(q, true)
	batch.End()
	b.Submit(batch, broker.Durable, d)
	if r := (<-d).Units[0].Result; r.Err != nil || r.Count != n {
		t.Errorf("the purge answers %+v, want %d", r, n)
	}
	if err := b.Drop(t.Context(), q); err != nil {
		t.Errorf("then a drop answers %v", err)
	}
}

// TestAStartWhileNATSIsFullSaysWhatToDo, where no node leads that it could follow.
func TestAStartWhileNATSIsFullSaysWhatToDo(t *testing.T) {
	a, b, c, _, _ := fill(t)
	for _, n := range []*node{b, a} {
		if err := n.Close(t.Context()); err != nil {
			t.Logf("%s closes with %v", n.Self(), err)
		}
	}
	s, err := cluster.Open(t.Context(), cluster.Options{Store: jetstream.Options{URL: c.URL(), Replicas: 1, Hold: brief, Node: "c"}})
	if err == nil {
		_ = s.Close(t.Context())
	}
	if !errors.Is(err, broker.ErrFull) || !strings.Contains(err.Error(), "the nats servers are full") || !strings.Contains(err.Error(), "max_file_store") {
		t.Errorf("a start ends with %v", err)
	}
}
