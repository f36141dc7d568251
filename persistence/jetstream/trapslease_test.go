package jetstream_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// TestADelayedNackMovesTheEndOfALease both ways, and again: every lease but one of AckWait is
// made by it, and every extension.
func TestADelayedNackMovesTheEndOfALease(t *testing.T) {
	const step = 200 * time.Millisecond // from one to the next
	for _, row := range []struct {
		name   string
		delays []time.Duration
		want   time.Duration
	}{
		{"none", nil, trapLease},
		{"a shorter lease", []time.Duration{500 * time.Millisecond}, 500 * time.Millisecond},
		{"a longer lease", []time.Duration{time.Hour / 2}, time.Hour / 2},
		{"an extension", []time.Duration{300 * time.Millisecond, 1200 * time.Millisecond}, step + 1200*time.Millisecond},
		{"an extension beyond AckWait", []time.Duration{time.Second, time.Minute}, step + time.Minute},
		{"a lease that is cut", []time.Duration{time.Hour / 2, time.Second}, step + time.Second},
	} {
		inTrap(t, func(x *trap) {
			x.queue(natsjs.StreamConfig{})
			x.put("a")
			m, began := x.one(), time.Now()
			for i, d := range row.delays {
				<-time.After(time.Until(began.Add(time.Duration(i) * step)))
				x.settle(m, nack(d))
			}
			m = x.comes(row.name, began.Add(row.want))
			if meta, err := m.Metadata(); err != nil || meta.NumDelivered != 2 {
				x.Errorf("%s: %+v, %v; want the second attempt", row.name, meta, err)
			}
		})
	}
}

// TestWorkInProgressMakesALeaseThatOfAckWait, so that it cuts a longer one, and nats.go does not
// send it for what was nacked with a delay: nothing is extended by it.
func TestWorkInProgressMakesALeaseThatOfAckWait(t *testing.T) {
	for _, row := range []struct {
		name      string
		delay, at time.Duration
	}{
		{"a longer lease", time.Hour / 2, time.Second},
		{"a shorter lease", 10 * time.Second, 9 * time.Second},
	} {
		inTrap(t, func(x *trap) {
			x.queue(natsjs.StreamConfig{})
			x.put("a")
			m, began := x.one(), time.Now()
			x.settle(m, nack(row.delay))
			<-time.After(row.at)
			x.settle(m, "+WPI")
			m = x.comes(row.name, began.Add(row.at+trapLease))
			if err := m.NakWithDelay(time.Minute); err != nil {
				x.Fatal(err)
			}
			if err := m.InProgress(); !errors.Is(err, natsjs.ErrMsgAlreadyAckd) {
				x.Errorf("nats.go answers %v, want that it was acknowledged", err)
			}
		})
	}
}

// TestWhatIsNackedComesFirst, in the order in which it was given back: the order of a queue is
// made from that.
func TestWhatIsNackedComesFirst(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		x.put("0", "1", "2", "3", "4", "5")
		got := x.take(4)
		x.settle(got[2], "+ACK")
		for _, i := range []int{0, 3, 1} {
			x.settle(got[i], "-NAK")
		}
		x.left("0", "3", "1", "4", "5")
	})
}

// TestWhatLapsesTogetherComesInTheOrderOfTheQueue, however it was given back: so it is in order
// again after a crash.
func TestWhatLapsesTogetherComesInTheOrderOfTheQueue(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		x.put("0", "1", "2", "3")
		got := x.take(3)
		for _, i := range []int{2, 0, 1} {
			x.settle(got[i], nack(time.Second))
		}
		<-time.After(2 * time.Second)
		x.left("0", "1", "2", "3")
	})
}

// TestAnOldAttemptSettlesTheNewerLease: that a receipt is stale only we know.
func TestAnOldAttemptSettlesTheNewerLease(t *testing.T) {
	old := func(x *trap) (natsjs.Msg, time.Time) {
		x.Helper()
		x.queue(natsjs.StreamConfig{})
		x.put("a")
		m := x.one()
		x.next()
		return m, time.Now()
	}
	inTrap(t, func(x *trap) {
		m, _ := old(x)
		x.settle(m, "+ACK")
		x.holds(0, 0)
	})
	inTrap(t, func(x *trap) {
		m, began := old(x)
		x.settle(m, "-NAK")
		x.comes("what an old attempt nacks", began)
	})
	inTrap(t, func(x *trap) {
		m, began := old(x)
		x.settle(m, nack(time.Minute))
		x.comes("what an old attempt nacks with a delay", began.Add(time.Minute))
	})
}

// TestSettlementsAreConfirmedAlike, whatever they did: that a message was gone we have to know.
func TestSettlementsAreConfirmedAlike(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{MaxMsgs: 3})
		x.put("acked", "purged")
		got := x.take(2)
		want := x.settle(got[0], "+ACK")
		x.purge()
		x.put("dropped")
		got = append(got, x.one())
		x.put("1", "2", "3")
		x.holds(3, 0)
		for _, m := range got {
			for _, how := range []string{"+ACK", "-NAK", nack(time.Minute)} {
				if answer := x.settle(m, how); answer != want {
					x.Errorf("%s of what is %s is confirmed by %q, want %q as that of the first", how, m.Data(), answer, want)
				}
			}
		}
		x.left("1", "2", "3")
	})
}

// TestASettlementNeedsNoTime, and no count of what is left: a receipt has neither.
func TestASettlementNeedsNoTime(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		x.put("a", "b")
		got := x.take(2)
		x.holds(2, 2)
		parts := strings.Split(got[1].Reply(), ".") // they end with the two
		subject := strings.Join(append(parts[:len(parts)-2], "1", "0"), ".")
		if _, err := x.ask(subject, "+ACK"); err != nil {
			x.Error(err)
		}
		x.holds(1, 1)
		x.settle(got[0], "-NAK")
		x.left("a")
	})
}

// TestAPurgeEndsLeases: what it removed comes no more, and is settled all the same.
func TestAPurgeEndsLeases(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		x.put("a", "b", "c")
		got := x.take(2)
		x.holds(3, 2)
		x.purge(natsjs.WithPurgeSequence(3))
		x.holds(1, 0)
		x.settle(got[0], "+ACK")
		x.settle(got[1], "-NAK")
		x.left("c")
	})
}

// TestAReceiptOfADeletedQueueFindsNobody, or the queue that has its name by then: so no name is
// ever used again.
func TestAReceiptOfADeletedQueueFindsNobody(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		x.put("a")
		m := x.one()
		if err := x.js.DeleteStream(x.Context(), "q"); err != nil {
			x.Fatal(err)
		}
		if _, err := x.ask(m.Reply(), "+ACK"); !errors.Is(err, nats.ErrNoResponders) {
			x.Errorf("the queue is gone: %v, want no responders", err)
		}
		x.queue(natsjs.StreamConfig{})
		x.put("b")
		x.one()
		x.holds(1, 1)
		x.settle(m, "+ACK")
		x.holds(0, 0)
	})
}

// TestADelayedNackKeepsItsPlaceInFlight: delayed messages are leased ones for MaxAckPending,
// which therefore is large.
func TestADelayedNackKeepsItsPlaceInFlight(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{Retention: natsjs.WorkQueuePolicy})
		x.consumer(natsjs.ConsumerConfig{MaxAckPending: 2})
		x.put("a", "b", "c", "d")
		got := x.take(10)
		if len(got) != 2 {
			x.Fatalf("%q are received, want 2", bodiesOf(got))
		}
		x.settle(got[0], nack(time.Hour))
		x.settle(got[1], nack(time.Hour))
		x.left()
		x.settle(got[1], "+ACK")
		x.left("c")
	})
}
