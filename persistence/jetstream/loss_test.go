package jetstream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
	"millrace/persistence/jetstream"
)

// restore has a stream be what it was when it had so many messages, as a backup does; with
// none it is gone.
func (x *clients) restore(stream string, keep uint64) {
	x.Helper()
	js := jetStream(x.T, x.c)
	have, err := js.Stream(x.Context(), stream)
	if err != nil {
		x.Fatal(err)
	}
	kept := make([]*natsjs.RawStreamMsg, keep)
	for i := range kept {
		if kept[i], err = have.GetMsg(x.Context(), uint64(i)+1); err != nil {
			x.Fatal(err)
		}
	}
	if err := js.DeleteStream(x.Context(), stream); err != nil || keep == 0 {
		if err != nil {
			x.Fatal(err)
		}
		return
	}
	if _, err := js.CreateStream(x.Context(), have.CachedInfo().Config); err != nil {
		x.Fatal(err)
	}
	for _, m := range kept {
		m.Header.Del("Nats-Expected-Last-Subject-Sequence")
		if _, err := js.PublishMsg(x.Context(), &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}); err != nil {
			x.Fatal(err)
		}
	}
}

// sure starts the store anew on servers that are said to sync every write.
func (x *clients) sure() {
	x.Helper()
	x.end()
	x.o.Sync = jetstream.SyncAlways
	x.start()
}

func (x *clients) again() {
	x.Helper()
	x.end()
	x.start()
}

// fill publishes so many messages.
func (x *clients) fill(t broker.Target, n int) {
	x.Helper()
	for i := range n {
		if err := x.publish(fmt.Sprint(i), t); err != nil {
			x.Fatal(err)
		}
	}
}

// held is how many messages a stream holds.
func (x *clients) held(stream string) uint64 {
	x.Helper()
	s, err := jetStream(x.T, x.c).Stream(x.Context(), stream)
	if err != nil {
		x.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// losses fails the test unless the store says that this was lost.
func (x *clients) losses(want ...broker.Loss) {
	x.Helper()
	if got := x.State().Lost; fmt.Sprint(got) != fmt.Sprint(want) {
		x.Errorf("the store says that %+v are lost, want %+v", got, want)
	}
}

// refuses fails the test unless nothing can be published to t.
func (x *clients) refuses(t broker.Target, why ...string) {
	x.Helper()
	err := x.publish("more", t)
	if !errors.Is(err, broker.ErrDamaged) {
		x.Fatalf("a publish ends in %v", err)
	}
	for _, part := range why {
		if !strings.Contains(err.Error(), part) {
			x.Errorf("%q does not say %q", err, part)
		}
	}
}

// TestAQueueThatLostMessagesTakesNoneUntilThatIsAccepted, and gives out what it has. No
// sequence is used twice, and what was lost is not counted for ever.
func TestAQueueThatLostMessagesTakesNoneUntilThatIsAccepted(t *testing.T) {
	for _, c := range []struct {
		name string
		left uint64
		says string
		stop func(x *clients)
	}{
		{"closed", 3, "ends at message 3", func(x *clients) { x.end() }},
		{"killed", 3, "ends at message 3", func(x *clients) { time.Sleep(2 * time.Second); x.Crash() }},
		{"gone", 0, "is not there", func(x *clients) { x.end() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(x *clients) {
				x.sure()
				q, other := x.queue("q"), x.queue("other")
				x.fill(q, 5)
				take(x.Store, q, 5, time.Hour, 0)
				c.stop(x)
				x.restore("mr_q_1", c.left)
				lost := broker.Loss{Kind: broker.QueueTarget, Name: "q", Place: "mr_q_1", Acked: 5, Found: c.left}
				for range 2 {
					x.start()
					x.losses(lost)
					x.refuses(q, `queue "q" takes no messages`, "mr_q_1", c.says, "acknowledged 5", "--accept-loss")
					x.fill(other, 1)
					x.end()
				}
				if n := x.held("mr_q_1"); n != c.left {
					x.Errorf("the stream holds %d messages, want %d", n, c.left)
				}
				x.start()
				counts(x.T, x.Store, q, int64(c.left), 0)
				x.ack(x.expect(q, []string{"0", "1", "2"}[:c.left]...)...)
				x.end()

				x.o.AcceptLoss = true
				x.start()
				lost.Accepted = true
				x.losses(lost)
				x.fill(q, 1)
				if d := x.expect(q, "0"); d[0].Seq != 6 {
					x.Errorf("the message behind the five that there were has sequence %d", d[0].Seq)
				}
				x.end()
				x.o.AcceptLoss = false
				x.start()
				x.losses()
				x.fill(q, 1)
				if in, err := x.Info(x.Context(), q); err != nil || in.Difference() != 0 {
					x.Errorf("the books are out by %d: %+v, %v", in.Difference(), in, err)
				}
			})
		})
	}
}

func (x *clients) queue(name string) broker.Target {
	x.Helper()
	q, err := x.Define(x.Context(), broker.Def{Name: name, Kind: broker.QueueTarget})
	if err != nil {
		x.Fatal(err)
	}
	return q
}

// TestWhatIsLostWhileTheStoreIsOpenIsSeen: at the next publish, which then is not
// acknowledged, and without one when the streams are asked.
func TestWhatIsLostWhileTheStoreIsOpenIsSeen(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		busy, quiet := x.queue("busy"), x.queue("quiet")
		x.fill(busy, 5)
		x.fill(quiet, 5)
		x.restore("mr_q_1", 3)
		if err := x.publish("more", busy); !errors.Is(err, broker.ErrUnknown) {
			x.Errorf("a publish to the place of another message ends in %v", err)
		}
		x.refuses(busy)
		x.restore("mr_q_2", 0)
		time.Sleep(2 * time.Minute)
		x.refuses(quiet)
		lost := []broker.Loss{
			{Kind: broker.QueueTarget, Name: "busy", Place: "mr_q_1", Acked: 5, Found: 3},
			{Kind: broker.QueueTarget, Name: "quiet", Place: "mr_q_2", Acked: 5},
		}
		x.losses(lost...)
		x.again()
		x.losses(lost...)
		x.expect(busy, "0", "1", "2", "more")
		x.refuses(busy)
		if err := x.Drop(x.Context(), busy); err != nil {
			x.Fatal(err)
		}
		x.losses(lost[1])
		x.again()
		x.losses(lost[1])
	})
}

// TestAStreamThatIsShortForAMomentHasLostNothing where leaders are elected: a new one may
// not have applied yet what it has.
func TestAStreamThatIsShortForAMomentHasLostNothing(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		x.Elect()
		q := x.queue("q")
		x.fill(q, 5)
		x.restore("mr_q_1", 3)
		time.Sleep(70 * time.Second)
		js := jetStream(x.T, x.c)
		for range 2 {
			if _, err := js.Publish(x.Context(), "mr.q.1.m", nil); err != nil {
				x.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		x.losses()
		x.fill(q, 1)
		x.restore("mr_q_1", 3)
		time.Sleep(2 * time.Minute)
		x.losses(broker.Loss{Kind: broker.QueueTarget, Name: "q", Place: "mr_q_1", Acked: 6, Found: 3})
	})
}

// TestAStreamThatLostMessagesTakesNoneUntilThatIsAccepted: its offsets go on where they
// were, and readers and subscriptions pass those that are lost.
func TestAStreamThatLostMessagesTakesNoneUntilThatIsAccepted(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		s, err := x.Define(x.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 2})
		if err != nil {
			x.Fatal(err)
		}
		sub, err := x.Define(x.Context(), broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: s})
		if err != nil {
			x.Fatal(err)
		}
		x.fill(s, 5)
		x.end()
		x.restore("mr_s_1_0", 3)
		x.start()
		lost := broker.Loss{Kind: broker.StreamTarget, Name: "s", Place: "mr_s_1_0", Acked: 5, Found: 3}
		x.losses(lost)
		x.refuses(s, `stream "s" takes no messages`)
		x.end()
		x.o.AcceptLoss = true
		x.start()
		x.ack(x.expect(sub, "0", "1", "2")...)
		counts(x.T, x.Store, sub, 0, 0)
		x.fill(s, 2)
		x.end()
		x.o.AcceptLoss = false
		x.start()
		got, err := x.Read(x.Context(), s, broker.Pos{Begin: true}, 100, nil)
		if err != nil || len(got) != 5 || got[3].Seq != 5 || got[4].Seq != 6 {
			x.Errorf("a reader gets %+v, %v", got, err)
		}
		if got, err = x.Read(x.Context(), s, broker.Pos{Seq: 4}, 1, nil); err != nil || len(got) != 1 || got[0].Seq != 5 {
			x.Errorf("a reader that begins among the lost gets %+v, %v", got, err)
		}
		x.ack(x.expect(sub, "0", "1")...)
		counts(x.T, x.Store, sub, 0, 0)
	})
}

// TestAStreamThatAllShareEndsTheStart where it lost something, unless that is accepted.
func TestAStreamThatAllShareEndsTheStart(t *testing.T) {
	for _, stream := range []string{"mr_log", "mr_delay", "KV_mr_defs", "KV_mr_back"} {
		t.Run(stream, func(t *testing.T) {
			inBubble(t, func(x *clients) {
				x.sure()
				q, c := x.queue("q"), x.session("c")
				x.fill(c, 5)
				x.delay("late", q, time.Hour)
				x.ack(x.expect(c, "0", "1", "2", "3", "4")...)
				time.Sleep(time.Minute)
				x.end()
				x.restore(stream, 0)
				_, err := jetstream.Open(x.Context(), x.o)
				if !errors.Is(err, jetstream.ErrUnfit) || !strings.Contains(err.Error(), stream) || !strings.Contains(err.Error(), "--accept-loss") {
					x.Fatalf("the start ends in %v", err)
				}
				x.o.AcceptLoss = true
				x.start()
				if lost := x.State().Lost; len(lost) != 1 || lost[0].Place != stream || !lost[0].Accepted {
					x.Errorf("%+v", lost)
				}
				if n := x.queue("new"); n <= c {
					x.Errorf("the number %d is used again", n)
				}
			})
		})
	}
}

// TestABucketThatIsAnOlderOneEndsTheStart, and is as long as it was when that is accepted.
func TestABucketThatIsAnOlderOneEndsTheStart(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		x.queue("a")
		x.queue("b")
		x.end()
		x.restore("KV_mr_defs", 1)
		if _, err := jetstream.Open(x.Context(), x.o); !errors.Is(err, jetstream.ErrUnfit) {
			x.Fatalf("the start ends in %v", err)
		}
		x.o.AcceptLoss = true
		x.start()
		if all, err := x.Definitions(x.Context()); err != nil || len(all) != 1 {
			x.Errorf("%+v %v", all, err)
		}
		if b := x.queue("b"); b <= 2 {
			x.Errorf("the number %d is used again", b)
		}
	})
}

// TestTheStoreEndsWhenAStreamThatAllShareLosesSomething: the next start says what to do.
func TestTheStoreEndsWhenAStreamThatAllShareLosesSomething(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.end()
		failed := make(chan error, 1)
		x.o.Sync, x.o.Failed = jetstream.SyncAlways, func(err error) { failed <- err }
		x.start()
		c := x.session("c")
		x.fill(c, 5)
		x.restore("mr_log", 3)
		if err := x.publish("more", c); err == nil {
			x.Error("a publish to the place of another message is acknowledged")
		}
		if err := <-failed; !errors.Is(err, broker.ErrDamaged) || !strings.Contains(err.Error(), "mr_log") {
			x.Errorf("the store ends with %v", err)
		}
		x.end()
		if _, err := jetstream.Open(x.Context(), x.o); !errors.Is(err, jetstream.ErrUnfit) {
			x.Errorf("the start ends in %v", err)
		}
		x.o.AcceptLoss = true
		x.start()
		x.fill(c, 1)
	})
}

// TestWhatServersLoseThatDoNotSyncIsAcceptedAtOnce, and said.
func TestWhatServersLoseThatDoNotSyncIsAcceptedAtOnce(t *testing.T) {
	inBubble(t, func(x *clients) {
		q := x.queue("q")
		x.fill(q, 5)
		x.end()
		x.restore("mr_q_1", 3)
		x.start()
		x.losses(broker.Loss{Kind: broker.QueueTarget, Name: "q", Place: "mr_q_1", Acked: 5, Found: 3, Accepted: true})
		x.fill(q, 1)
		x.expect(q, "0", "1", "2", "0")
	})
}

// TestAQueueInMemoryLosesNothing when its server starts again.
func TestAQueueInMemoryLosesNothing(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.sure()
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, Volatile: true})
		if err != nil {
			x.Fatal(err)
		}
		x.fill(q, 5)
		x.restore("mr_q_1", 0)
		x.again()
		x.losses()
		x.fill(q, 1)
	})
}
