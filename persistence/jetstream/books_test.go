package jetstream_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// delay publishes a message that is due later, and returns its id.
func (x *clients) delay(body string, q broker.Target, d time.Duration) broker.ID {
	x.Helper()
	m := x.message(body)
	m.NotBefore = x.Now().Add(d).UnixMilli()
	if r := commit(x.Store, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }); r.Err != nil {
		x.Fatal(r.Err)
	}
	return m.ID
}

// balanced fails the test unless so many messages came to a queue, so many of them were
// acknowledged, and all others are there.
func (x *clients) balanced(q broker.Target, came, acked uint64) {
	x.Helper()
	in, err := x.Info(x.Context(), q)
	if err != nil || in.Difference() != 0 || in.In != came || in.Out[broker.ReasonAcked] != acked {
		x.Errorf("the books are out by %d: %+v, %v; want %d in and %d acked", in.Difference(), in, err, came, acked)
	}
}

// TestTheBooksAreRightAfterACrash, whatever came and went since the last ledger, or
// without one.
func TestTheBooksAreRightAfterACrash(t *testing.T) {
	inBubble(t, func(x *clients) {
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, LapseAt: 1})
		if err != nil {
			x.Fatal(err)
		}
		for _, body := range []string{"a", "b", "c", "d", "e"} {
			if err := x.publish(body, q); err != nil {
				x.Fatal(err)
			}
		}
		x.delay("f", q, time.Hour)
		x.ack(take(x.Store, q, 2, time.Minute, 0)...)
		x.balanced(q, 6, 2)
		for range 2 { // none was written yet
			x.Crash()
			x.start()
			x.balanced(q, 6, 2)
		}
		x.end()
		x.start()
		x.balanced(q, 6, 2)

		take(x.Store, q, 1, time.Second, 0)
		d := <-x.told
		if r := commit(x.Store, func(b *broker.Batch) { b.Park(d.Ref, broker.ReasonAttempts) }); r.Err != nil {
			x.Fatal(r.Err)
		}
		if err := x.publish("g", q); err != nil {
			x.Fatal(err)
		}
		x.delay("h", q, time.Hour)
		x.ack(take(x.Store, q, 1, time.Minute, 0)...)
		x.balanced(q, 8, 3)
		for range 2 {
			x.Crash()
			x.start()
			x.balanced(q, 8, 3)
		}
		time.Sleep(2 * time.Hour)
		x.balanced(q, 8, 3)
		x.ack(x.expect(q, "e", "g", "f", "h")...)
		x.balanced(q, 8, 7) // the other is dead
		x.Crash()
		x.start()
		x.balanced(q, 8, 7)
		x.end()
		x.start()
		x.balanced(q, 8, 7)
	})
}

// TestAQueueThatIsEmptyAfterACrashTakesNoRoom, though the size of what was in it was
// only known to be at most so much.
func TestAQueueThatIsEmptyAfterACrashTakesNoRoom(t *testing.T) {
	inBubble(t, func(x *clients) {
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			x.Fatal(err)
		}
		if err := errors.Join(x.publish("a", q), x.publish("b", q)); err != nil {
			x.Fatal(err)
		}
		x.Crash()
		x.start()
		counts(x.T, x.Store, q, 2, 0)
		x.ack(x.expect(q, "a", "b")...)
		counts(x.T, x.Store, q, 0, 0)
	})
}

// TestWhatACrashLeftInTwoPlacesIsOneMessageInTheEnd: one that was delayed and is in its
// queue already, and one that is among the dead and was not taken out of its queue.
func TestWhatACrashLeftInTwoPlacesIsOneMessageInTheEnd(t *testing.T) {
	inBubble(t, func(x *clients) {
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, LapseAt: 1})
		if err != nil {
			x.Fatal(err)
		}
		if err := x.publish("parked", q); err != nil {
			x.Fatal(err)
		}
		due := x.delay("due", q, time.Minute)
		take(x.Store, q, 1, time.Second, 0)
		<-x.told
		x.Crash()
		x.copy("mr_delay", 1, "mr.q.1.m", hex.EncodeToString(due[:]))
		x.copy("mr_q_1", 1, "mr.x.1.1", "dead 1 1")
		x.start()
		in, err := x.Info(x.Context(), q)
		if err != nil || in.Difference() != 0 || in.Dead != 1 || in.Delayed != 1 || in.Ready+in.Leased != 2 {
			x.Fatalf("the books are out by %d: %+v, %v; want 1 dead, 1 delayed and 2 others", in.Difference(), in, err)
		}
		got := x.expect(q, "due")
		if more := take(x.Store, q, 1, time.Minute, 2*time.Minute); len(more) != 0 { // it is due meanwhile
			x.Fatalf("%s comes", more[0].Payload)
		}
		d := <-x.told
		if r := commit(x.Store, func(b *broker.Batch) { b.Park(d.Ref, broker.ReasonAttempts) }); r.Err != nil {
			x.Fatal(r.Err)
		}
		x.balanced(q, 2, 0)
		x.ack(got...)
		x.balanced(q, 2, 1)
	})
}

// TestADelayedMessageWhoseMoveIsNotAnsweredIsThereOnce, and counted once.
func TestADelayedMessageWhoseMoveIsNotAnsweredIsThereOnce(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.end()
		way := x.lossy(`"stream":"mr_q_1"`)
		x.start()
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			x.Fatal(err)
		}
		x.delay("due", q, time.Minute)
		way.lose.Store(1)
		time.Sleep(2 * time.Minute)
		if way.lose.Load() > 0 {
			x.Error("no answer was lost")
		}
		counts(x.T, x.Store, q, 1, 0)
		x.ack(x.expect(q, "due")...)
		counts(x.T, x.Store, q, 0, 0)
	})
}

// copy publishes a message of a stream once more.
func (x *clients) copy(stream string, seq int, subject, id string) {
	x.Helper()
	nc := dial(x.T, x.c)
	have, err := request(x.T, nc, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + stream, Data: fmt.Appendf(nil, `{"seq":%d}`, seq)})
	if err != nil || len(have.Data) == 0 {
		x.Fatalf("%v %v", have, err)
	}
	m := nats.NewMsg(subject)
	m.Data = have.Data
	m.Header.Set("Nats-Msg-Id", id)
	if answer, err := request(x.T, nc, m); err != nil || strings.Contains(string(answer.Data), "error") {
		x.Fatalf("%v %v", answer, err)
	}
}
