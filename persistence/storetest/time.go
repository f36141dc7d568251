package storetest

import (
	"time"

	"millrace/broker"
)

var timeTests = []test{
	{"a lease that ends makes the message ready at its place", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b")
		h.same(h.receive(q, 1, 10*time.Second), "a")
		h.sleep(10*time.Second - time.Millisecond)
		h.counts(q, "ready 1 delayed 0 leased 1 held 0 dead 0")
		h.sleep(2 * time.Millisecond)
		h.counts(q, "ready 2 delayed 0 leased 0 held 0 dead 0")
		h.expect(q, "a", "b")
	}},
	{"a lease of no length counts the attempt and leaves the message ready", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		for attempt := uint32(1); attempt <= 3; attempt++ {
			d := h.receive(q, 5, 0)
			h.same(d, "a")
			if d[0].Attempt != attempt {
				h.Fatalf("attempt is %d, want %d", d[0].Attempt, attempt)
			}
		}
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
	}},
	{"a lease can be extended and ended", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		d := h.receive(q, 1, 10*time.Second)[0]
		h.must(func(b *broker.Batch) { b.Defer(d.Ref, time.Now().Add(time.Minute), false) })
		h.sleep(30 * time.Second)
		h.counts(q, "ready 0 delayed 0 leased 1 held 0 dead 0")
		h.must(func(b *broker.Batch) { b.Defer(d.Ref, time.Now(), false) })
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
	}},
	{"the last attempt lapses when its lease ends", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 2})
		h.publish(q, "a")
		h.receive(q, 1, time.Second)
		h.sleep(2 * time.Second)
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
		h.receive(q, 1, time.Second)
		h.sleep(2 * time.Second)
		h.counts(q, "ready 0 delayed 0 leased 0 held 1 dead 0")
		l := h.told()
		if len(l) != 1 || l[0].d.Attempt != 2 || l[0].target != q {
			h.Fatalf("told %+v, want attempt 2 of one message", l)
		}
	}},
	{"a held message can be given back for later and lapses again", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 1})
		h.publish(q, "a")
		h.nack(h.expect(q, "a")[0], 0)
		h.nack(h.told()[0].d, time.Minute)
		h.counts(q, "ready 0 delayed 1 leased 0 held 0 dead 0")
		h.sleep(2 * time.Minute)
		if l := h.told(); len(l) != 1 {
			h.Fatalf("told %d lapses after the delay, want 1", len(l))
		}
	}},
	{"a delayed message goes behind all that is ready when it is due", func(h *harness) {
		q := h.queue(broker.Def{})
		late, later := h.message("late"), h.message("later")
		late.NotBefore = time.Now().Add(10 * time.Second).UnixMilli()
		later.NotBefore = time.Now().Add(11 * time.Second).UnixMilli()
		for _, m := range []*broker.Message{later, late} {
			h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		h.publish(q, "a")
		h.sleep(5 * time.Second)
		h.publish(q, "b")
		h.counts(q, "ready 2 delayed 2 leased 0 held 0 dead 0")
		h.sleep(15 * time.Second)
		h.publish(q, "c")
		got := h.expect(q, "a", "b", "late", "later", "c")
		if got[2].Queued != late.NotBefore {
			h.Fatalf("the delayed message was queued at %d, want %d", got[2].Queued, late.NotBefore)
		}
		h.nack(got[3], 0)
		h.nack(got[2], 0)
		h.nack(got[1], 0)
		h.expect(q, "b", "late", "later")
	}},
	{"a delayed message reaches all its queues, and is taken back from one alone", func(h *harness) {
		one, two, three := h.queue(broker.Def{Name: "one"}), h.queue(broker.Def{Name: "two"}), h.queue(broker.Def{Name: "three"})
		m := h.message("a")
		m.NotBefore = time.Now().Add(time.Second).UnixMilli()
		h.must(func(b *broker.Batch) {
			b.Publish(m, broker.Route{Target: one}, broker.Route{Target: two}, broker.Route{Target: three})
		})
		got := h.read(two, broker.Pos{States: broker.Delayed}, 10)
		h.same(got, "a")
		if err := h.settle(got[0], broker.ReasonPurged); err != nil {
			h.Fatalf("settle of a delayed message: %v", err)
		}
		h.sleep(1100 * time.Millisecond)
		h.counts(one, "ready 1 delayed 0 leased 0 held 0 dead 0")
		h.counts(two, "ready 0 delayed 0 leased 0 held 0 dead 0")
		h.expect(one, "a")
		h.expect(three, "a")
	}},
	{"the delay of a queue holds every publish back", func(h *harness) {
		q := h.queue(broker.Def{Delay: time.Minute})
		h.publish(q, "a")
		h.counts(q, "ready 0 delayed 1 leased 0 held 0 dead 0")
		h.sleep(time.Minute + time.Millisecond)
		h.expect(q, "a")
	}},
	{"a message expires after the queue's time to live", func(h *harness) {
		q := h.queue(broker.Def{TTL: time.Minute})
		h.publish(q, "a")
		h.sleep(30 * time.Second)
		h.publish(q, "b")
		h.sleep(31 * time.Second)
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
		if got := h.droppedSince(); got != "[expired 1]" {
			h.Fatalf("dropped %s, want [expired 1]", got)
		}
		h.expect(q, "b")
	}},
	{"a message expires at its own time", func(h *harness) {
		q := h.queue(broker.Def{})
		for i, body := range []string{"a", "b", "c"} {
			m := h.message(body)
			if i != 1 {
				m.Expires = time.Now().Add(time.Duration(i+1) * 10 * time.Second).UnixMilli()
			}
			h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		h.sleep(11 * time.Second)
		h.counts(q, "ready 2 delayed 0 leased 0 held 0 dead 0")
		h.sleep(20 * time.Second)
		h.expect(q, "b")
		if in := h.info(q); in.Out[broker.ReasonExpired] != 2 {
			h.Fatalf("expired %d, want 2", in.Out[broker.ReasonExpired])
		}
	}},
	{"a leased message does not expire before its lease ends", func(h *harness) {
		for name, ttl := range map[string]time.Duration{"own": 0, "queue": 10 * time.Second} {
			q := h.queue(broker.Def{Name: name, TTL: ttl})
			for range 2 {
				m := h.message(name)
				m.Expires = time.Now().Add(10 * time.Second).UnixMilli()
				h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
			}
			d := h.receive(q, 2, time.Minute)
			h.sleep(30 * time.Second)
			h.counts(q, "ready 0 delayed 0 leased 2 held 0 dead 0")
			h.ack(d[0])
			h.sleep(time.Minute)
			h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
			if in := h.info(q); in.Out[broker.ReasonExpired] != 1 || in.Out[broker.ReasonAcked] != 1 {
				h.Fatalf("out %v, want 1 acked and 1 expired", in.Out)
			}
		}
	}},
	{"a message that came back expires too", func(h *harness) {
		q := h.queue(broker.Def{TTL: time.Minute})
		h.publish(q, "a")
		h.nack(h.expect(q, "a")[0], 0)
		h.sleep(59 * time.Second)
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
		h.sleep(2 * time.Second)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
	{"a message whose time ended on lease expires when it comes back, however late it is wanted", func(h *harness) {
		q := h.queue(broker.Def{})
		m := h.message("a")
		m.Expires = time.Now().Add(10 * time.Second).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		d := h.receive(q, 1, time.Minute)[0]
		h.sleep(11 * time.Second)
		h.nack(d, time.Hour)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
		if in := h.info(q); in.Out[broker.ReasonExpired] != 1 {
			h.Fatalf("out %v, want 1 expired", in.Out)
		}
	}},
	{"a time to live counts from when a delayed message was due", func(h *harness) {
		q := h.queue(broker.Def{TTL: time.Minute, Delay: time.Hour})
		h.publish(q, "a")
		h.sleep(time.Hour + 30*time.Second)
		h.counts(q, "ready 1 delayed 0 leased 0 held 0 dead 0")
		h.sleep(31 * time.Second)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
	{"an expired message is told if the queue says so", func(h *harness) {
		q := h.queue(broker.Def{TTL: time.Minute, ExpiryLapses: true})
		h.publish(q, "a")
		h.sleep(2 * time.Minute)
		h.counts(q, "ready 0 delayed 0 leased 0 held 1 dead 0")
		l := h.told()
		if len(l) != 1 || l[0].why != broker.ReasonExpired {
			h.Fatalf("told %+v, want one for its expiry", l)
		}
		h.ack(l[0].d)
	}},
	{"a dead message is removed after the dead retention", func(h *harness) {
		q := h.queue(broker.Def{LapseAt: 1, DeadRetention: time.Hour, TTL: time.Minute})
		h.publish(q, "a")
		h.nack(h.expect(q, "a")[0], 0)
		h.must(func(b *broker.Batch) { b.Park(h.told()[0].d.Ref, broker.ReasonAttempts) })
		h.sleep(59 * time.Minute)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 1")
		h.sleep(2 * time.Minute)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
		if in := h.info(q); in.Out[broker.ReasonRetention] != 1 {
			h.Fatalf("out by retention %d, want 1", in.Out[broker.ReasonRetention])
		}
	}},
	{"a changed time to live holds for what is there", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b")
		h.nack(h.receive(q, 1, time.Minute)[0], 0)
		h.sleep(time.Minute)
		h.queue(broker.Def{TTL: time.Hour})
		h.counts(q, "ready 2 delayed 0 leased 0 held 0 dead 0")
		h.sleep(time.Hour)
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
}
