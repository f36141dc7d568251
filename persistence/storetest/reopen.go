package storetest

import (
	"context"
	"fmt"
	"time"

	"millrace/broker"
)

// reopenTests hold for stores that keep what they are given; the others show
// their definitions gone as well.
var reopenTests = []test{
	{"a store that keeps nothing is empty when opened again", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		keeps := h.keeps()
		h.reopen()
		ds, err := h.store.Definitions(context.Background())
		if err != nil || (len(ds) == 1) != keeps {
			h.Fatalf("%d definitions and error %v after reopening, keeps %v", len(ds), err, keeps)
		}
	}},
	kept("messages, attempts and settlements survive", func(h *harness) {
		q := h.queue(broker.Def{Meta: []byte("meta")})
		h.publish(q, "a", "b", "c", "d")
		d := h.receive(q, 3, time.Hour)
		h.ack(d[0])
		h.nack(d[1], 0)
		h.reopen()
		h.counts(q, "ready 2 delayed 0 leased 1 held 0 dead 0")
		in := h.info(q)
		if in.In != 4 || in.Out[broker.ReasonAcked] != 1 {
			h.Fatalf("in %d, acked %d after reopening, want 4 and 1", in.In, in.Out[broker.ReasonAcked])
		}
		got := h.expect(q, "b", "d")
		if got[0].Attempt != 2 || got[1].Attempt != 1 {
			h.Fatalf("attempts are %d and %d, want 2 and 1", got[0].Attempt, got[1].Attempt)
		}
		h.ack(got...)
		h.publish(q, "e")
		h.expect(q, "e")
	}),
	kept("a lease keeps its end", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		h.receive(q, 1, time.Minute)
		h.reopen()
		h.sleep(30 * time.Second)
		h.counts(q, "ready 0 delayed 0 leased 1 held 0 dead 0")
		h.sleep(31 * time.Second)
		h.expect(q, "a")
	}),
	kept("a receipt of an earlier start is good until its message is handed out again", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b")
		d := h.receive(q, 2, time.Second)
		h.reopen()
		h.ack(d[0])
		h.sleep(2 * time.Second)
		again := h.expect(q, "b")
		if h.store.State().StaleRefused {
			h.fails(h.settle(d[1], broker.ReasonAcked), broker.ErrStale)
		}
		h.ack(again...)
		h.fails(h.settle(d[0], broker.ReasonAcked), broker.ErrGone)
	}),
	kept("a receipt of an earlier start can give back and extend", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 2})
		h.publish(q, "a", "b")
		d := h.receive(q, 2, time.Minute)
		h.reopen()
		h.nack(d[0], 0)
		h.must(func(b *broker.Batch) { b.Defer(d[1].Ref, time.Now().Add(time.Hour), false) })
		h.sleep(2 * time.Minute)
		h.counts(q, "ready 1 delayed 0 leased 1 held 0 dead 0")
		h.nack(h.expect(q, "a")[0], 0)
		h.counts(q, "ready 0 delayed 0 leased 1 held 1 dead 0")
	}),
	kept("held messages are told again and dead ones stay dead", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 1})
		h.publish(q, "a", "b")
		d := h.receive(q, 2, time.Minute)
		h.nack(d[0], 0)
		h.must(func(b *broker.Batch) { b.Park(h.told()[0].d.Ref, broker.ReasonAttempts) })
		h.nack(d[1], 0)
		h.told()
		h.reopen()
		l := h.told()
		if len(l) != 1 || string(l[0].d.Payload) != "b" {
			h.Fatalf("told %+v after reopening, want the message b", l)
		}
		dead := h.read(q, broker.Pos{States: broker.Dead}, 10)
		h.same(dead, "a")
		if dead[0].Reason != broker.ReasonAttempts {
			h.Fatalf("reason is %v, want %v", dead[0].Reason, broker.ReasonAttempts)
		}
		if err := h.settle(l[0].d, broker.ReasonDeadLettered); err != nil {
			h.Fatalf("settle: %v", err)
		}
		h.ack(dead...)
	}),
	kept("delays and their order survive", func(h *harness) {
		q := h.queue(broker.Def{})
		late := h.message("late")
		late.NotBefore = time.Now().Add(10 * time.Second).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(late, broker.Route{Target: q}) })
		h.publish(q, "a", "b")
		h.nack(h.receive(q, 1, time.Minute)[0], 20*time.Second)
		h.reopen()
		h.counts(q, "ready 1 delayed 2 leased 0 held 0 dead 0")
		h.sleep(15 * time.Second)
		h.publish(q, "c")
		d := h.receive(q, 2, 5*time.Second)
		h.same(d, "b", "late")
		h.reopen()
		h.sleep(10 * time.Second)
		h.expect(q, "a", "b", "late", "c")
	}),
	kept("expired messages stay gone", func(h *harness) {
		q := h.queue(broker.Def{TTL: time.Minute})
		h.publish(q, "a")
		h.sleep(2 * time.Minute)
		h.publish(q, "b")
		h.queue(broker.Def{})
		h.reopen()
		h.expect(q, "b")
		if in := h.info(q); in.Out[broker.ReasonExpired] != 1 {
			h.Fatalf("expired %d, want 1", in.Out[broker.ReasonExpired])
		}
	}),
	kept("a volatile queue exists again, empty, and old receipts are gone", func(h *harness) {
		q, disk := h.queue(broker.Def{Name: "mem", Volatile: true}), h.queue(broker.Def{})
		h.must(func(b *broker.Batch) {
			b.Publish(h.message("x"), broker.Route{Target: q}, broker.Route{Target: disk})
		})
		d := h.expect(q, "x")
		h.reopen()
		if again := h.target("mem"); again != q {
			h.Fatalf("volatile queue is %d after reopening, want %d", again, q)
		}
		h.expect(q)
		h.expect(disk, "x")
		h.publish(q, "y")
		h.fails(h.settle(d[0], broker.ReasonAcked), broker.ErrGone)
		h.expect(q, "y")
	}),
	kept("keys keep values and revisions", func(h *harness) {
		put := func(key string, v []byte, rev uint64) broker.Result {
			return h.submit(func(b *broker.Batch) { b.Put(broker.SpaceAuth, key, v, rev) })
		}
		a := put("a", []byte("1"), 0)
		put("b", []byte{}, 0)
		put("c", []byte("3"), 0)
		put("c", nil, 0)
		h.reopen()
		e, err := h.store.Get(context.Background(), broker.SpaceAuth, "a")
		if err != nil || string(e.Value) != "1" || e.Rev != a.Rev {
			h.Fatalf("a is %q rev %d, %v; want 1 rev %d", e.Value, e.Rev, err, a.Rev)
		}
		if e, err = h.store.Get(context.Background(), broker.SpaceAuth, "b"); err != nil || len(e.Value) != 0 {
			h.Fatalf("b is %q, %v; want it empty", e.Value, err)
		}
		_, err = h.store.Get(context.Background(), broker.SpaceAuth, "c")
		h.fails(err, broker.ErrNotFound)
		if r := put("a", []byte("2"), a.Rev); r.Err != nil || r.Rev <= a.Rev {
			h.Fatalf("conditional put answers rev %d, %v; want more than %d", r.Rev, r.Err, a.Rev)
		}
		h.fails(put("a", []byte("3"), a.Rev).Err, broker.ErrConflict)
	}),
	kept("streams go on at the next offset", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		for i := range 5 {
			h.must(func(b *broker.Batch) {
				b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: s, Partition: uint32(i % 2)})
			})
		}
		h.reopen()
		if r := h.must(func(b *broker.Batch) { b.Publish(h.message("5"), broker.Route{Target: s, Partition: 1}) }); r.Seq != 2 {
			h.Fatalf("offset after reopening is %d, want 2", r.Seq)
		}
		h.same(h.read(s, broker.Pos{Partition: 0}, 10), "0", "2", "4")
		h.same(h.read(s, broker.Pos{Partition: 1, Seq: 1}, 10), "3", "5")
	}),
	kept("targets are never used again", func(h *harness) {
		q := h.queue(broker.Def{})
		if err := h.store.Drop(context.Background(), q); err != nil {
			h.Fatal(err)
		}
		h.reopen()
		if again := h.queue(broker.Def{}); again == q {
			h.Fatal("the handle of a dropped queue is used again after reopening")
		}
		h.fails(h.submit(func(b *broker.Batch) { b.Purge(q, true) }).Err, broker.ErrGone)
	}),
	kept("definitions and their changes survive", func(h *harness) {
		h.queue(broker.Def{Meta: []byte("1"), MaxMessages: 5})
		q := h.queue(broker.Def{Meta: []byte("2"), MaxMessages: 6, TTL: time.Hour})
		h.reopen()
		ds, err := h.store.Definitions(context.Background())
		if err != nil || len(ds) != 1 {
			h.Fatalf("definitions are %v, %v", ds, err)
		}
		if d := ds[0]; d.Target != q || string(d.Def.Meta) != "2" || d.Def.MaxMessages != 6 || d.Def.TTL != time.Hour {
			h.Fatalf("definition is %+v, want the second one", d)
		}
	}),
	kept("a repeat is a duplicate also after reopening", func(h *harness) {
		q := h.queue(broker.Def{})
		m := h.message("a")
		m.DedupKey, m.BodyHash = "k", 1
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		h.reopen()
		again := h.message("a")
		again.DedupKey, again.BodyHash = "k", 1
		r := h.must(func(b *broker.Batch) { b.Publish(again, broker.Route{Target: q}) })
		if !r.Duplicate || r.ID != m.ID {
			h.Fatalf("repeat answers %+v, want a duplicate of %v", r, m.ID)
		}
		h.expect(q, "a")
	}),
	{"the key of a message in flight stays taken", func(h *harness) {
		if !h.keeps() {
			return
		}
		q := h.queue(broker.Def{KeyedFIFO: true})
		for _, body := range []string{"a1", "a2", "b1"} {
			m := h.message(body)
			m.Key = body[:1]
			h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		d := h.receive(q, 1, time.Hour)
		h.reopen()
		h.ack(h.expect(q, "b1")...)
		h.nack(d[0], time.Minute) // longer than the slowest reopen
		h.reopen()
		h.expect(q)
		h.sleep(2 * time.Minute)
		h.ack(h.expect(q, "a1")...)
		h.expect(q, "a2")
	}},
	kept("many messages survive many reopenings", func(h *harness) {
		q := h.queue(broker.Def{})
		for round := range 3 {
			b := &broker.Batch{}
			for i := range 500 {
				b.Publish(h.message(fmt.Sprint(round, " ", i)), broker.Route{Target: q})
				b.End()
			}
			d := make(done, 1)
			h.store.Submit(b, broker.Durable, d)
			<-d
			got := h.receive(q, 400, time.Hour)
			b.Reset()
			for _, g := range got {
				b.Settle(g.Ref, broker.ReasonAcked)
				b.End()
			}
			h.store.Submit(b, broker.Durable, d)
			<-d
			h.reopen()
			h.counts(q, fmt.Sprintf("ready %d delayed 0 leased 0 held 0 dead 0", (round+1)*100))
		}
	}),
}

// kept is a test of a store that keeps what it was given. One that does not
// keep anything is only asked to say so.
func kept(name string, run func(h *harness)) test {
	return test{name, func(h *harness) {
		if h.keeps() {
			run(h)
		}
	}}
}
