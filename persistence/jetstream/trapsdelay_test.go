package jetstream_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// schedules makes a stream as delayed messages have, and a consumer of what is due.
func (x *trap) schedules() {
	x.Helper()
	x.stream(natsjs.StreamConfig{Retention: natsjs.WorkQueuePolicy, AllowMsgSchedules: true, AllowMsgTTL: true, AllowRollup: true})
	x.consumer(natsjs.ConsumerConfig{FilterSubject: "q.due.>"})
}

// schedule delays a message until a time.
func (x *trap) schedule(subject, body string, at time.Time, headers ...string) error {
	_, err := x.send(subject, body, append([]string{
		"Nats-Schedule", "@at " + at.UTC().Format(time.RFC3339Nano), "Nats-Schedule-Target", "q.due.1",
	}, headers...)...)
	return err
}

// TestAScheduleHasFractionsOfASecond if the header has: so a delay ends when it should.
func TestAScheduleHasFractionsOfASecond(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.schedules()
		for _, d := range []time.Duration{1234 * time.Millisecond, 10*time.Minute + 999*time.Millisecond} {
			at := time.Now().Truncate(time.Second).Add(d)
			if err := x.schedule("q.s.1", "a", at); err != nil {
				x.Fatal(err)
			}
			x.settle(x.comes(fmt.Sprintf("a delay of %s", d), at), "+ACK")
		}
	})
}

// TestAScheduleOfNatsGoEndsWithASecond, before its time: so the header is ours.
func TestAScheduleOfNatsGoEndsWithASecond(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.schedules()
		second := time.Now().Truncate(time.Second).Add(10 * time.Second)
		at := natsjs.WithScheduleAt(second.Add(900 * time.Millisecond))
		if _, err := x.js.Publish(x.Context(), "q.s.1", nil, at, natsjs.WithScheduleTarget("q.due.1")); err != nil {
			x.Fatal(err)
		}
		x.comes("a message for 0.9 s later", second)
	})
}

// TestAScheduleStaysInItsStream: delayed messages of all queues are in one, and moved by us.
func TestAScheduleStaysInItsStream(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.schedules()
		x.stream(natsjs.StreamConfig{Name: "other"})
		x.refused("a schedule for another stream", x.schedule("q.s.1", "a", time.Now().Add(time.Second), "Nats-Schedule-Target", "other.m"), 10190)
	})
}

// TestSchedulesRefuseDiscardNew: the limits of a queue cannot be those of its delayed messages' stream.
func TestSchedulesRefuseDiscardNew(t *testing.T) {
	inTrap(t, func(x *trap) {
		_, err := x.js.CreateStream(x.Context(), natsjs.StreamConfig{Name: "q", Subjects: []string{"q.>"}, AllowMsgSchedules: true, Discard: natsjs.DiscardNew})
		x.refused("a stream with schedules that discards new", err, 10052)
		x.stream(natsjs.StreamConfig{AllowMsgSchedules: true, Discard: natsjs.DiscardOld})
	})
}

// TestSchedulesOfOneSubjectReplaceEachOther: so each delayed message has a subject of its own.
func TestSchedulesOfOneSubjectReplaceEachOther(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.schedules()
		due := time.Now().Add(time.Minute)
		for _, m := range []struct{ subject, body string }{{"q.s.1", "replaced"}, {"q.s.1", "a"}, {"q.s.2", "b"}} {
			if err := x.schedule(m.subject, m.body, due); err != nil {
				x.Fatal(err)
			}
		}
		<-time.After(2 * time.Minute)
		got := bodiesOf(x.take(10))
		if slices.Sort(got); !slices.Equal(got, []string{"a", "b"}) {
			x.Errorf("%q come, want a and b", got)
		}
	})
}

// TestADueMessageHasItsHeadersButNoID: the mover takes the id from the body, and the time from
// a header of ours.
func TestADueMessageHasItsHeadersButNoID(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.schedules()
		for _, want := range []bool{false, true} {
			ack, err := x.send("q.s.1", "a", "Nats-Msg-Id", "id", "Mr-Due", "1", "Nats-Schedule", "@at 2000-01-01T00:01:00Z", "Nats-Schedule-Target", "q.due.1")
			if err != nil || ack.Duplicate != want {
				x.Errorf("%+v, %v; want duplicate=%t", ack, err, want)
			}
		}
		m := x.next()
		if h := m.Headers(); h.Get("Nats-Msg-Id") != "" || h.Get("Mr-Due") != "1" || m.Subject() != "q.due.1" {
			x.Errorf("a due message on %s has %v, want no id and our header", m.Subject(), h)
		}
	})
}
