package storetest

import (
	"fmt"
	"time"

	"millrace/broker"
)

// A message of these tests has the topic t/BODY.
var selectTests = []test{
	{"a part of a queue is taken in order, and the rest stays for others", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a/1", "b/1", "a/2", "b/2", "a/3")
		got := h.take(q, "t/a/+", 2, time.Minute)
		h.same(got, "a/1", "a/2")
		h.counts(q, "ready 3 delayed 0 leased 2 held 0 dead 0")
		h.same(h.take(q, "t/a/+", 10, time.Minute), "a/3")
		h.same(h.take(q, "t/c/+", 10, time.Minute))
		h.ack(got...)
		h.expect(q, "b/1", "b/2")
	})},
	{"what was there before anybody asked for a part of it is found, also after a reopen", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		h.publishMany(q, "other/", 3000)
		h.publish(q, "mine/1", "other/last", "mine/2")
		if h.keeps() {
			h.reopen()
		}
		h.same(h.take(q, "t/mine/#", 10, time.Minute), "mine/1", "mine/2")
		h.same(h.take(q, "t/other/last", 10, time.Minute), "other/last")
		h.counts(q, "ready 3000 delayed 0 leased 3 held 0 dead 0")
	})},
	{"a wait for a part is woken by what it may take, and by nothing else", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		a, b := h.waitFor(q, "t/a", 10), h.waitFor(q, "t/b", 10)
		h.publish(q, "c")
		h.pending(a)
		h.pending(b)
		h.publish(q, "b")
		h.same(h.outcome(b), "b")
		h.pending(a)
		h.publish(q, "a")
		h.same(h.outcome(a), "a")
		h.expect(q, "c")
	})},
	{"waits are served in the order in which they came, whatever they ask for", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		ws := []*broker.Wait{h.waitFor(q, "t/+", 1), h.waitFor(q, "", 1), h.waitFor(q, "t/a", 1), h.waitFor(q, "t/+", 1), h.waitFor(q, "", 1)}
		h.publish(q, "a", "b")
		h.same(h.outcome(ws[0]), "a")
		h.same(h.outcome(ws[1]), "b")
		h.publish(q, "a", "c", "d")
		for i, want := range []string{"a", "c", "d"} {
			h.same(h.outcome(ws[2+i]), want)
		}
	})},
	{"a part takes back at its place what came back", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a/1", "b", "a/2", "a/3")
		got := h.take(q, "t/a/#", 2, time.Minute)
		h.nack(got[1], 0)
		h.nack(got[0], 0)
		got = h.take(q, "t/a/#", 10, 10*time.Second)
		h.same(got, "a/1", "a/2", "a/3")
		if got[0].Attempt != 2 || got[2].Attempt != 1 {
			h.Fatalf("attempts %d and %d, want 2 and 1", got[0].Attempt, got[2].Attempt)
		}
		w := h.waitFor(q, "t/a/3", 10)
		h.same(h.outcome(w), "a/3") // when its lease ends
		h.same(h.take(q, "t/+", 10, time.Minute), "b")
	})},
	{"what another took whole is not in the part any more", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a/1", "a/2")
		h.same(h.take(q, "t/none", 1, time.Minute)) // from now on topics are known
		h.publish(q, "a/3", "b", "a/4")
		w := h.waitFor(q, "t/none", 1)
		h.same(h.receive(q, 3, time.Minute), "a/1", "a/2", "a/3")
		h.same(h.take(q, "t/a/#", 10, time.Minute), "a/4")
		h.expect(q, "b")
		h.pending(w)
	})},
	{"a delayed message comes to the part when it is due", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		m := h.message("a/late")
		m.NotBefore = time.Now().Add(time.Minute).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		w := h.waitFor(q, "t/a/#", 10)
		h.pending(w)
		h.publish(q, "b")
		h.same(h.outcome(w), "a/late")
	})},
	{"a part keeps one message of a key in flight", selective(func(h *harness) {
		q := h.queue(broker.Def{KeyedFIFO: true})
		for _, body := range []string{"a/1", "b/2", "a/3"} {
			m := h.message(body)
			m.Key = "k"
			h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		}
		first := h.take(q, "t/b/#", 10, time.Minute)
		h.same(first, "b/2")
		h.same(h.take(q, "t/a/#", 10, time.Minute))
		w := h.waitFor(q, "t/a/#", 10)
		h.pending(w)
		h.ack(first...)
		h.same(h.outcome(w), "a/1")
	})},
	{"what expires, is purged or overflows leaves the part", selective(func(h *harness) {
		q := h.queue(broker.Def{MaxMessages: 3, DropOldest: true, TTL: time.Minute})
		h.same(h.take(q, "t/+", 1, time.Minute))
		h.publish(q, "a", "b", "c", "d")
		h.same(h.take(q, "t/+", 1, 0), "b")
		h.must(func(b *broker.Batch) { b.Purge(q, false) })
		h.same(h.take(q, "t/+", 1, time.Minute))
		h.publish(q, "e")
		h.sleep(61 * time.Second)
		h.same(h.take(q, "t/+", 1, time.Minute))
		h.publish(q, "f")
		h.same(h.take(q, "t/+", 1, time.Minute), "f")
	})},
	{"a part that nobody asks for is forgotten, and found again", selective(func(h *harness) {
		q := h.queue(broker.Def{})
		h.publishMany(q, "a/", 2000)
		h.same(h.take(q, "t/a/1999", 1, time.Minute), "a/1999")
		h.sleep(time.Hour)
		h.publish(q, "b")
		h.same(h.take(q, "t/b", 1, time.Minute), "b")
		h.same(h.take(q, "t/a/7", 1, time.Minute), "a/7")
	})},
	{"a part of a stream's subscription is refused", selective(func(h *harness) {
		s := h.stream(broker.Def{Partitions: 1})
		w := h.waitFor(h.define(broker.Def{Kind: broker.SubscriptionTarget, Source: s}, "sub"), "t/#", 1)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrNotSelective)
	})},
}

// selective runs a test in stores that select; others have to refuse.
func selective(run func(h *harness)) func(h *harness) {
	return func(h *harness) {
		if h.store.State().Selective {
			run(h)
			return
		}
		w := h.waitFor(h.queue(broker.Def{}), "t/#", 1)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrNotSelective)
	}
}

// waitFor waits an hour for a part of a queue.
func (h *harness) waitFor(t broker.Target, filter string, limit int) *broker.Wait {
	w := &broker.Wait{Target: t, Filter: filter, Max: limit, Lease: time.Minute, Until: time.Now().Add(time.Hour), Sink: make(sink, 1)}
	h.store.Receive(w)
	return w
}

// publishMany publishes n messages with numbered bodies in one batch.
func (h *harness) publishMany(t broker.Target, prefix string, n int) {
	b := &broker.Batch{}
	for i := range n {
		b.Publish(h.message(fmt.Sprint(prefix, i)), broker.Route{Target: t})
		b.End()
	}
	d := make(done, 1)
	h.store.Submit(b, broker.Durable, d)
	<-d
}
