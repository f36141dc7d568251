package jetstream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
)

// takenOver runs f where a node died that shared its prefix, and left one message in a
// queue, and another one is in its place.
func takenOver(t *testing.T, f func(x *clients, q broker.Target)) {
	t.Helper()
	inBubble(t, func(x *clients) {
		x.end()
		x.o.Shared, x.o.Node = true, "old"
		x.start()
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			x.Fatal(err)
		}
		if err := x.publish("a", q); err != nil {
			x.Fatal(err)
		}
		x.Crash()
		x.o.Node = "new"
		if _, x.o.Over, err = jetstream.Holder(x.Context(), dial(x.T, x.c), &x.o); err != nil {
			x.Fatal(err)
		}
		x.start()
		f(x, q)
	})
}

// has fails the test unless the queue has so many messages, all of them ready.
func (x *clients) has(q broker.Target, want int64) {
	x.Helper()
	in, err := x.Info(x.Context(), q)
	if err != nil || in.Ready != want || in.Leased != 0 || (in.Bytes == 0) != (want == 0) || in.Difference() != 0 {
		x.Errorf("%+v, out by %d, %v; want %d ready", in, in.Difference(), err, want)
	}
}

// late publishes the first message of the only queue once more, as one that was on its
// way.
func (x *clients) late() {
	x.Helper()
	nc := dial(x.T, x.c)
	m, err := request(x.T, nc, &nats.Msg{Subject: "$JS.API.DIRECT.GET.mr_q_1", Data: []byte(`{"seq":1}`)})
	if err != nil || len(m.Data) == 0 {
		x.Fatalf("%v %v", m, err)
	}
	if _, err := request(x.T, nc, &nats.Msg{Subject: "mr.q.1.m", Data: m.Data}); err != nil {
		x.Fatal(err)
	}
}

// TestWhatLandsAfterANodeWasGivenUpIsCounted by the node in its place: a publish, and an
// acknowledgement, that were on their way.
func TestWhatLandsAfterANodeWasGivenUpIsCounted(t *testing.T) {
	takenOver(t, func(x *clients, q broker.Target) {
		x.has(q, 1)
		x.late()
		time.Sleep(time.Second)
		x.has(q, 2)
		time.Sleep(2 * time.Second)
		x.has(q, 2)
		x.ack(take(x.Store, q, 10, time.Minute, time.Second)...)
		x.has(q, 0)

		if err := x.publish("b", q); err != nil {
			x.Fatal(err)
		}
		if _, err := request(x.T, dial(x.T, x.c), &nats.Msg{Subject: "$JS.API.STREAM.PURGE.mr_q_1"}); err != nil { // as an acknowledgement does
			x.Fatal(err)
		}
		time.Sleep(time.Second)
		x.has(q, 1) // the stream may only follow what was acknowledged
		time.Sleep(2 * time.Second)
		x.has(q, 0)
	})
}

// TestWhatLandsWhileNobodyAsksIsCounted when somebody does, however late that is.
func TestWhatLandsWhileNobodyAsksIsCounted(t *testing.T) {
	takenOver(t, func(x *clients, q broker.Target) {
		x.has(q, 1)
		time.Sleep(4 * time.Minute)
		x.late()
		time.Sleep(time.Hour)
		for range 3 {
			x.has(q, 2)
			time.Sleep(2 * time.Second)
		}
	})
}

// TestAPurgeOfWhatLandedLate removes it, and counts what was known.
func TestAPurgeOfWhatLandedLate(t *testing.T) {
	takenOver(t, func(x *clients, q broker.Target) {
		x.late()
		x.has(q, 2)
		if r := commit(x.Store, func(b *broker.Batch) { b.Purge(q, false) }); r.Err != nil || r.Count != 1 {
			x.Errorf("purged %d, %v; want 1", r.Count, r.Err)
		}
		x.has(q, 0)
		time.Sleep(10 * time.Second)
		x.has(q, 0)
		if err := x.publish("b", q); err != nil {
			x.Fatal(err)
		}
		x.has(q, 1)
	})
}

// TestBooksAreComparedOnceASecondAtMost, and no more once nothing can land.
func TestBooksAreComparedOnceASecondAtMost(t *testing.T) {
	takenOver(t, func(x *clients, q broker.Target) {
		asked := x.asked("$JS.API.STREAM.INFO.mr_q_1")
		during := func(d time.Duration) int32 {
			before := asked.Load()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				x.has(q, 1)
			}
			return asked.Load() - before
		}
		if n := during(10 * time.Second); n < 5 || n > 10 {
			x.Errorf("the stream was asked %d times in 10 s", n)
		}
		time.Sleep(5 * time.Minute)
		if n := during(10 * time.Second); n != 1 {
			x.Errorf("the stream was asked %d times in 10 s after nothing can land any more, want 1", n)
		}
	})
}
