package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"millrace/broker"
)

// ask registers a wait on a stream without waiting for it.
func (h *harness) ask(s broker.Target, from broker.Pos, limit int, until time.Duration) *broker.Wait {
	w := &broker.Wait{Target: s, From: from, Max: limit, Sink: make(sink, 1)}
	if until > 0 {
		w.Until = time.Now().Add(until)
	}
	h.store.Receive(w)
	return w
}

// goesOn compares where a wait says that the reader goes on.
func (h *harness) goesOn(w *broker.Wait, partition uint32, seq uint64) {
	h.Helper()
	if want := (broker.Pos{Partition: partition, Seq: seq}); w.From != want {
		h.Fatalf("the wait goes on at %+v, want %+v", w.From, want)
	}
}

// append publishes one message for each body to a partition.
func (h *harness) append(s broker.Target, partition uint32, bodies ...string) {
	h.Helper()
	for _, body := range bodies {
		h.must(func(b *broker.Batch) { b.Publish(h.message(body), broker.Route{Target: s, Partition: partition}) })
	}
}

var streamWaitTests = []test{
	{"a wait on a stream takes what is there, and tells where to go on", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		h.append(s, 1, "a", "b", "c")
		w := h.ask(s, broker.Pos{Partition: 1, Begin: true}, 2, time.Hour)
		got := h.outcome(w)
		h.same(got, "a", "b")
		if got[1].Seq != 1 || got[1].Partition != 1 || got[1].Target != s || got[1].Queued == 0 {
			h.Fatalf("got %+v of partition %d, want offset 1 of partition 1", got[1].Ref, got[1].Partition)
		}
		h.goesOn(w, 1, 2)
		if b := w.Bounds; b.First != 0 || b.Next != 3 {
			h.Fatalf("bounds are %+v, want 0 to 3", b)
		}
		h.store.Receive(w)
		h.same(h.outcome(w), "c")
		h.goesOn(w, 1, 3)
	}},
	{"a wait behind the end is woken by the commit that reaches it", func(h *harness) {
		s := h.stream(broker.Def{})
		h.append(s, 0, "a")
		latest := h.ask(s, broker.Pos{End: true}, 10, time.Hour)
		third := h.ask(s, broker.Pos{Seq: 2}, 10, time.Hour)
		h.append(s, 0, "b")
		h.same(h.outcome(latest), "b")
		h.pending(third)
		h.append(s, 0, "c")
		h.same(h.outcome(third), "c")
		h.goesOn(third, 0, 3)
	}},
	{"one commit serves everybody who reads", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		var ws []*broker.Wait
		for range 10 {
			ws = append(ws, h.ask(s, broker.Pos{End: true}, 10, time.Hour))
		}
		other := h.ask(s, broker.Pos{Partition: 1}, 10, time.Hour)
		h.append(s, 0, "a")
		for _, w := range ws {
			h.same(h.outcome(w), "a")
		}
		h.pending(other)
	}},
	{"a wait on a stream that gets nothing ends at its time and tells where it stood", func(h *harness) {
		s := h.stream(broker.Def{})
		h.append(s, 0, "a")
		begin := time.Now()
		w := h.ask(s, broker.Pos{End: true}, 1, 10*time.Second)
		h.same(h.outcome(w))
		h.goesOn(w, 0, 1)
		if took := time.Since(begin); took < 10*time.Second || took > 10*time.Second+h.grace() {
			h.Fatalf("wait took %v, want 10s", took)
		}
		w = h.ask(s, broker.Pos{Seq: 7}, 1, 0)
		h.same(h.outcome(w))
		h.goesOn(w, 0, 7)
	}},
	{"a wait for a time to come lets earlier messages pass", func(h *harness) {
		s := h.stream(broker.Def{})
		h.append(s, 0, "a")
		w := h.ask(s, broker.Pos{Time: time.Now().Add(time.Minute)}, 10, time.Hour)
		h.sleep(time.Second)
		h.append(s, 0, "b")
		h.pending(w)
		h.sleep(time.Minute)
		h.append(s, 0, "c")
		h.same(h.outcome(w), "c")
		h.goesOn(w, 0, 3)
	}},
	{"a wait on a stream that was cancelled is not delivered", func(h *harness) {
		s := h.stream(broker.Def{})
		w := h.ask(s, broker.Pos{}, 1, time.Hour)
		h.same(h.cancel(w))
		h.append(s, 0, "a")
		h.pending(w)
		if h.store.Cancel(w) {
			h.Fatal("second cancel reports true")
		}
		h.store.Receive(w)
		h.same(h.outcome(w), "a")
		if h.store.Cancel(w) {
			h.Fatal("cancel of a wait that was served reports true")
		}
	}},
	{"a read takes no more bytes than asked for, but one message", func(h *harness) {
		s := h.stream(broker.Def{})
		h.append(s, 0, "a", "b", "c")
		w := &broker.Wait{Target: s, Max: 10, MaxBytes: 1, Sink: make(sink, 1)}
		h.store.Receive(w)
		h.same(h.outcome(w), "a")
		w.MaxBytes = 1 << 20
		h.store.Receive(w)
		h.same(h.outcome(w), "b", "c")
		long := strings.Repeat("x", 100<<10)
		h.append(s, 0, long, long, long)
		w.MaxBytes = 500 << 10
		h.store.Receive(w)
		// Two fit, and a read may end before: where a file does, say.
		if got := h.outcome(w); len(got) == 0 || len(got) > 2 {
			h.Fatalf("%d messages of 100 KiB , and their topics, within 500 KiB", len(got))
		}
	}},
	{"waits on a stream that is dropped or closed end", func(h *harness) {
		s, other := h.stream(broker.Def{}), h.stream(broker.Def{Name: "other"})
		w := h.ask(s, broker.Pos{}, 1, time.Hour)
		if err := h.store.Drop(context.Background(), s); err != nil {
			h.Fatal(err)
		}
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrGone)
		if _, ok := errors.AsType[*broker.RangeError](w.Err); ok {
			h.Fatal("a dropped stream is told as an offset out of range")
		}
		h.store.Receive(w)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrGone)
		w = h.ask(other, broker.Pos{Partition: 1}, 1, time.Hour)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrNotFound)
		w = h.ask(other, broker.Pos{}, 1, time.Hour)
		if err := h.store.Close(context.Background()); err != nil {
			h.Fatal(err)
		}
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrClosed)
		h.open()
	}},
	{"one Wait may ask a queue, then a stream, then the queue again", func(h *harness) {
		q, s := h.queue(broker.Def{}), h.stream(broker.Def{})
		w := &broker.Wait{Target: q, Max: 10, Lease: time.Minute, Sink: make(sink, 1)}
		for i := range 3 {
			h.publish(q, fmt.Sprint("q", i))
			h.append(s, 0, fmt.Sprint("s", i))
			w.Target = q
			h.store.Receive(w)
			h.same(h.outcome(w), fmt.Sprint("q", i))
			w.Target = s
			h.store.Receive(w)
			h.same(h.outcome(w), fmt.Sprint("s", i))
		}
	}},
	{"a sink reads a stream on from within its delivery", func(h *harness) {
		s := h.stream(broker.Def{})
		const n = 5000
		b := &broker.Batch{}
		for i := range n {
			b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: s})
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		a := &again{store: h.store, want: n, end: make(chan struct{})}
		h.store.Receive(&broker.Wait{Target: s, Max: 1, Until: time.Now().Add(time.Minute), Sink: a})
		<-a.end
	}},
}
