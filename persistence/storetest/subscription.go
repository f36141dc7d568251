package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/broker"
)

// subscribe defines a subscription named "sub" on a stream.
func (h *harness) subscribe(s broker.Target, start ...broker.Offset) broker.Target {
	h.Helper()
	return h.subscription(s, broker.Def{Start: start})
}

// subscription defines a subscription; d.Name is "sub" if it has none.
func (h *harness) subscription(s broker.Target, d broker.Def) broker.Target {
	h.Helper()
	d.Kind, d.Source = broker.SubscriptionTarget, s
	return h.define(d, "sub")
}

// upTo settles up to an offset of the first partition, and compares how many that were.
func (h *harness) upTo(sub broker.Target, o uint64, want int) {
	h.Helper()
	r := h.must(func(b *broker.Batch) { b.SettleUpTo(sub, broker.Offset{Offset: o}, broker.ReasonAcked) })
	if r.Count != want {
		h.Fatalf("settled %d up to offset %d, want %d", r.Count, o, want)
	}
}

// seek moves a subscription in its first partition.
func (h *harness) seek(sub broker.Target, o uint64) {
	h.Helper()
	h.must(func(b *broker.Batch) { b.Seek(sub, broker.Offset{Offset: o}) })
}

// stands compares where a subscription is in its first partition.
func (h *harness) stands(sub broker.Target, first, next uint64) {
	h.Helper()
	if p := h.info(sub).Partitions[0]; p.First != first || p.Next != next {
		h.Fatalf("settled before %d, next is %d; want %d and %d", p.First, p.Next, first, next)
	}
}

// balanced fails unless the books of a subscription balance, with so many in
// and out for a reason.
func (h *harness) balanced(sub broker.Target, in uint64, why broker.Reason, out uint64) {
	h.Helper()
	i := h.info(sub)
	if i.Difference() != 0 || i.In != in || i.Out[why] != out {
		h.Fatalf("in %d, out %v, difference %d; want in %d, %s %d", i.In, i.Out, i.Difference(), in, why, out)
	}
}

var subscriptionTests = []test{
	{"a subscription hands out what its stream has, and takes nothing from it", func(h *harness) {
		s := h.stream(broker.Def{})
		h.append(s, 0, "a", "b", "c")
		sub := h.subscribe(s)
		got := h.receive(sub, 2, time.Minute)
		h.same(got, "a", "b")
		if d := got[1]; d.Attempt != 1 || d.Offset != 1 || d.Partition != 0 || d.Target != sub || d.Queued == 0 || d.Until != time.Now().Add(time.Minute).UnixMilli() {
			h.Fatalf("delivered %+v at offset %d until %d, queued %d", d.Ref, d.Offset, d.Until, d.Queued)
		}
		h.counts(sub, "ready 1 delayed 0 leased 2 held 0 dead 0")
		h.ack(got[1])
		h.stands(sub, 0, 2)
		h.ack(got[0])
		h.stands(sub, 2, 2)
		h.fails(h.settle(got[0], broker.ReasonAcked), broker.ErrGone)
		h.balanced(sub, 3, broker.ReasonAcked, 2)
		h.expect(sub, "c")
		h.same(h.read(s, broker.Pos{}, 10), "a", "b", "c")
	}},
	{"a subscription begins where it is told", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		h.append(s, 0, "a", "b")
		h.append(s, 1, "c", "d")
		sub := h.subscribe(s, broker.Offset{Partition: 1, Offset: 2}, broker.Offset{Offset: 1})
		h.append(s, 1, "e")
		got := h.receive(sub, 10, time.Minute)
		slices.SortFunc(got, func(a, b broker.Delivery) int { return strings.Compare(string(a.Payload), string(b.Payload)) })
		h.same(got, "b", "e")
		again := h.subscribe(s) // only a new one begins somewhere
		h.counts(again, "ready 0 delayed 0 leased 2 held 0 dead 0")
	}},
	{"subscriptions of a stream do not disturb each other", func(h *harness) {
		s := h.stream(broker.Def{})
		one, two := h.subscription(s, broker.Def{Name: "one"}), h.subscription(s, broker.Def{Name: "two"})
		h.append(s, 0, "a")
		h.ack(h.expect(one, "a")...)
		h.expect(two, "a")
	}},
	{"consumers of a subscription compete, and a wait is woken by a publish", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		first, second := h.wait(sub, 1, time.Minute, time.Hour), h.wait(sub, 1, time.Minute, time.Hour)
		h.append(s, 0, "a")
		h.same(h.outcome(first), "a")
		h.pending(second)
		h.append(s, 0, "b")
		h.same(h.outcome(second), "b")
	}},
	{"a lease that ends, or is given back, is handed out again in order", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c", "d")
		got := h.receive(sub, 3, time.Minute)
		h.nack(got[1], 0)
		h.must(func(b *broker.Batch) { b.Defer(got[2].Ref, time.Now().Add(time.Hour), false) })
		h.sleep(time.Minute + time.Second)
		again := h.receive(sub, 10, time.Minute)
		h.same(again, "a", "b", "d")
		if again[0].Attempt != 2 || again[2].Attempt != 1 {
			h.Fatalf("attempts are %d and %d, want 2 and 1", again[0].Attempt, again[2].Attempt)
		}
		h.fails(h.settle(got[0], broker.ReasonAcked), broker.ErrStale)
		h.must(func(b *broker.Batch) { b.Return(again[0].Ref) })
		if d := h.expect(sub, "a"); d[0].Attempt != 2 {
			h.Fatalf("attempt after a return is %d, want 2", d[0].Attempt)
		}
		h.ack(got[2])
	}},
	{"a delay keeps the place", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b")
		h.nack(h.receive(sub, 1, time.Minute)[0], time.Minute)
		h.counts(sub, "ready 1 delayed 1 leased 0 held 0 dead 0")
		h.sleep(61 * time.Second)
		h.expect(sub, "a", "b")
	}},
	{"everything up to an offset is settled at once", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c", "d", "e", "f")
		got := h.receive(sub, 3, time.Minute)
		h.ack(got[1])
		h.nack(got[0], time.Hour)
		h.upTo(sub, 4, 4)
		h.upTo(sub, 4, 0)
		h.upTo(sub, 2, 0)
		h.stands(sub, 5, 5)
		h.fails(h.settle(got[2], broker.ReasonAcked), broker.ErrGone)
		h.balanced(sub, 6, broker.ReasonAcked, 5)
		h.expect(sub, "f")
		r := h.submit(func(b *broker.Batch) { b.SettleUpTo(sub, broker.Offset{Offset: 6}, broker.ReasonAcked) })
		h.fails(r.Err, broker.ErrNotFound)
		r = h.submit(func(b *broker.Batch) { b.SettleUpTo(sub, broker.Offset{Partition: 1}, broker.ReasonAcked) })
		h.fails(r.Err, broker.ErrNotFound)
	}},
	{"a message is settled by its offset", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c", "d")
		at := func(o uint64) error {
			return h.submit(func(b *broker.Batch) { b.SettleAt(sub, broker.Offset{Offset: o}, broker.ReasonAcked) }).Err
		}
		h.receive(sub, 1, time.Minute)
		h.fails(at(0), nil)
		h.fails(at(2), nil)
		h.fails(at(2), broker.ErrGone)
		h.fails(at(4), broker.ErrNotFound)
		h.expect(sub, "b", "d")
		h.balanced(sub, 4, broker.ReasonAcked, 2)
	}},
	{"a subscription is moved back and forth", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c", "d")
		got := h.receive(sub, 2, time.Minute)
		h.ack(got[0])
		h.seek(sub, 0)
		h.counts(sub, "ready 4 delayed 0 leased 0 held 0 dead 0")
		h.fails(h.settle(got[0], broker.ReasonAcked), broker.ErrStale)
		again := h.receive(sub, 2, time.Minute)
		h.same(again, "a", "b")
		h.fails(h.settle(got[1], broker.ReasonAcked), broker.ErrStale) // although the attempt is the same
		h.seek(sub, 4)
		h.fails(h.settle(again[0], broker.ReasonAcked), broker.ErrGone)
		h.counts(sub, "ready 0 delayed 0 leased 0 held 0 dead 0")
		w := h.wait(sub, 1, time.Minute, time.Hour)
		h.seek(sub, 3)
		h.same(h.outcome(w), "d")
		h.fails(h.submit(func(b *broker.Batch) { b.Seek(sub, broker.Offset{Offset: 5}) }).Err, broker.ErrNotFound)
		if i := h.info(sub); i.Difference() != 0 {
			h.Fatalf("in %d, out %v, difference %d", i.In, i.Out, i.Difference())
		}
	}},
	{"partitions take turns", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 3})
		sub := h.subscribe(s)
		for p := range uint32(3) {
			h.append(s, p, "a", "b")
		}
		var seen [3]int
		for i := range 6 {
			d := h.receive(sub, 1, time.Minute)[0]
			if d.Offset != uint64(i/3) {
				h.Fatalf("delivery %d is offset %d of partition %d", i, d.Offset, d.Partition)
			}
			seen[d.Partition]++
		}
		if seen != [3]int{2, 2, 2} {
			h.Fatalf("partitions gave %v", seen)
		}
		h.stream(broker.Def{Partitions: 4})
		h.append(s, 3, "new")
		h.expect(sub, "new")
	}},
	{"a delayed message comes when it is due, without an attempt before", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		m := h.message("late")
		m.NotBefore = time.Now().Add(time.Minute).UnixMilli()
		w := h.wait(sub, 1, time.Hour, time.Hour)
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: s}) })
		h.pending(w)
		h.counts(sub, "ready 0 delayed 1 leased 0 held 0 dead 0")
		h.append(s, 0, "now")
		h.same(h.outcome(w), "now")
		w = h.wait(sub, 1, time.Hour, time.Hour)
		h.sleep(61 * time.Second)
		if d := h.outcome(w); string(d[0].Payload) != "late" || d[0].Attempt != 1 {
			h.Fatalf("got %s, attempt %d", bodies(d), d[0].Attempt)
		}
	}},
	{"a message that expired is not delivered, and counted", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		m := h.message("short")
		m.Expires = time.Now().Add(time.Minute).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: s}) })
		h.append(s, 0, "long")
		d := h.receive(sub, 1, time.Second)
		h.same(d, "short")
		h.sleep(2 * time.Minute)
		h.expect(sub, "long")
		h.balanced(sub, 2, broker.ReasonExpired, 1)
		if told := h.droppedSince(); told != "[expired 1]" {
			h.Fatalf("told %s", told)
		}
	}},
}

var subscriptionLimitTests = []test{
	{"the last attempt is the broker's, which may keep the message dead", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscription(s, broker.Def{LapseAt: 2, DeadRetention: time.Hour})
		h.append(s, 0, "a", "b")
		h.ack(h.receive(sub, 2, time.Second)[1])
		h.sleep(2 * time.Second)
		h.same(h.receive(sub, 2, time.Second), "a")
		h.sleep(2 * time.Second)
		l := h.told()
		if len(l) != 1 || l[0].target != sub || l[0].why != broker.ReasonAttempts || l[0].d.Offset != 0 || string(l[0].d.Payload) != "a" {
			h.Fatalf("told %+v", l)
		}
		h.must(func(b *broker.Batch) { b.Park(l[0].d.Ref, broker.ReasonAttempts) })
		h.counts(sub, "ready 0 delayed 0 leased 0 held 0 dead 1")
		dead := h.read(sub, broker.Pos{States: broker.Dead}, 10)
		h.same(dead, "a")
		h.sleep(2 * time.Hour)
		h.balanced(sub, 2, broker.ReasonRetention, 1)
	}},
	{"a subscription holds to its limit in flight, and to a pause", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscription(s, broker.Def{MaxInFlight: 2})
		h.append(s, 0, "a", "b", "c")
		got := h.expect(sub, "a", "b")
		w := h.wait(sub, 1, time.Minute, time.Hour)
		h.pending(w)
		h.ack(got[0])
		h.same(h.outcome(w), "c")
		h.subscription(s, broker.Def{Paused: true})
		h.append(s, 0, "d")
		h.expect(sub)
		h.subscription(s, broker.Def{})
		h.expect(sub, "d")
	}},
	{"an answer that is large enough leaves the rest, without an attempt", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		sub := h.subscribe(s)
		for i := range 6 {
			h.append(s, uint32(i%2), fmt.Sprint(i, strings.Repeat("x", 999)))
		}
		n := 0
		for n < 6 {
			w := &broker.Wait{Target: sub, Max: 10, MaxBytes: 2500, Lease: time.Minute, Sink: make(sink, 1)}
			h.store.Receive(w)
			got := h.outcome(w)
			if len(got) == 0 || len(got) > 2 {
				h.Fatalf("got %d messages of 1,000 bytes within 2,500", len(got))
			}
			for _, d := range got {
				if d.Attempt != 1 {
					h.Fatalf("attempt of %d:%d is %d, want 1", d.Partition, d.Offset, d.Attempt)
				}
			}
			n += len(got)
		}
		h.counts(sub, "ready 0 delayed 0 leased 6 held 0 dead 0")
	}},
	{"what is received without a lease is settled", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b")
		w := &broker.Wait{Target: sub, Max: 1, Consume: true, Sink: make(sink, 1)}
		h.store.Receive(w)
		h.same(h.outcome(w), "a")
		h.balanced(sub, 2, broker.ReasonAcked, 1)
		d := h.receive(sub, 1, 0)
		h.same(d, "b")
		if d = h.expect(sub, "b"); d[0].Attempt != 2 {
			h.Fatalf("attempt after a lease of no length is %d, want 2", d[0].Attempt)
		}
	}},
	{"a subscription is browsed", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c", "d", "e")
		got := h.receive(sub, 3, time.Minute)
		h.ack(got[1])
		h.nack(got[2], 0)
		h.same(h.read(sub, broker.Pos{States: broker.Leased}, 10), "a")
		h.same(h.read(sub, broker.Pos{States: broker.Ready}, 10), "c", "d", "e")
		h.same(h.read(sub, broker.Pos{States: broker.Ready | broker.Leased, Skip: 2}, 2), "d", "e")
		ref, err := h.store.Find(context.Background(), sub, got[0].ID)
		if err != nil || ref != got[0].Ref {
			h.Fatalf("found %+v, %v; want %+v", ref, err, got[0].Ref)
		}
	}},
	{"nothing is published to a subscription, and it is not purged", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.fails(h.submit(func(b *broker.Batch) { b.Publish(h.message("a"), broker.Route{Target: sub}) }).Err, broker.ErrNotFound)
		h.fails(h.submit(func(b *broker.Batch) { b.Purge(sub, true) }).Err, broker.ErrNotFound)
		q := h.queue(broker.Def{})
		h.fails(h.submit(func(b *broker.Batch) { b.Seek(q, broker.Offset{}) }).Err, broker.ErrNotFound)
		_, err := h.store.Define(context.Background(), broker.Def{Name: "x", Kind: broker.SubscriptionTarget, Source: q})
		h.fails(err, broker.ErrNotFound)
		other := h.stream(broker.Def{Name: "other"})
		_, err = h.store.Define(context.Background(), broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: other})
		h.fails(err, broker.ErrConflict)
	}},
	{"a dropped stream takes its subscriptions along", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscribe(s)
		h.append(s, 0, "a")
		d := h.expect(sub, "a")[0]
		w := h.wait(sub, 1, time.Minute, time.Hour)
		h.fails(h.store.Drop(context.Background(), s), nil)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrGone)
		h.fails(h.settle(d, broker.ReasonAcked), broker.ErrGone)
		s = h.stream(broker.Def{})
		if again := h.subscribe(s); again == sub {
			h.Fatal("the handle of a dropped subscription came back")
		}
	}},
}

var subscriptionKeepTests = []test{
	{"retention moves a subscription forward, counted and told", func(h *harness) {
		s := h.stream(broker.Def{Retention: time.Hour})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c")
		got := h.receive(sub, 2, 3*time.Hour)
		h.ack(got[0])
		h.sleep(2 * time.Hour)
		h.append(s, 0, "d")
		h.fails(h.settle(got[1], broker.ReasonAcked), broker.ErrGone)
		h.balanced(sub, 4, broker.ReasonRetention, 2)
		h.stands(sub, 3, 3)
		if told := h.droppedSince(); told != "[retention 2]" && told != "[retention 1 retention 1]" {
			h.Fatalf("told %s", told)
		}
		h.expect(sub, "d")
	}},
	kept("where a subscription stands survives", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		sub := h.subscription(s, broker.Def{LapseAt: 9, Start: []broker.Offset{{Offset: 1}}})
		h.append(s, 0, "a", "b", "c", "d", "e", "f")
		h.append(s, 1, "g")
		var got []broker.Delivery
		for _, d := range h.receive(sub, 10, time.Hour) {
			if d.Partition == 0 {
				got = append(got, d)
			}
		}
		h.same(got, "b", "c", "d", "e", "f")
		h.ack(got[1])
		h.nack(got[0], 0)
		h.nack(got[4], time.Minute)
		h.reopen()
		h.counts(sub, "ready 1 delayed 1 leased 3 held 0 dead 0")
		h.stands(sub, 1, 6)
		h.ack(got[2]) // a receipt of an earlier start
		d := h.expect(sub, "b")
		if d[0].Attempt != 2 {
			h.Fatalf("attempt is %d, want 2", d[0].Attempt)
		}
		h.upTo(sub, 4, 2) // b and e, which is leased
		h.reopen()
		h.stands(sub, 5, 6)
		h.balanced(sub, 6, broker.ReasonAcked, 4)
		h.seek(sub, 2)
		h.reopen()
		h.fails(h.settle(got[3], broker.ReasonAcked), broker.ErrStale) // from before the seek
		h.expect(sub, "c", "d", "e", "f")
	}),
	kept("a message given back for later, or dead, is so after a start", func(h *harness) {
		s := h.stream(broker.Def{})
		sub := h.subscription(s, broker.Def{LapseAt: 1})
		h.append(s, 0, "a", "b")
		h.nack(h.receive(sub, 1, time.Minute)[0], 0)
		h.reopen()
		l := h.told()
		if len(l) != 1 || string(l[0].d.Payload) != "a" {
			h.Fatalf("told %d after reopening, want 1", len(l))
		}
		h.must(func(b *broker.Batch) { b.Park(l[0].d.Ref, broker.ReasonAttempts) })
		h.reopen()
		h.counts(sub, "ready 1 delayed 0 leased 0 held 0 dead 1")
	}),
	kept("a subscription that retention moved stands there after a start", func(h *harness) {
		s := h.stream(broker.Def{Retention: time.Hour})
		sub := h.subscribe(s)
		h.append(s, 0, "a", "b", "c")
		h.ack(h.receive(sub, 2, 3*time.Hour)[1])
		h.sleep(3 * time.Hour)
		h.append(s, 0, "d")
		h.balanced(sub, 4, broker.ReasonRetention, 2)
		h.reopen()
		h.balanced(sub, 4, broker.ReasonRetention, 2)
		if told := h.droppedSince(); told != "[]" {
			h.Fatalf("told %s once more", told)
		}
		h.expect(sub, "d")
	}),
	kept("a dropped stream is gone with its subscriptions after a start", func(h *harness) {
		s := h.stream(broker.Def{})
		h.subscribe(s)
		h.fails(h.store.Drop(context.Background(), s), nil)
		h.reopen()
		ds, err := h.store.Definitions(context.Background())
		if err != nil || len(ds) != 0 {
			h.Fatalf("%d definitions, error %v", len(ds), err)
		}
	}),
}
