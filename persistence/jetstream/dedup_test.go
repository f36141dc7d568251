package jetstream_test

import (
	"testing"
	"time"

	"millrace/broker"
)

// TestARepeatGoesNowhereThatTheFirstDidNot, whichever partition is chosen for it, and
// though JetStream has forgotten the id of the first, as its servers have when they start
// again and the message has left.
func TestARepeatGoesNowhereThatTheFirstDidNot(t *testing.T) {
	inBubble(t, func(x *clients) {
		s, err := x.Define(x.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 2})
		if err != nil {
			x.Fatal(err)
		}
		q := x.queue("q")
		if err := x.publish("other", s); err != nil {
			x.Fatal(err)
		}
		var first broker.Result
		for i := range 3 {
			m := x.message("m")
			m.DedupKey, m.BodyHash = "k", 1
			r := commit(x.Store, func(b *broker.Batch) {
				b.Publish(m, broker.Route{Target: s, Partition: uint32(i % 2)}, broker.Route{Target: q})
			})
			if r.Err != nil || r.Duplicate != (i > 0) {
				x.Fatalf("publish %d: %+v", i, r)
			}
			if i == 0 {
				first = r
				x.ack(x.expect(q, "m")...)
				time.Sleep(time.Second)
				x.restore("mr_q_2", 0) // nothing is known there any more
				x.again()
			} else if r.ID != first.ID || r.Seq != first.Seq {
				x.Errorf("publish %d is answered with %v at %d, the first was %v at %d", i, r.ID, r.Seq, first.ID, first.Seq)
			}
		}
		x.expect(q)
		if n := x.held("mr_s_1_0") + x.held("mr_s_1_1"); n != 2 {
			x.Errorf("the partitions hold %d messages", n)
		}
		counts(x.T, x.Store, q, 0, 0)
	})
}
