package storetest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"millrace/broker"
)

var queueTests = []test{
	{"messages are delivered in the order in which they were published", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c")
		h.same(h.receive(q, 2, time.Minute), "a", "b")
		h.same(h.receive(q, 2, time.Minute), "c")
		h.expect(q)
		h.counts(q, "ready 0 delayed 0 leased 3 held 0 dead 0")
	}},
	{"a delivery carries the whole message", func(h *harness) {
		q := h.queue(broker.Def{})
		m := h.message("x")
		m.ContentType, m.ResponseTopic, m.Correlation = "text/plain", "re/x", []byte{1, 0, 2}
		m.Properties = []broker.Property{{Name: "a", Value: "1"}, {Name: "a", Value: ""}}
		m.UTF8, m.QoS, m.Retain, m.Publisher, m.Key = true, 2, true, "client", "k"
		m.EventTime, m.Producer, m.Sequence, m.Origins = 5, "p", 9, []string{"o1", "o2"}
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		h.sameMessage(h.receive(q, 1, time.Minute)[0].Message, *m)
	}},
	{"a settled message is gone for good", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		d := h.expect(q, "a")[0]
		h.ack(d)
		h.fails(h.settle(d, broker.ReasonAcked), broker.ErrGone)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
		h.sleep(time.Hour)
		h.expect(q)
		if in := h.info(q); in.In != 1 || in.Out[broker.ReasonAcked] != 1 {
			h.Fatalf("in %d, acked %d, want 1 and 1", in.In, in.Out[broker.ReasonAcked])
		}
	}},
	{"each delivery counts an attempt and makes older ones stale", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		first := h.expect(q, "a")[0]
		h.nack(first, 0)
		second := h.expect(q, "a")[0]
		if first.Attempt != 1 || second.Attempt != 2 {
			h.Fatalf("attempts are %d and %d, want 1 and 2", first.Attempt, second.Attempt)
		}
		if h.store.State().StaleRefused {
			h.fails(h.settle(first, broker.ReasonAcked), broker.ErrStale)
		}
		h.ack(second)
	}},
	{"a late ack is accepted while the message was not handed out again", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		d := h.receive(q, 1, time.Second)[0]
		h.sleep(time.Minute)
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
		h.ack(d)
		h.expect(q)
	}},
	{"a nacked message returns to its place", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c")
		d := h.receive(q, 2, time.Minute)
		h.nack(d[1], 0)
		h.nack(d[0], 0)
		h.expect(q, "a", "b", "c")
	}},
	{"a message nacked with a delay keeps its place", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c")
		h.nack(h.receive(q, 1, time.Minute)[0], 10*time.Second)
		h.counts(q, "ready 2 delayed 1 leased 0 held 0 dead 0")
		h.same(h.receive(q, 1, time.Minute), "b")
		h.sleep(11 * time.Second)
		h.expect(q, "a", "c")
	}},
	{"a delivery that is returned counts no attempt and keeps its place", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 1})
		h.publish(q, "a", "b")
		d := h.receive(q, 1, time.Minute)[0]
		h.must(func(b *broker.Batch) { b.Return(d.Ref) })
		h.counts(q, "ready 2 delayed 0 leased 0 held 0 dead 0")
		w := h.wait(q, 1, time.Minute, time.Hour)
		if got := h.outcome(w); string(got[0].Payload) != "a" || got[0].Attempt != 1 {
			h.Fatalf("got %s at attempt %d, want a at 1", got[0].Payload, got[0].Attempt)
		}
		h.ack(w.Got...)
		h.fails(h.submit(func(b *broker.Batch) { b.Return(d.Ref) }).Err, broker.ErrGone)
		if h.keeps() {
			h.must(func(b *broker.Batch) { b.Return(h.expect(q, "b")[0].Ref) })
			h.reopen()
		}
		if got := h.expect(q, "b"); got[0].Attempt != 1 {
			h.Fatalf("attempt is %d, want 1", got[0].Attempt)
		}
	}},
	{"what is returned again and again keeps its place", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c")
		first := h.receive(q, 2, time.Minute)
		h.same(first, "a", "b")
		h.must(func(b *broker.Batch) { b.Return(first[0].Ref); b.End(); b.Return(first[1].Ref) })
		for range 3 {
			d := h.receive(q, 1, time.Minute)
			h.same(d, "a")
			h.must(func(b *broker.Batch) { b.Return(d[0].Ref) })
		}
		h.sleep(time.Second)
		h.expect(q, "a", "b", "c")
	}},
	{"an unknown target is not found and a dropped one gone", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		d := h.expect(q, "a")[0]
		unknown := d
		unknown.Target += 1000
		h.fails(h.settle(unknown, broker.ReasonAcked), broker.ErrNotFound)
		if err := h.store.Drop(context.Background(), q); err != nil {
			h.Fatalf("drop: %v", err)
		}
		h.fails(h.settle(d, broker.ReasonAcked), broker.ErrGone)
		again := h.queue(broker.Def{})
		if again == q {
			h.Fatal("the handle of a dropped queue is used again")
		}
		h.fails(h.settle(d, broker.ReasonAcked), broker.ErrGone)
		h.expect(again)
	}},
	{"a held message is neither delivered nor lost until it is settled", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 1})
		h.publish(q, "a")
		h.nack(h.expect(q, "a")[0], 0)
		l := h.told()
		if len(l) != 1 || l[0].why != broker.ReasonAttempts || string(l[0].d.Payload) != "a" {
			h.Fatalf("told %+v, want the message a for its attempts", l)
		}
		h.counts(q, "ready 0 delayed 0 leased 0 held 1 dead 0")
		h.expect(q)
		if err := h.settle(l[0].d, broker.ReasonDeadLettered); err != nil {
			h.Fatalf("settle of a held message: %v", err)
		}
		if in := h.info(q); in.Out[broker.ReasonDeadLettered] != 1 {
			h.Fatalf("out by dead-lettering %d, want 1", in.Out[broker.ReasonDeadLettered])
		}
	}},
	{"a dead letter moves in one unit", func(h *harness) {
		q, dlq := h.queue(broker.Def{LapseAt: 1}), h.queue(broker.Def{Name: "dlq"})
		h.publish(q, "a")
		h.nack(h.expect(q, "a")[0], 0)
		d := h.told()[0].d
		h.must(func(b *broker.Batch) {
			b.Publish(h.message("copy"), broker.Route{Target: dlq})
			b.Settle(d.Ref, broker.ReasonDeadLettered)
		})
		h.expect(q)
		h.expect(dlq, "copy")
	}},
	{"a unit whose settlement fails publishes nothing", func(h *harness) {
		q, dlq := h.queue(broker.Def{}), h.queue(broker.Def{Name: "dlq"})
		h.publish(q, "a")
		d := h.expect(q, "a")[0]
		h.ack(d)
		r := h.submit(func(b *broker.Batch) {
			b.Publish(h.message("copy"), broker.Route{Target: dlq})
			b.Settle(d.Ref, broker.ReasonDeadLettered)
		})
		h.fails(r.Err, broker.ErrGone)
		if h.store.State().Atomic {
			h.expect(dlq)
		}
	}},
	{"a parked message is dead until it is settled", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 1})
		h.publish(q, "a")
		h.nack(h.expect(q, "a")[0], 0)
		d := h.told()[0].d
		h.must(func(b *broker.Batch) { b.Park(d.Ref, broker.ReasonAttempts) })
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 1")
		h.expect(q)
		got := h.read(q, broker.Pos{States: broker.Dead}, 10)
		h.same(got, "a")
		if got[0].State != broker.Dead || got[0].Reason != broker.ReasonAttempts || got[0].Attempt != 1 {
			h.Fatalf("dead message is shown as %+v", got[0])
		}
		h.ack(got[0])
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
	{"browsing leases nothing and counts no attempt", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c", "d")
		h.receive(q, 1, time.Minute)
		all := broker.Ready | broker.Leased
		h.same(h.read(q, broker.Pos{States: all}, 10), "a", "b", "c", "d")
		h.same(h.read(q, broker.Pos{States: broker.Ready}, 10), "b", "c", "d")
		h.same(h.read(q, broker.Pos{States: broker.Leased}, 10), "a")
		h.same(h.read(q, broker.Pos{States: broker.Ready, Skip: 1}, 1), "c")
		if d := h.expect(q, "b", "c", "d"); d[0].Attempt != 1 {
			h.Fatalf("attempt is %d after browsing, want 1", d[0].Attempt)
		}
	}},
	{"find tells what was handed out from what only waits", func(h *harness) {
		q := h.queue(broker.Def{})
		a, b := h.message("a"), h.message("b")
		for _, m := range []*broker.Message{a, b} {
			h.must(func(x *broker.Batch) { x.Publish(m, broker.Route{Target: q}) })
		}
		d := h.receive(q, 1, time.Minute)[0]
		ref, err := h.store.Find(context.Background(), q, a.ID)
		if err != nil || ref != d.Ref {
			h.Fatalf("find answers %v, %v; want %v", ref, err, d.Ref)
		}
		_, err = h.store.Find(context.Background(), q, b.ID)
		h.fails(err, broker.ErrNotFound)
		h.ack(d)
		_, err = h.store.Find(context.Background(), q, a.ID)
		h.fails(err, broker.ErrNotFound)
	}},
	{"purge removes ready and delayed messages, and with all the others too", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c", "d")
		d := h.receive(q, 2, time.Minute)
		h.nack(d[1], time.Hour)
		if r := h.must(func(b *broker.Batch) { b.Purge(q, false) }); r.Count != 3 {
			h.Fatalf("purge removed %d, want 3", r.Count)
		}
		h.counts(q, "ready 0 delayed 0 leased 1 held 0 dead 0")
		if r := h.must(func(b *broker.Batch) { b.Purge(q, true) }); r.Count != 1 {
			h.Fatalf("purge of all removed %d, want 1", r.Count)
		}
		h.fails(h.settle(d[0], broker.ReasonAcked), broker.ErrGone)
		if in := h.info(q); in.Out[broker.ReasonPurged] != 4 {
			h.Fatalf("purged %d, want 4", in.Out[broker.ReasonPurged])
		}
		h.publish(q, "e")
		h.expect(q, "e")
	}},
	{"purges beside publishers count each message once", func(h *harness) {
		const publishers, each = 4, 60
		q := h.queue(broker.Def{})
		var publishing atomic.Int32
		publishing.Store(publishers)
		var wg sync.WaitGroup
		defer wg.Wait()
		for range publishers {
			messages := make([]*broker.Message, each)
			for i := range messages {
				messages[i] = h.message("m")
			}
			wg.Go(func() {
				for _, m := range messages {
					if r := h.submit(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }); r.Err != nil {
						h.Errorf("a publish: %v", r.Err)
					}
				}
				publishing.Add(-1)
			})
		}
		purged := 0
		for over := false; !over; {
			over = publishing.Load() == 0
			purged += h.must(func(b *broker.Batch) { b.Purge(q, false) }).Count
		}
		if in := h.info(q); purged != publishers*each || in.Out[broker.ReasonPurged] != publishers*each || in.Difference() != 0 {
			h.Fatalf("%d purged of %d, and the books are out by %d: %+v", purged, publishers*each, in.Difference(), in)
		}
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
	{"purge counts nothing that was acked before", func(h *harness) {
		q := h.queue(broker.Def{})
		for i := range uint64(20) {
			h.publish(q, "a", "b")
			h.ack(h.receive(q, 1, time.Minute)...)
			if r := h.must(func(b *broker.Batch) { b.Purge(q, true) }); r.Count != 1 {
				h.Fatalf("round %d: purge removed %d, want 1", i, r.Count)
			}
			if in := h.info(q); in.Out[broker.ReasonPurged] != i+1 || in.Out[broker.ReasonAcked] != i+1 || in.Difference() != 0 {
				h.Fatalf("round %d: the books are out by %d: %+v", i, in.Difference(), in)
			}
		}
	}},
}

// sameMessage compares a delivered message with what was published.
func (h *harness) sameMessage(got, want broker.Message) {
	h.Helper()
	if diff := diffMessage(got, want); diff != "" {
		h.Fatalf("message differs (-want +got):\n%s", diff)
	}
}
