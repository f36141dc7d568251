package jetstream_test

import (
	"fmt"
	"maps"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// TestACountLimitIsExact in a burst, and leased messages count: where an operator sets one, the
// queue is full.
func TestACountLimitIsExact(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{MaxMsgs: 5, Discard: natsjs.DiscardNew})
		var all []natsjs.PubAckFuture
		for range 100 {
			f, err := x.js.PublishAsync("q.m", nil)
			if err != nil {
				x.Fatal(err)
			}
			all = append(all, f)
		}
		waitFor(x, "all are answered", x.js.PublishAsyncComplete())
		stored := 0
		for _, f := range all {
			select {
			case <-f.Ok():
				stored++
			case err := <-f.Err():
				x.refused("one too many", err, 10077)
			}
		}
		if stored != 5 {
			x.Errorf("%d of 100 are stored, want 5", stored)
		}
		got := x.take(10)
		x.holds(5, 5)
		_, err := x.send("q.m", "")
		x.refused("one more while all are leased", err, 10077)
		x.settle(got[0], "+ACK")
		x.holds(4, 4)
		x.put("a")
	})
}

// TestABytesLimitCountsMoreThanPayloads: 30 bytes and the subject for each message. So the limit
// of a queue is kept by us, and what JetStream says is never too low.
func TestABytesLimitCountsMoreThanPayloads(t *testing.T) {
	const limit, payload, around = 10_000, 256, 30 + len("q.m")
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{MaxBytes: limit, Discard: natsjs.DiscardNew})
		var err error
		for i := 0; err == nil && i < limit; i++ {
			_, err = x.send("q.m", fmt.Sprintf("%*d", payload, i))
		}
		x.refused("beyond the limit", err, 10077)
		const fit = uint64(limit / (payload + around))
		if at := x.state("q"); at.Msgs != fit || at.Bytes != fit*(payload+uint64(around)) {
			x.Errorf("%d messages take %d bytes, want %d of %d", at.Msgs, at.Bytes, fit, payload+around)
		}
	})
}

// TestDiscardOldDropsWhatIsLeased: so a queue that drops its oldest chooses itself what goes.
func TestDiscardOldDropsWhatIsLeased(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{MaxMsgs: 2, Discard: natsjs.DiscardOld})
		x.put("a", "b")
		x.take(1)
		x.put("c")
		x.holds(2, 0)
		x.left("b", "c")
	})
}

// TestALimitThatIsLoweredKeepsWhatIsThere, and refuses more: no change of settings loses a message.
func TestALimitThatIsLoweredKeepsWhatIsThere(t *testing.T) {
	inTrap(t, func(x *trap) {
		c := natsjs.StreamConfig{Name: "q", Subjects: []string{"q.>"}, MaxMsgs: 5, Discard: natsjs.DiscardNew}
		x.stream(c)
		x.put("1", "2", "3", "4", "5")
		c.MaxMsgs = 2
		if _, err := x.js.UpdateStream(x.Context(), c); err != nil {
			x.Fatal(err)
		}
		_, err := x.send("q.m", "6")
		x.refused("beyond the new limit", err, 10077)
		if n := x.state("q").Msgs; n != 5 {
			x.Errorf("%d messages are there, want 5", n)
		}
	})
}

// TestRetentionCannotChange: so a stream with another one is not ours.
func TestRetentionCannotChange(t *testing.T) {
	inTrap(t, func(x *trap) {
		for from, to := range map[natsjs.RetentionPolicy]natsjs.RetentionPolicy{
			natsjs.WorkQueuePolicy: natsjs.LimitsPolicy, natsjs.LimitsPolicy: natsjs.WorkQueuePolicy,
		} {
			c := natsjs.StreamConfig{Name: from.String(), Subjects: []string{from.String() + ".>"}, Retention: from}
			x.stream(c)
			c.MaxMsgs = 2
			if _, err := x.js.UpdateStream(x.Context(), c); err != nil {
				x.Fatal(err)
			}
			c.Retention = to
			_, err := x.js.UpdateStream(x.Context(), c)
			x.refused(fmt.Sprintf("from %s to %s", from, to), err, 10052)
		}
	})
}

// TestALoneServerMakesNoCopies: a start then says what to ask for.
func TestALoneServerMakesNoCopies(t *testing.T) {
	inTrap(t, func(x *trap) {
		_, err := x.js.CreateStream(x.Context(), natsjs.StreamConfig{Name: "q", Replicas: 3})
		x.refused("three copies", err, 10074)
	})
}

// TestAWorkQueueHasOneConsumer of a subject: so all who receive from a queue share one.
func TestAWorkQueueHasOneConsumer(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		_, err := x.js.CreateConsumer(x.Context(), "q", natsjs.ConsumerConfig{Durable: "d", AckPolicy: natsjs.AckExplicitPolicy})
		x.refused("a second consumer without a filter", err, 10099)
		_, err = x.js.CreateConsumer(x.Context(), "q", natsjs.ConsumerConfig{Durable: "d", AckPolicy: natsjs.AckExplicitPolicy, FilterSubject: "q.m"})
		x.refused("one with a filter", err, 10100)
	})
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{Retention: natsjs.WorkQueuePolicy})
		x.consumer(natsjs.ConsumerConfig{FilterSubject: "q.m"})
		_, err := x.js.CreateConsumer(x.Context(), "q", natsjs.ConsumerConfig{Durable: "d", AckPolicy: natsjs.AckExplicitPolicy, FilterSubject: "q.m"})
		x.refused("a second consumer with the same filter", err, 10100)
		_, err = x.js.CreateConsumer(x.Context(), "q", natsjs.ConsumerConfig{Durable: "d", AckPolicy: natsjs.AckExplicitPolicy, FilterSubject: "q.n"})
		if err != nil {
			x.Errorf("one with another filter: %v", err)
		}
	})
}

// TestAFilterInsideAnotherIsRefused, and filters that only overlap are not: MQTT allows both, so
// no consumer has the filters of a session.
func TestAFilterInsideAnotherIsRefused(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{})
		_, err := x.js.CreateConsumer(x.Context(), "q", natsjs.ConsumerConfig{FilterSubjects: []string{"q.a.>", "q.a.b"}})
		x.refused("a filter inside another", err, 10138)
		if _, err = x.js.CreateConsumer(x.Context(), "q", natsjs.ConsumerConfig{FilterSubjects: []string{"q.a.*", "q.*.b"}}); err != nil {
			x.Errorf("filters that overlap: %v", err)
		}
	})
}

// TestAPurgeOfSubjectsLeavesTheOthers: so what is delayed or dead of a queue that is dropped goes.
func TestAPurgeOfSubjectsLeavesTheOthers(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{})
		for _, subject := range []string{"q.1.a", "q.1.b", "q.11.a", "q.2.a"} {
			if _, err := x.send(subject, ""); err != nil {
				x.Fatal(err)
			}
		}
		x.purge(natsjs.WithPurgeSubject("q.1.*"))
		s, err := x.js.Stream(x.Context(), "q")
		if err != nil {
			x.Fatal(err)
		}
		info, err := s.Info(x.Context(), natsjs.WithSubjectFilter(">"))
		if err != nil {
			x.Fatal(err)
		}
		if want := map[string]uint64{"q.11.a": 1, "q.2.a": 1}; !maps.Equal(info.State.Subjects, want) {
			x.Errorf("%v are left, want %v", info.State.Subjects, want)
		}
	})
}
