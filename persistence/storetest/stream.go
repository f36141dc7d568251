package storetest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"millrace/broker"
)

var streamTests = []test{
	{"offsets begin at 0 and have no gaps", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		for i := range 6 {
			r := h.must(func(b *broker.Batch) {
				b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: s, Partition: uint32(i % 2)})
			})
			if r.Seq != uint64(i/2) {
				h.Fatalf("offset is %d, want %d", r.Seq, i/2)
			}
		}
		h.same(h.read(s, broker.Pos{}, 10), "0", "2", "4")
		got := h.read(s, broker.Pos{Partition: 1, Seq: 1}, 1)
		h.same(got, "3")
		if got[0].Partition != 1 || got[0].Seq != 1 || got[0].Target != s {
			h.Fatalf("read shows %+v, want offset 1 of partition 1", got[0].Ref)
		}
		in := h.info(s)
		if len(in.Partitions) != 2 || in.Partitions[1].First != 0 || in.Partitions[1].Next != 3 || in.In != 6 {
			h.Fatalf("info is %+v", in)
		}
	}},
	{"a stream is read from a time and from its end", func(h *harness) {
		s := h.stream(broker.Def{})
		var third time.Time
		for i := range 5 {
			if i == 3 {
				third = time.Now()
			}
			h.must(func(b *broker.Batch) { b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: s}) })
			h.sleep(time.Minute)
		}
		h.same(h.read(s, broker.Pos{Time: third}, 10), "3", "4")
		h.same(h.read(s, broker.Pos{Time: third.Add(time.Second)}, 10), "4")
		h.same(h.read(s, broker.Pos{Time: time.Now().Add(time.Hour)}, 10))
		h.same(h.read(s, broker.Pos{End: true}, 10))
		h.same(h.read(s, broker.Pos{Seq: 5}, 10))
	}},
	{"reading removes nothing", func(h *harness) {
		s := h.stream(broker.Def{})
		h.publish(s, "a", "b")
		for range 2 {
			h.same(h.read(s, broker.Pos{}, 10), "a", "b")
		}
	}},
	{"a delayed message is readable in a stream at once", func(h *harness) {
		s := h.stream(broker.Def{})
		m := h.message("a")
		m.NotBefore = time.Now().Add(time.Hour).UnixMilli()
		h.must(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: s}) })
		h.same(h.read(s, broker.Pos{}, 10), "a")
	}},
	{"a partition that is not there is not found", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		_, err := h.store.Read(context.Background(), s, broker.Pos{Partition: 2}, 1, nil)
		h.fails(err, broker.ErrNotFound)
		r := h.submit(func(b *broker.Batch) { b.Publish(h.message("a"), broker.Route{Target: s, Partition: 2}) })
		h.fails(r.Err, broker.ErrNotFound)
	}},
	{"partitions grow and never shrink", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2})
		h.publish(s, "a")
		if again := h.stream(broker.Def{Partitions: 4}); again != s {
			h.Fatal("a stream that grew has another handle")
		}
		h.must(func(b *broker.Batch) { b.Publish(h.message("b"), broker.Route{Target: s, Partition: 3}) })
		h.same(h.read(s, broker.Pos{}, 10), "a")
		_, err := h.store.Define(context.Background(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 3})
		h.fails(err, broker.ErrConflict)
	}},
	{"one publish reaches queues and streams together", func(h *harness) {
		s, a, b := h.stream(broker.Def{}), h.queue(broker.Def{Name: "a"}), h.queue(broker.Def{Name: "b", Volatile: true})
		h.must(func(x *broker.Batch) {
			x.Publish(h.message("m"), broker.Route{Target: s}, broker.Route{Target: a}, broker.Route{Target: b})
		})
		h.same(h.read(s, broker.Pos{}, 10), "m")
		h.expect(a, "m")
		h.expect(b, "m")
	}},
	{"a long partition is read in pieces", func(h *harness) {
		s := h.stream(broker.Def{})
		b := &broker.Batch{}
		for i := range 3000 {
			b.Publish(h.message(fmt.Sprint(i)), broker.Route{Target: s})
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		var got []broker.Delivery
		for at := uint64(0); ; {
			next := h.read(s, broker.Pos{Seq: at}, 700)
			if len(next) == 0 {
				break
			}
			got, at = append(got, next...), next[len(next)-1].Seq+1
		}
		if len(got) != 3000 {
			h.Fatalf("read %d, want 3000", len(got))
		}
		for i, g := range got {
			if string(g.Payload) != fmt.Sprint(i) || g.Seq != uint64(i) {
				h.Fatalf("offset %d is %s at %d", i, g.Payload, g.Seq)
			}
		}
	}},
	{"what is read into a buffer is good until the wait is used again", func(h *harness) {
		s := h.stream(broker.Def{})
		var want []string
		for i := range 50 {
			want = append(want, strings.Repeat(fmt.Sprint(i%10), 1+i*100))
		}
		h.publish(s, want...)
		if h.keeps() {
			h.reopen() // so that it is read from files
		}
		var kept []broker.Delivery
		w := &broker.Wait{Target: s, From: broker.Pos{Begin: true}, Max: 7, Sink: make(sink, 1)}
		lent := &broker.Wait{Target: s, From: broker.Pos{Begin: true}, Max: 7, Sink: make(sink, 1), Buffer: new(broker.Buffer)}
		for n := 0; n < len(want); n = len(kept) {
			h.store.Receive(w)
			kept = append(kept, h.outcome(w)...)
			h.store.Receive(lent)
			h.same(h.outcome(lent), want[n:len(kept)]...)
		}
		h.same(kept, want...)
		if size := lent.Buffer.Size(); size > 1<<20 {
			h.Fatalf("the buffer grew to %d bytes", size)
		}
	}},
}
