package storetest

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"millrace/broker"
)

var waitTests = []test{
	{"a wait is woken by the commit that makes a message ready", func(h *harness) {
		q := h.queue(broker.Def{})
		w := h.wait(q, 10, time.Minute, time.Hour)
		h.pending(w)
		h.publish(q, "a")
		h.same(h.outcome(w), "a")
	}},
	{"a wait that gets nothing ends at its time, not before", func(h *harness) {
		q := h.queue(broker.Def{})
		begin := time.Now()
		w := h.wait(q, 1, time.Minute, 10*time.Second)
		h.same(h.outcome(w))
		if took := time.Since(begin); took < 10*time.Second || took > 10*time.Second+h.grace() {
			h.Fatalf("wait took %v, want 10s", took)
		}
	}},
	{"waits are served in the order in which they came", func(h *harness) {
		q := h.queue(broker.Def{})
		var ws []*broker.Wait
		for range 3 {
			ws = append(ws, h.wait(q, 1, time.Minute, time.Hour))
		}
		h.publish(q, "a", "b", "c")
		for i, want := range []string{"a", "b", "c"} {
			h.same(h.outcome(ws[i]), want)
		}
	}},
	{"a wait that was cancelled took nothing", func(h *harness) {
		q := h.queue(broker.Def{})
		first, second := h.wait(q, 1, time.Minute, time.Hour), h.wait(q, 1, time.Minute, time.Hour)
		h.same(h.cancel(first))
		if h.store.Cancel(first) {
			h.Fatal("second cancel reports true")
		}
		h.publish(q, "a")
		if d := h.outcome(second); string(d[0].Payload) != "a" || d[0].Attempt != 1 {
			h.Fatalf("the other wait got %s at attempt %d, want a at 1", d[0].Payload, d[0].Attempt)
		}
		if h.store.Cancel(second) {
			h.Fatal("cancel of a wait that was served reports true")
		}
		h.pending(first)
	}},
	{"a wait is woken by a lease that ends", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a")
		h.receive(q, 1, 10*time.Second)
		begin := time.Now()
		w := h.wait(q, 1, time.Minute, time.Hour)
		d := h.outcome(w)
		if took := time.Since(begin); took < 9*time.Second || took > 11*time.Second || d[0].Attempt != 2 {
			h.Fatalf("woken after %v with attempt %d, want 10s and 2", took, d[0].Attempt)
		}
	}},
	{"a wait is woken by a delay that ends and by a nack", func(h *harness) {
		q := h.queue(broker.Def{})
		m := h.message("a")
		m.NotBefore = time.Now().Add(time.Minute).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
		d := h.outcome(h.wait(q, 1, time.Hour, time.Hour))
		if time.Now().UnixMilli() < m.NotBefore {
			h.Fatal("delivered before its time")
		}
		w := h.wait(q, 1, time.Hour, time.Hour)
		h.pending(w)
		h.nack(d[0], 0)
		h.same(h.outcome(w), "a")
	}},
	{"one wait takes as many as are there, up to its limits", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b", "c", "d", "e")
		h.same(h.receive(q, 2, time.Minute), "a", "b")
		w := &broker.Wait{Target: q, Max: 10, MaxBytes: 1, Lease: time.Minute, Sink: make(sink, 1)}
		h.store.Receive(w)
		h.same(h.outcome(w), "c")
		w.MaxBytes = 1 << 20
		h.store.Receive(w)
		h.same(h.outcome(w), "d", "e")
	}},
	{"the lease runs from the delivery", func(h *harness) {
		q := h.queue(broker.Def{})
		w := h.wait(q, 1, time.Minute, time.Hour)
		h.sleep(10 * time.Minute)
		h.publish(q, "a")
		d := h.outcome(w)
		if want := time.Now().Add(time.Minute).UnixMilli(); d[0].Until < want-1000 || d[0].Until > want+1000 {
			h.Fatalf("lease ends at %d, want %d", d[0].Until, want)
		}
	}},
	{"a wait that consumes removes what it gets", func(h *harness) {
		q := h.queue(broker.Def{})
		take := func(until time.Duration) *broker.Wait {
			w := &broker.Wait{Target: q, Max: 2, Consume: true, Until: time.Now().Add(until), Sink: make(sink, 1)}
			h.store.Receive(w)
			return w
		}
		h.publish(q, "a", "b", "c")
		h.same(h.outcome(take(0)), "a", "b")
		h.same(h.outcome(take(0)), "c")
		w := take(time.Hour)
		h.pending(w)
		h.publish(q, "d")
		h.same(h.outcome(w), "d")
		if h.keeps() {
			h.reopen()
		}
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
		if in := h.info(q); in.Out[broker.ReasonAcked] != 4 {
			h.Fatalf("acked %d, want 4", in.Out[broker.ReasonAcked])
		}
	}},
	{"a wait on a target that is dropped ends as gone", func(h *harness) {
		q := h.queue(broker.Def{})
		w := h.wait(q, 1, time.Minute, time.Hour)
		h.pending(w)
		if err := h.store.Drop(context.Background(), q); err != nil {
			h.Fatal(err)
		}
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrGone)
		h.store.Receive(w)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrGone)
	}},
	{"closing ends every wait", func(h *harness) {
		q := h.queue(broker.Def{})
		w := h.wait(q, 1, time.Minute, time.Hour)
		h.pending(w)
		if err := h.store.Close(context.Background()); err != nil {
			h.Fatal(err)
		}
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrClosed)
		h.fails(h.submit(func(b *broker.Batch) { b.Purge(q, true) }).Err, broker.ErrClosed)
		h.store.Receive(w)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrClosed)
		h.open()
	}},
	{"a sink may ask again from within its delivery", func(h *harness) {
		q := h.queue(broker.Def{})
		b := &broker.Batch{}
		const n = 20000
		for i := range n {
			b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: q})
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		a := &again{store: h.store, want: n, end: make(chan struct{})}
		h.store.Receive(&broker.Wait{Target: q, Max: 1, Lease: time.Hour, Until: time.Now().Add(time.Minute), Sink: a})
		<-a.end
		h.counts(q, fmt.Sprintf("ready 0 delayed 0 leased %d held 0 dead 0", n))
	}},
	{"a wait that is asked for while its sink has it is delivered after that", func(h *harness) {
		q := h.queue(broker.Def{})
		h.publish(q, "a", "b")
		s := &slowSink{entered: make(chan string), leave: make(chan struct{})}
		w := &broker.Wait{Target: q, Max: 1, Lease: time.Minute, Until: h.store.Now().Add(time.Minute), Sink: s}
		go h.store.Receive(w) // a store may deliver at once
		if first := <-s.entered; first != "a" {
			h.Fatalf("got %s first", first)
		}
		h.store.Receive(w)
		h.quiet()
		select {
		case body := <-s.entered:
			h.Fatalf("%s comes while the sink has a", body)
		default:
		}
		if body := bodies(w.Got); body != "[a]" {
			h.Fatalf("the sink has %s, and not [a] any more", body)
		}
		s.leave <- struct{}{}
		if second := <-s.entered; second != "b" {
			h.Fatalf("got %s then", second)
		}
		s.leave <- struct{}{}
	}},
	{"everybody who waits gets one message each", func(h *harness) {
		q := h.queue(broker.Def{})
		var ws []*broker.Wait
		for range 100 {
			ws = append(ws, h.wait(q, 1, time.Minute, time.Hour))
		}
		b := &broker.Batch{}
		for i := range 100 {
			b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: q})
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		for i, w := range ws {
			h.same(h.outcome(w), fmt.Sprint(i))
		}
	}},
	{"a wait that cannot be cancelled is delivered", func(h *harness) {
		st := h.stream(broker.Def{})
		for _, to := range [][2]broker.Target{
			{h.queue(broker.Def{}), 0},
			{h.define(broker.Def{Kind: broker.SessionTarget}, "s"), 0},
			{h.define(broker.Def{Kind: broker.SubscriptionTarget, Source: st}, "b"), st},
		} {
			for round := range 30 {
				a := &askOnce{store: h.store, asked: make(chan struct{})}
				w := &broker.Wait{Target: to[0], Max: 1, Consume: true, Until: time.Now().Add(time.Hour), Sink: a}
				h.store.Receive(w)
				h.publish(cmp.Or(to[1], to[0]), fmt.Sprint(round))
				<-a.asked
				for range round { // it is on its way into the line
					runtime.Gosched()
				}
				cancelled := h.store.Cancel(w)
				if !h.becomes(func() bool { return cancelled == (a.deliveries.Load() == 1) }) || h.store.Cancel(w) {
					h.Fatalf("target %d, round %d: withdrawn: %v, delivered %d times", to[0], round, cancelled, a.deliveries.Load())
				}
			}
		}
	}},
	{"what a wait did not get before it was cancelled is not on its way to it", func(h *harness) {
		t := h.define(broker.Def{Kind: broker.SessionTarget}, "s")
		for round := range 100 {
			w := h.wait(t, 64, time.Hour, time.Hour)
			published := make(chan error, 1)
			go func() {
				published <- h.submit(func(b *broker.Batch) { b.Publish(h.message("a"), broker.Route{Target: t}) }).Err
			}()
			for range round * 20 {
				runtime.Gosched()
			}
			got := h.cancel(w)
			if in := h.info(t); in.Leased != int64(len(got)) {
				h.Fatalf("round %d: the wait got %s, and %d are leased", round, bodies(got), in.Leased)
			}
			if err := <-published; err != nil {
				h.Fatal(err)
			}
			if len(got) == 0 {
				got = h.receive(t, 1, time.Hour)
			}
			h.ack(got...)
		}
	}},
	{"a cancel that comes during a delivery takes nothing from it", func(h *harness) {
		q := h.queue(broker.Def{})
		s := &regret{store: h.store, done: make(chan bool, 1)}
		w := &broker.Wait{Target: q, Max: 1, Lease: time.Minute, Until: time.Now().Add(time.Hour), Sink: s}
		h.store.Receive(w)
		h.publish(q, "a")
		if <-s.done {
			h.Error("cancel of a wait that is delivered reports true")
		}
		h.same(w.Got, "a")
		h.expect(q)
		h.counts(q, "ready 0 delayed 0 leased 1 held 0 dead 0")
		h.ack(w.Got[0])
		h.counts(q, "ready 0 delayed 0 leased 0 held 0 dead 0")
	}},
}

// regret is a sink that cancels what it is given.
type regret struct {
	store broker.Store
	done  chan bool
}

func (r *regret) Deliver(w *broker.Wait) { r.done <- r.store.Cancel(w) }

// askOnce is a sink that asks for another after its first delivery.
type askOnce struct {
	store      broker.Store
	asked      chan struct{}
	deliveries atomic.Int32
}

func (a *askOnce) Deliver(w *broker.Wait) {
	if a.deliveries.Add(1) == 1 {
		a.store.Receive(w)
		close(a.asked)
	}
}

// again is a sink that asks for the next message until it has all.
type again struct {
	store broker.Store
	got   int
	want  int
	end   chan struct{}
}

func (a *again) Deliver(w *broker.Wait) {
	if a.got += len(w.Got); a.got >= a.want || w.Err != nil {
		close(a.end)
		return
	}
	a.store.Receive(w)
}

// slowSink keeps what it gets until it is told to leave.
type slowSink struct {
	entered chan string
	leave   chan struct{}
}

func (s *slowSink) Deliver(w *broker.Wait) {
	body := "nothing"
	if len(w.Got) > 0 {
		body = string(w.Got[0].Payload)
	}
	s.entered <- body
	<-s.leave
}
