package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"millrace/broker"
)

// below reads below the first offset and wants to be told so.
func (h *harness) below(s broker.Target, seq, first uint64) {
	h.Helper()
	_, err := h.store.Read(context.Background(), s, broker.Pos{Seq: seq}, 1, nil)
	h.outOfRange(err, first)
	w := h.ask(s, broker.Pos{Seq: seq}, 1, time.Hour)
	<-w.Sink.(sink)
	h.outOfRange(w.Err, first)
}

func (h *harness) outOfRange(err error, first uint64) {
	h.Helper()
	h.fails(err, broker.ErrGone)
	if r, ok := errors.AsType[*broker.RangeError](err); !ok || r.First != first {
		h.Fatalf("error is %v, want out of range with first offset %d", err, first)
	}
}

// bounds returns what the first partition holds.
func (h *harness) bounds(s broker.Target) broker.PartitionInfo {
	h.Helper()
	return h.info(s).Partitions[0]
}

// within fails unless what is not older than keep is there, and what is older
// by an eighth of that, and a second, is not.
func (h *harness) within(s broker.Target, keep time.Duration) broker.PartitionInfo {
	h.Helper()
	b := h.bounds(s)
	now := time.Now()
	for _, d := range h.read(s, broker.Pos{Begin: true}, 1<<20) {
		if age := now.Sub(broker.Time(d.Queued)); age > keep+keep/8+2*time.Second {
			h.Fatalf("offset %d is there after %v, kept for %v", d.Seq, age, keep)
		}
	}
	return b
}

var streamKeepTests = []test{
	{"entries go when they are too old, and offsets go on", func(h *harness) {
		s := h.stream(broker.Def{Retention: time.Hour})
		h.append(s, 0, "a", "b")
		h.sleep(59 * time.Minute)
		h.append(s, 0, "c")
		h.same(h.read(s, broker.Pos{}, 10), "a", "b", "c")
		h.sleep(10 * time.Minute)
		h.same(h.read(s, broker.Pos{Begin: true}, 10), "c")
		h.same(h.read(s, broker.Pos{Time: time.Now().Add(-2 * time.Hour)}, 10), "c")
		h.below(s, 1, 2)
		in := h.info(s)
		if p := in.Partitions[0]; p.First != 2 || p.Next != 3 || in.In != 3 || in.Out[broker.ReasonRetention] != 2 {
			h.Fatalf("info is %+v", in)
		}
		h.sleep(2 * time.Hour)
		if b := h.bounds(s); b.First != 3 || b.Next != 3 || b.Bytes != 0 {
			h.Fatalf("bounds are %+v, want 3 to 3 and no bytes", b)
		}
		h.append(s, 0, "d")
		got := h.read(s, broker.Pos{Begin: true}, 10)
		h.same(got, "d")
		if got[0].Seq != 3 {
			h.Fatalf("offset is %d, want 3", got[0].Seq)
		}
	}},
	{"a steady stream keeps its time", func(h *harness) {
		s := h.stream(broker.Def{Retention: time.Minute})
		for i := range 300 {
			h.append(s, 0, fmt.Sprint(i))
			h.sleep(time.Second)
			if b := h.within(s, time.Minute); b.Next-b.First < 55 && i > 60 {
				h.Fatalf("%+v: only %d are there after %d", b, b.Next-b.First, i)
			}
		}
	}},
	{"a stream that is too large loses its oldest, of any partition", func(h *harness) {
		s := h.stream(broker.Def{Partitions: 2, MaxBytes: 100 << 10})
		for i := range 1200 {
			h.append(s, uint32(i/300%2), fmt.Sprint(i, " ", strings.Repeat("x", 200)))
		}
		var in broker.Info
		if !h.becomes(func() bool { in = h.info(s); return in.Bytes <= 100<<10 }) || in.Bytes < 20<<10 {
			h.Fatalf("holds %d bytes, want at most %d", in.Bytes, 100<<10)
		}
		var sum int64
		for i, p := range in.Partitions {
			got := h.read(s, broker.Pos{Partition: uint32(i), Begin: true}, 1000)
			if p.First == 0 || uint64(len(got)) != p.Next-p.First || p.Next != 600 {
				h.Fatalf("partition %d is %+v and reads %d", i, p, len(got))
			}
			sum += p.Bytes
		}
		if sum != in.Bytes {
			h.Fatalf("partitions hold %d bytes, the stream %d", sum, in.Bytes)
		}
	}},
	{"changed limits of a stream hold for what is there", func(h *harness) {
		s := h.stream(broker.Def{})
		for i := range 600 {
			h.append(s, 0, fmt.Sprint(i, " ", strings.Repeat("x", 200)))
		}
		h.sleep(2 * time.Hour)
		h.append(s, 0, "new")
		h.stream(broker.Def{MaxBytes: 100 << 10})
		if b := h.bounds(s); b.Bytes > 100<<10 || b.First == 0 {
			h.Fatalf("bounds are %+v after a limit of 100 KiB", b)
		}
		h.stream(broker.Def{Retention: 10 * time.Minute})
		h.bounds(s)
		h.same(h.read(s, broker.Pos{Begin: true}, 10), "new")
	}},
	kept("the first offset does not go back, nor is one used again", func(h *harness) {
		s := h.stream(broker.Def{Retention: time.Hour})
		for round := range uint64(3) {
			h.append(s, 0, "a", "b")
			h.sleep(3 * time.Hour)
			want := broker.PartitionInfo{First: 2 * (round + 1), Next: 2 * (round + 1)}
			for range 2 {
				if b := h.bounds(s); b != want {
					h.Fatalf("bounds are %+v, want %+v", b, want)
				}
				h.reopen()
			}
		}
		h.append(s, 0, "c")
		h.reopen()
		got := h.read(s, broker.Pos{Begin: true}, 10)
		h.same(got, "c")
		if got[0].Seq != 6 {
			h.Fatalf("offset is %d, want 6", got[0].Seq)
		}
		h.below(s, 5, 6)
	}),
	kept("what grew too old while the store was closed goes when it is opened", func(h *harness) {
		s := h.stream(broker.Def{Retention: time.Hour})
		for i := range 400 {
			h.append(s, 0, fmt.Sprint(i))
		}
		h.close()
		h.sleep(2 * time.Hour)
		h.open()
		if b := h.bounds(s); b.First != 400 || b.Next != 400 {
			h.Fatalf("bounds are %+v, want 400 to 400", b)
		}
	}),
}
