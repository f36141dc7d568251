package storetest

import (
	"context"
	"time"

	"millrace/broker"
)

var limitTests = []test{
	{"a definition is of the target that it expects, or of none", func(h *harness) {
		define := func(d broker.Def) (broker.Target, error) { return h.store.Define(context.Background(), d) }
		of := func(t broker.Target) broker.Def {
			return broker.Def{Name: "q", Kind: broker.QueueTarget, MaxMessages: 1, Expect: t}
		}
		q, err := define(of(broker.NewTarget))
		if err != nil {
			h.Fatalf("define: %v", err)
		}
		_, err = define(of(broker.NewTarget))
		h.fails(err, broker.ErrConflict)
		if t, err := define(of(q)); t != q || err != nil {
			h.Fatalf("altered it is %d (%v), want %d", t, err, q)
		}
		_, err = define(of(q + 1))
		h.fails(err, broker.ErrGone)
		defs, err := h.store.Definitions(context.Background())
		if err != nil || len(defs) != 1 || defs[0].Def.Expect != 0 {
			h.Fatalf("recorded is %+v, %v", defs, err)
		}
		if err := h.store.Drop(context.Background(), q); err != nil {
			h.Fatalf("drop: %v", err)
		}
		_, err = define(of(q))
		h.fails(err, broker.ErrGone)
	}},
	{"a definition is a change of what it says, or refused", func(h *harness) {
		define := func(was, is string) error {
			d := broker.Def{Name: "q", Kind: broker.QueueTarget, Meta: []byte(is)}
			if was != "" {
				d.Was = []byte(was)
			}
			_, err := h.store.Define(context.Background(), d)
			return err
		}
		h.fails(define("none", "one"), broker.ErrConflict)
		for _, step := range [][2]string{{"", "one"}, {"one", "two"}, {"two", "two"}, {"", "three"}} {
			if err := define(step[0], step[1]); err != nil {
				h.Fatalf("%q after %q: %v", step[1], step[0], err)
			}
		}
		h.fails(define("two", "four"), broker.ErrConflict)
		defs, err := h.store.Definitions(context.Background())
		if err != nil || len(defs) != 1 || string(defs[0].Def.Meta) != "three" || defs[0].Def.Was != nil {
			h.Fatalf("recorded is %+v, %v", defs, err)
		}
	}},
	{"a full queue that rejects fails the whole unit", func(h *harness) {
		q, other := h.queue(broker.Def{MaxMessages: 2}), h.queue(broker.Def{Name: "other"})
		h.publish(q, "a", "b")
		r := h.submit(func(b *broker.Batch) {
			b.Publish(h.message("c"), broker.Route{Target: other}, broker.Route{Target: q})
		})
		h.fails(r.Err, broker.ErrFull)
		if r.Full != q {
			h.Fatalf("full is %d, want %d", r.Full, q)
		}
		if h.store.State().Atomic {
			h.expect(other)
		}
		h.ack(h.receive(q, 1, time.Minute)...)
		h.publish(q, "d")
		h.expect(q, "b", "d")
	}},
	{"a full queue fails its own unit of a batch only", func(h *harness) {
		q, other := h.queue(broker.Def{MaxMessages: 1}), h.queue(broker.Def{Name: "other"})
		b := &broker.Batch{}
		for _, t := range []broker.Target{q, q, other} {
			b.Publish(h.message("x"), broker.Route{Target: t})
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		if b.Units[0].Result.Err != nil || b.Units[2].Result.Err != nil {
			h.Fatalf("units failed: %v, %v", b.Units[0].Result.Err, b.Units[2].Result.Err)
		}
		h.fails(b.Units[1].Result.Err, broker.ErrFull)
	}},
	{"what is stored is what queues, streams and sessions hold together", func(h *harness) {
		q, memory := h.queue(broker.Def{}), h.queue(broker.Def{Name: "memory", Volatile: true})
		st := h.stream(broker.Def{Partitions: 2})
		session := h.define(broker.Def{Kind: broker.SessionTarget}, "session")
		h.weighs()
		var d []broker.Delivery
		for i := range uint32(4) {
			h.must(func(b *broker.Batch) {
				b.Publish(h.message("everywhere"), broker.Route{Target: q}, broker.Route{Target: memory},
					broker.Route{Target: st, Partition: i % 2}, broker.Route{Target: session})
			})
		}
		if n := h.weighs(); n < 4*4*int64(len("everywhere")) {
			h.Fatalf("16 messages in all are %d bytes", n)
		}
		d = h.receive(q, 1, time.Minute)
		h.weighs() // a leased message is still there
		h.ack(d...)
		h.ack(h.receive(session, 1, time.Minute)...)
		h.must(func(b *broker.Batch) { b.Purge(memory, true) })
		h.weighs()
		if h.keeps() {
			h.reopen()
			h.weighs()
			q, st, session = h.target("q"), h.target("s"), h.target("session")
		}
		for _, t := range []broker.Target{st, session, q} {
			if err := h.store.Drop(context.Background(), t); err != nil {
				h.Fatalf("drop: %v", err)
			}
			h.weighs()
		}
		if n := h.weighs(); n != 0 {
			h.Fatalf("%d bytes are stored and nothing is there", n)
		}
	}},
	{"messages of one unit count together", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 2})
		three := func(b *broker.Batch) {
			for range 3 {
				b.Publish(h.message("x"), broker.Route{Target: q})
			}
		}
		h.fails(h.submit(three).Err, broker.ErrFull)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
	{"bytes are limited like messages", func(h *harness) {
		q := h.queue(broker.Def{MaxBytes: 4000})
		big := func(b *broker.Batch) {
			m := h.message("big")
			m.Payload = make([]byte, 1500)
			b.Publish(m, broker.Route{Target: q})
		}
		h.must(big)
		h.must(big)
		h.fails(h.submit(big).Err, broker.ErrFull)
		if in := h.info(q); in.Bytes < 3000 || in.Bytes > 4000 {
			h.Fatalf("holds %d bytes, want 3000 and some", in.Bytes)
		}
	}},
	{"payloads are limited to the byte, whatever their headers take", func(h *harness) {
		q := h.queue(broker.Def{MaxPayload: 10})
		sized := func(n int) error {
			m := h.message("x")
			m.Payload, m.ContentType = make([]byte, n), "a/very-long-one"
			return h.submit(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }).Err
		}
		h.payload(q, 0)
		h.fails(sized(11), broker.ErrFull)
		h.fails(sized(6), nil)
		h.fails(sized(5), broker.ErrFull)
		h.fails(sized(4), nil)
		h.fails(sized(1), broker.ErrFull)
		h.fails(sized(0), nil)
		h.payload(q, 10)
		d := h.receive(q, 1, time.Minute)
		h.payload(q, 10) // a leased message is still there
		h.fails(sized(1), broker.ErrFull)
		h.ack(d...)
		h.payload(q, 4)
		h.queue(broker.Def{MaxPayload: 5})
		h.fails(sized(1), nil)
		h.fails(sized(1), broker.ErrFull)
		if h.keeps() {
			h.reopen()
			q = h.target("q")
			h.payload(q, 5)
			h.fails(sized(1), broker.ErrFull)
		}
		h.must(func(b *broker.Batch) { b.Purge(q, true) })
		h.payload(q, 0)
	}},
	{"a queue that drops its oldest makes room for a payload", func(h *harness) {
		q := h.queue(broker.Def{MaxPayload: 5, DropOldest: true})
		h.publish(q, "a", "bb", "cc", "ddd")
		h.payload(q, 5)
		h.same(h.read(q, broker.Pos{States: broker.Ready}, 9), "cc", "ddd")
		h.receive(q, 1, time.Minute)
		m := h.message("eeee")
		h.fails(h.submit(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }).Err, broker.ErrFull)
		h.publish(q, "eee")
		h.expect(q, "eee")
	}},
	{"a queue that drops its oldest takes what comes", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 3, DropOldest: true})
		h.publish(q, "a", "b", "c", "d")
		if got := h.droppedSince(); got != "[overflow 1]" {
			h.Fatalf("dropped %s, want [overflow 1]", got)
		}
		d := h.receive(q, 1, time.Minute)
		h.same(d, "b")
		h.publish(q, "e")
		h.expect(q, "d", "e")
		if in := h.info(q); in.Out[broker.ReasonOverflow] != 2 {
			h.Fatalf("overflow took %d, want 2", in.Out[broker.ReasonOverflow])
		}
	}},
	{"a delayed publish into a full queue takes the place of one that is there", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 1, DropOldest: true})
		for _, m := range []*broker.Message{h.message("later"), h.message("sooner")} {
			m.NotBefore = m.Published + time.Hour.Milliseconds()
			if string(m.Payload) == "sooner" {
				m.NotBefore = m.Published + time.Minute.Milliseconds()
			}
			h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		h.counts(q, "ready 0 delayed 1 leased 0 held 0 dead 0")
		h.sleep(time.Minute)
		h.same(h.outcome(h.wait(q, 1, time.Minute, time.Minute)), "sooner")
	}},
	{"a burst beyond the limit leaves the newest", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 2, DropOldest: true})
		b := &broker.Batch{}
		for _, body := range []string{"a", "b", "c", "d", "e"} {
			b.Publish(h.message(body), broker.Route{Target: q})
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		h.expect(q, "d", "e")
	}},
	{"leased messages are never dropped to make room", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 2, DropOldest: true})
		h.publish(q, "a", "b")
		d := h.receive(q, 2, time.Minute)
		r := h.submit(func(b *broker.Batch) { b.Publish(h.message("c"), broker.Route{Target: q}) })
		h.fails(r.Err, broker.ErrFull)
		h.ack(d...)
		h.publish(q, "c")
		h.expect(q, "c")
	}},
	{"room is made by ready messages first, then delayed, then dead ones", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 3, DropOldest: true, LapseAt: 1})
		h.publish(q, "dead")
		h.nack(h.expect(q, "dead")[0], 0)
		h.must(func(b *broker.Batch) { b.Park(h.told()[0].d.Ref, broker.ReasonAttempts) })
		later := h.message("later")
		later.NotBefore = time.Now().Add(time.Hour).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(later, broker.Route{Target: q}) })
		for _, body := range []string{"a", "b"} {
			h.publish(q, body)
			h.counts(q, "ready 1 delayed 1 leased 0 held 0 dead 1")
		}
		h.expect(q, "b")
		h.publish(q, "c")
		h.counts(q, "ready 1 delayed 0 leased 1 held 0 dead 1")
		h.expect(q, "c")
		h.publish(q, "d")
		h.counts(q, "ready 1 delayed 0 leased 2 held 0 dead 0")
	}},
	{"an overflow that lapses is told and makes room", func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 1, DropOldest: true, OverflowLapses: true})
		h.publish(q, "a", "b")
		l := h.told()
		if len(l) != 1 || l[0].why != broker.ReasonOverflow || string(l[0].d.Payload) != "a" {
			h.Fatalf("told %+v, want a for overflow", l)
		}
		h.counts(q, "ready 1 delayed 0 leased 0 held 1 dead 0")
		if err := h.settle(l[0].d, broker.ReasonOverflow); err != nil {
			h.Fatalf("settle: %v", err)
		}
		h.expect(q, "b")
	}},
	{"a queue hands out no more than it may have in flight", func(h *harness) {
		q := h.queue(broker.Def{MaxInFlight: 2})
		h.publish(q, "a", "b", "c")
		d := h.receive(q, 10, time.Minute)
		h.same(d, "a", "b")
		w := h.wait(q, 10, time.Minute, time.Hour)
		h.pending(w)
		h.ack(d[0])
		h.same(h.outcome(w), "c")
	}},
	{"a paused queue takes messages and delivers none", func(h *harness) {
		q := h.queue(broker.Def{Paused: true})
		h.publish(q, "a")
		w := h.wait(q, 1, time.Minute, time.Hour)
		h.pending(w)
		h.queue(broker.Def{})
		h.same(h.outcome(w), "a")
	}},
	{"a keyed queue has one message of a key in flight", func(h *harness) {
		q := h.queue(broker.Def{KeyedFIFO: true})
		for _, body := range []string{"a1", "a2", "b1", "a3", "-1", "-2", "b2"} {
			m := h.message(body)
			if m.Key = body[:1]; m.Key == "-" {
				m.Key = ""
			}
			h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		d := h.expect(q, "a1", "b1", "-1", "-2")
		h.ack(d[1:]...)
		h.ack(h.expect(q, "b2")...)
		h.nack(d[0], 0)
		h.counts(q, "ready 3 delayed 0 leased 0 held 0 dead 0")
		h.ack(h.expect(q, "a1")...)
		h.nack(h.expect(q, "a2")[0], time.Minute)
		h.expect(q)
		h.sleep(time.Minute + time.Millisecond)
		h.ack(h.expect(q, "a2")...)
		h.expect(q, "a3")
	}},
}

// storedAge is more than Stored may lag on an idle machine.
const storedAge = 2 * time.Second

// weighs sees that Stored is the sum of what the targets hold, and returns it.
func (h *harness) weighs() int64 {
	h.Helper()
	if !h.live && h.store.State().Lag > 0 {
		<-time.After(storedAge)
		h.store.Stored() // has it counted
	}
	var sum int64
	if h.becomes(func() bool { sum = h.heldByAll(); return h.store.Stored() == sum }) {
		return sum
	}
	h.Fatalf("%d bytes are stored, and the targets hold %d", h.store.Stored(), sum)
	return 0
}

// heldByAll is what the targets hold together.
func (h *harness) heldByAll() (sum int64) {
	h.Helper()
	ds, err := h.store.Definitions(context.Background())
	if err != nil {
		h.Fatalf("definitions: %v", err)
	}
	for _, d := range ds {
		if d.Def.Kind != broker.SubscriptionTarget {
			sum += h.info(d.Target).Bytes
		}
	}
	return sum
}
