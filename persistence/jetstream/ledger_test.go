package jetstream_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// TestADroppedQueueLeavesNoLedger, whichever parts a close wrote.
func TestADroppedQueueLeavesNoLedger(t *testing.T) {
	inBubble(t, func(x *clients) {
		ledgers := func() int {
			kv := keyValue(x.T, x.c, "mr_node")
			keys, err := kv.Keys(x.Context())
			if err != nil && !errors.Is(err, natsjs.ErrNoKeysFound) {
				x.Fatal(err)
			}
			return len(slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, "queue") }))
		}
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			x.Fatal(err)
		}
		if err := x.publish("a", q); err != nil {
			x.Fatal(err)
		}
		x.expect(q, "a")
		x.end()
		if n := ledgers(); n != 2 {
			x.Errorf("%d keys are of the ledger, want it and one part", n)
		}
		x.start()
		x.ack(broker.Delivery{Ref: broker.Ref{Target: q, Seq: 1, Attempt: 1, Epoch: 1}})
		x.end()
		if n := ledgers(); n != 1 {
			x.Errorf("%d keys are of the ledger of an empty queue, want 1", n)
		}
		x.start()
		if err := x.publish("b", q); err != nil {
			x.Fatal(err)
		}
		x.expect(q, "b")
		x.end()
		x.start()
		if err := x.Drop(x.Context(), q); err != nil {
			x.Fatal(err)
		}
		if n := ledgers(); n != 0 {
			x.Errorf("%d keys are of the ledger of a queue that is gone", n)
		}
	})
}

// TestAStoreClosesWhileNATSIsFull: nothing that was answered depends on what a close writes.
func TestAStoreClosesWhileNATSIsFull(t *testing.T) {
	var so *server.Options
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *server.Options) { so = o; o.JetStreamMaxStore = 16 << 20 }})
	x := &clients{T: t, c: c, o: jetstream.Options{URL: c.URL(), Hold: 2 * time.Second}}
	x.start()
	q, err := x.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for size := 512 << 10; size > 0; size /= 2 { // until nothing more goes in
		for err = nil; err == nil; n++ {
			if err = x.publish(string(make([]byte, size)), q); err != nil && !errors.Is(err, broker.ErrFull) {
				t.Fatalf("publish %d answers %v", n, err)
			}
		}
		n--
	}
	if got := take(x.Store, q, 1, time.Hour, time.Minute); len(got) != 1 {
		t.Fatal("nothing comes")
	}
	x.end()
	so.JetStreamMaxStore *= 2
	c.Restart(t, 0)
	x.start()
	in, err := x.Info(t.Context(), q)
	if err != nil || in.Ready+in.Leased != int64(n) {
		t.Errorf("the queue has %+v, %v; want %d messages", in, err, n)
	}
	x.end()
}
