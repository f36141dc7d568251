package jetstream_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// doubted is a queue on a lone server, and the way there.
func doubted(t *testing.T) (s *jetstream.Store, q broker.Target, way *deaf) {
	t.Helper()
	way = newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
	s = open(t, jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{nats.InProcessServer(way)}})
	s.Bind(make(heard, 100))
	q, err := s.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second) // what follows is written by itself
	return s, q, way
}

// unanswered runs f, whose outcome stays unknown: what it asks for is done and not
// answered, or gets lost.
func unanswered(t *testing.T, way *deaf, done bool, f func() error) {
	t.Helper()
	heal := func() { way.mute.Store(false) }
	if done {
		heal = way.hold()
	} else {
		way.mute.Store(true)
	}
	err := f()
	heal()
	if !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("without an answer: %v, want unknown", err)
	}
}

// counts fails the test unless the queue has n messages that are ready and m that are
// delayed, with as many bytes, and what came in is there or went out.
func counts(t *testing.T, s *jetstream.Store, q broker.Target, n, m int64) {
	t.Helper()
	in, err := s.Info(t.Context(), q)
	if err != nil || in.Ready != n || in.Delayed != m || in.Leased+in.Dead+in.Held != 0 || in.Difference() != 0 || (in.Bytes == 0) != (n+m == 0) {
		t.Errorf("the queue has %+v, %v; want %d ready and %d delayed", in, err, n, m)
	}
}

// TestAPublishOfUnknownOutcomeIsCountedOnlyIfItIsThere, ready and delayed.
func TestAPublishOfUnknownOutcomeIsCountedOnlyIfItIsThere(t *testing.T) {
	for i := range 4 {
		done, delay := i&1 != 0, time.Duration(i&2)*time.Hour
		synctest.Test(t, func(t *testing.T) {
			s, q, way := doubted(t)
			send(t, s, q, "before")
			unanswered(t, way, done, func() error {
				m := &broker.Message{Topic: "t", Payload: []byte("doubted"), QoS: 1, ID: broker.ID{1}}
				if delay > 0 {
					m.NotBefore = s.Now().Add(delay).UnixMilli()
				}
				return commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }).Err
			})
			<-time.After(time.Minute)
			send(t, s, q, "after")
			ready, delayed := int64(2), int64(0)
			switch {
			case done && delay > 0:
				delayed = 1
			case done:
				ready = 3
			}
			counts(t, s, q, ready, delayed)
			<-time.After(delay + time.Minute)
			ready += delayed
			counts(t, s, q, ready, 0)
			got := take(s, q, 10, time.Minute, time.Second)
			if int64(len(got)) != ready {
				t.Errorf("done=%v, delay %v: %d messages, want %d", done, delay, len(got), ready)
			}
			for i := range got {
				if r := commit(s, func(b *broker.Batch) { b.Settle(got[i].Ref, broker.ReasonAcked) }); r.Err != nil {
					t.Error(r.Err)
				}
			}
			counts(t, s, q, 0, 0)
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestASettlementOfUnknownOutcomeIsFoundOut: the message is gone, or comes again.
func TestASettlementOfUnknownOutcomeIsFoundOut(t *testing.T) {
	for _, done := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, q, way := doubted(t)
			send(t, s, q, "one")
			got := take(s, q, 1, 5*time.Second, time.Second)
			unanswered(t, way, done, func() error {
				return commit(s, func(b *broker.Batch) { b.Settle(got[0].Ref, broker.ReasonAcked) }).Err
			})
			<-time.After(time.Minute)
			want := 1
			if done {
				want = 0
			}
			counts(t, s, q, int64(want), 0)
			if again := take(s, q, 1, 5*time.Second, time.Second); len(again) != want {
				t.Errorf("done=%v: %d messages come again, want %d", done, len(again), want)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAPublishThatIsRepeatedAfterAnUnknownOutcomeIsThereOnce, and counted once.
func TestAPublishThatIsRepeatedAfterAnUnknownOutcomeIsThereOnce(t *testing.T) {
	for _, done := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, q, way := doubted(t)
			m := &broker.Message{Topic: "t", Payload: []byte("m"), QoS: 1, ID: broker.ID{1}}
			publish := func() error {
				return commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }).Err
			}
			unanswered(t, way, done, publish)
			if err := publish(); err != nil {
				t.Fatal(err)
			}
			counts(t, s, q, 1, 0)
			<-time.After(time.Minute)
			counts(t, s, q, 1, 0)
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAParkingAndARemovalOfTheDeadThatAreNotAnsweredAreFoundOut.
func TestAParkingAndARemovalOfTheDeadThatAreNotAnsweredAreFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
		s := open(t, jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{nats.InProcessServer(way)}})
		told := make(heard, 10)
		s.Bind(told)
		q, err := s.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, LapseAt: 1})
		if err != nil {
			t.Fatal(err)
		}
		send(t, s, q, "one")
		take(s, q, 1, time.Second, time.Second)
		d := <-told
		unanswered(t, way, true, func() error {
			return commit(s, func(b *broker.Batch) { b.Park(d.Ref, broker.ReasonAttempts) }).Err
		})
		<-time.After(time.Minute)
		if r := commit(s, func(b *broker.Batch) { b.Park(d.Ref, broker.ReasonAttempts) }); r.Err != nil {
			t.Errorf("the second parking: %v", r.Err)
		}
		dead, err := s.Read(t.Context(), q, broker.Pos{States: broker.Dead}, 10, nil)
		if err != nil || len(dead) != 1 {
			t.Fatalf("%d are dead, %v; want 1", len(dead), err)
		}
		remove := func() error {
			return commit(s, func(b *broker.Batch) { b.Settle(dead[0].Ref, broker.ReasonPurged) }).Err
		}
		unanswered(t, way, true, remove)
		if err := remove(); err != nil {
			t.Errorf("the second removal: %v", err)
		}
		counts(t, s, q, 0, 0)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
