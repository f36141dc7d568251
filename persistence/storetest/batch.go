package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"millrace/broker"
)

var targetTests = []test{
	{"defining a name again alters it", func(h *harness) {
		q := h.queue(broker.Def{Meta: []byte("1")})
		h.publish(q, "a")
		if again := h.queue(broker.Def{Meta: []byte("2"), MaxMessages: 1}); again != q {
			h.Fatal("an altered queue has another handle")
		}
		h.fails(h.submit(func(b *broker.Batch) { b.Publish(h.message("b"), broker.Route{Target: q}) }).Err, broker.ErrFull)
		ds, err := h.store.Definitions(context.Background())
		if err != nil || len(ds) != 1 || string(ds[0].Def.Meta) != "2" {
			h.Fatalf("definitions are %+v, %v", ds, err)
		}
	}},
	{"the driver of a queue cannot change", func(h *harness) {
		h.queue(broker.Def{})
		_, err := h.store.Define(context.Background(), broker.Def{Name: "q", Kind: broker.QueueTarget, Volatile: true})
		h.fails(err, broker.ErrConflict)
	}},
	{"a queue and a stream may have one name", func(h *harness) {
		q, s := h.queue(broker.Def{Name: "x"}), h.stream(broker.Def{Name: "x"})
		if q == s {
			h.Fatal("a queue and a stream have one handle")
		}
		h.publish(s, "a")
		h.expect(q)
	}},
	{"dropping removes a target with its messages", func(h *harness) {
		q := h.queue(broker.Def{TTL: time.Minute})
		h.publish(q, "a", "b")
		h.receive(q, 1, time.Second)
		if err := h.store.Drop(context.Background(), q); err != nil {
			h.Fatal(err)
		}
		_, err := h.store.Info(context.Background(), q)
		h.fails(err, broker.ErrGone)
		h.fails(h.store.Drop(context.Background(), q), broker.ErrGone)
		h.sleep(time.Hour)
		if got := h.droppedSince(); got != "[]" {
			h.Fatalf("a dropped queue told %s", got)
		}
	}},
	{"a publish goes on without a target that was dropped, unless it was the only one", func(h *harness) {
		q, gone := h.queue(broker.Def{}), h.queue(broker.Def{Name: "gone"})
		if err := h.store.Drop(context.Background(), gone); err != nil {
			h.Fatal(err)
		}
		h.must(func(b *broker.Batch) {
			b.Publish(h.message("a"), broker.Route{Target: gone}, broker.Route{Target: q})
		})
		h.expect(q, "a")
		r := h.submit(func(b *broker.Batch) { b.Publish(h.message("b"), broker.Route{Target: gone}) })
		h.fails(r.Err, broker.ErrGone)
	}},
	{"nothing lapses before Bind", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		h.receive(q, 1, time.Second)
		if !h.keeps() {
			return
		}
		h.close()
		h.store = h.place.Open(h.T)
		h.sleep(time.Minute)
		h.counts(q, "ready 0 delayed 0 leased 1 held 0 dead 0")
		h.events = &events{}
		h.store.Bind(h.events)
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
	}},
}

// order collects completions.
type order struct {
	mu   sync.Mutex
	tags []int
	left chan struct{}
}

func (o *order) Done(b *broker.Batch) {
	o.mu.Lock()
	o.tags = append(o.tags, b.Tag.(int))
	o.mu.Unlock()
	o.left <- struct{}{}
}

var batchTests = []test{
	{"batches are answered in the order in which they were submitted", func(h *harness) {
		q, mem := h.queue(broker.Def{}), h.queue(broker.Def{Name: "mem", Volatile: true})
		const n = 200
		o := &order{left: make(chan struct{}, n)}
		for i := range n {
			b := &broker.Batch{Tag: i}
			switch i % 4 {
			case 0:
				b.Publish(h.message("x"), broker.Route{Target: q})
			case 1:
				b.Publish(h.message("x"), broker.Route{Target: mem})
			case 2:
				b.Settle(broker.Ref{Target: q, Seq: 1 << 60}, broker.ReasonAcked)
			}
			b.End()
			level := broker.Durable
			if i%3 == 0 {
				level = broker.Lazy
			}
			h.store.Submit(b, level, o)
		}
		for range n {
			<-o.left
		}
		for i, tag := range o.tags {
			if h.store.State().Ordered && tag != i {
				h.Fatalf("completion %d is of batch %d", i, tag)
			}
		}
	}},
	{"an empty unit and an empty batch are answered", func(h *harness) {
		if r := h.submit(func(*broker.Batch) {}); r.Err != nil {
			h.Fatal(r.Err)
		}
		d := make(done, 1)
		h.store.Submit(&broker.Batch{}, broker.Durable, d)
		<-d
	}},
	{"an empty unit is answered after all that was submitted before", func(h *harness) {
		q := h.queue(broker.Def{})
		before, after := make(done, 1), make(done, 1)
		many := &broker.Batch{}
		for range 200 {
			many.Publish(h.message("x"), broker.Route{Target: q})
			many.End()
		}
		h.store.Submit(many, broker.Durable, before)
		empty := &broker.Batch{}
		empty.End()
		h.store.Submit(empty, broker.Durable, after)
		<-after
		select {
		case <-before:
		default:
			h.Fatal("what was submitted before is not answered")
		}
	}},
	{"a batch can be reused", func(h *harness) {
		q := h.queue(broker.Def{})
		b, d := &broker.Batch{}, make(done, 1)
		for i := range 5 {
			b.Reset()
			b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: q})
			b.End()
			h.store.Submit(b, broker.Durable, d)
			<-d
		}
		h.expect(q, "0", "1", "2", "3", "4")
	}},
	{"a result tells the id and the place of a publish", func(h *harness) {
		q := h.queue(broker.Def{})
		m := h.message("a")
		r := h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		if d := h.expect(q, "a")[0]; r.ID != m.ID || r.Seq != d.Seq || r.Duplicate {
			h.Fatalf("result is %+v, delivery %+v", r, d.Ref)
		}
	}},
	{"a unit of many messages is stored as one", func(h *harness) {
		q := h.queue(broker.Def{})
		h.must(func(b *broker.Batch) {
			for i := range 50 {
				b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: q})
			}
			b.Put(broker.SpaceCursors, "c", []byte("1"), 0)
		})
		h.counts(q, "ready 50 delayed 0 leased 0 held 0 dead 0")
	}},
	{"a repeat within the window is a duplicate, another body a conflict", func(h *harness) {
		q := h.queue(broker.Def{})
		send := func(key string, hash uint64) (broker.ID, broker.Result) {
			m := h.message("x")
			m.DedupKey, m.BodyHash = key, hash
			return m.ID, h.submit(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		id, r := send("k", 1)
		if r.Err != nil || r.Duplicate {
			h.Fatalf("first publish answers %+v", r)
		}
		if _, r = send("k", 1); !r.Duplicate || r.ID != id || r.Err != nil {
			h.Fatalf("repeat answers %+v, want a duplicate of %v", r, id)
		}
		_, r = send("k", 2)
		h.fails(r.Err, broker.ErrConflict)
		send("other", 1)
		h.counts(q, "ready 2 delayed 0 leased 0 held 0 dead 0")
		h.sleep(6 * time.Minute)
		if _, r = send("k", 2); r.Duplicate || r.Err != nil {
			h.Fatalf("publish after the window answers %+v", r)
		}
		h.counts(q, "ready 3 delayed 0 leased 0 held 0 dead 0")
	}},
	{"a repeat within a unit is a duplicate of the first, and the others are stored", func(h *harness) {
		q := h.queue(broker.Def{})
		b := &broker.Batch{}
		var first broker.ID
		for i, key := range []string{"k", "other", "k", ""} {
			m := h.message(fmt.Sprint(i))
			if m.DedupKey = key; i == 0 {
				first = m.ID
			}
			b.Publish(m, broker.Route{Target: q})
		}
		b.End()
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		if r := b.Units[0].Result; r.Err != nil || r.Duplicate {
			h.Fatalf("unit answers %+v", r)
		}
		if op := b.Ops[2]; !op.Duplicate || op.First != first || b.Ops[0].Duplicate || b.Ops[3].Duplicate {
			h.Fatalf("duplicate %v of %v, want the third publish of %v", op.Duplicate, op.First, first)
		}
		h.expect(q, "0", "1", "3")
	}},
	{"a failed unit leaves no key behind", func(h *harness) {
		q, full := h.queue(broker.Def{}), h.queue(broker.Def{Name: "full", MaxMessages: 1})
		h.publish(full, "x")
		send := func(to ...broker.Route) broker.Result {
			m := h.message("m")
			m.DedupKey = "k"
			return h.submit(func(b *broker.Batch) { b.Publish(m, to...) })
		}
		h.fails(send(broker.Route{Target: q}, broker.Route{Target: full}).Err, broker.ErrFull)
		if r := send(broker.Route{Target: q}); r.Err != nil || r.Duplicate {
			h.Fatalf("second try answers %+v", r)
		}
		h.expect(q, "m")
	}},
	{"publishers and consumers at work together lose and repeat nothing", func(h *harness) {
		q, other := h.queue(broker.Def{}), h.queue(broker.Def{Name: "other", Volatile: true})
		const publishers, each = 4, 500
		var wg sync.WaitGroup
		for p := range publishers {
			wg.Go(func() {
				b, d := &broker.Batch{}, make(done, 1)
				for n := 0; n < each; n += 10 {
					b.Reset()
					for i := range 10 {
						m := &broker.Message{Topic: "t", Payload: []byte("x"), ID: broker.ID{0: 1, 13: byte(p), 14: byte(n), 15: byte(n >> 8)}}
						m.ID[12] = byte(i)
						b.Publish(m, broker.Route{Target: q}, broker.Route{Target: other})
						b.End()
					}
					h.store.Submit(b, broker.Durable, d)
					<-d
				}
			})
		}
		var mu sync.Mutex
		seen := map[broker.Ref]int{}
		for i := range 4 {
			target := []broker.Target{q, other}[i%2]
			wg.Go(func() {
				for {
					w := &broker.Wait{Target: target, Max: 7, Lease: time.Hour, Until: time.Now().Add(time.Minute), Sink: make(sink, 1)}
					h.store.Receive(w)
					<-w.Sink.(sink)
					if w.Err != nil || len(w.Got) == 0 {
						return
					}
					b, d := &broker.Batch{}, make(done, 1)
					mu.Lock()
					for _, g := range w.Got {
						seen[g.Ref]++
						b.Settle(g.Ref, broker.ReasonAcked)
						b.End()
					}
					mu.Unlock()
					h.store.Submit(b, broker.Durable, d)
					<-d
				}
			})
		}
		wg.Wait()
		if len(seen) != 2*publishers*each {
			h.Fatalf("%d deliveries, want %d", len(seen), 2*publishers*each)
		}
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
		h.counts(other, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
}
