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

// TestASettlementWaitsForTheOneBefore: an acknowledgement that comes while a lease is
// being extended, or a message given back, is not lost.
func TestASettlementWaitsForTheOneBefore(t *testing.T) {
	type settling func(b *broker.Batch, r broker.Ref)
	ack := func(b *broker.Batch, r broker.Ref) { b.Settle(r, broker.ReasonAcked) }
	extend := func(b *broker.Batch, r broker.Ref) { b.Defer(r, time.Now().Add(time.Hour), false) }
	nack := func(b *broker.Batch, r broker.Ref) { b.Defer(r, time.Now().Add(time.Minute), true) }
	for _, row := range []struct {
		name          string
		first, second settling
		stays         int
	}{
		{"an acknowledgement during an extension", extend, ack, 0},
		{"a nack during an extension", extend, nack, 1},
		{"an acknowledgement during a nack", nack, ack, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, q, way := doubted(t)
				send(t, s, q, "one")
				got := take(s, q, 1, time.Minute, time.Second)
				release := way.hold()
				answers := make(chan error, 2)
				for _, f := range []settling{row.first, row.second} {
					go func() { answers <- commit(s, func(b *broker.Batch) { f(b, got[0].Ref) }).Err }()
					synctest.Wait()
				}
				release()
				for range 2 {
					if err := <-answers; err != nil {
						t.Error(err)
					}
				}
				<-time.After(5 * time.Minute)
				if have := take(s, q, 1, time.Minute, time.Second); len(have) != row.stays {
					t.Errorf("%d messages come again, want %d", len(have), row.stays)
				}
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestASecondAcknowledgementIsAnsweredAfterTheFirst, whose outcome decides.
func TestASecondAcknowledgementIsAnsweredAfterTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q, way := doubted(t)
		send(t, s, q, "one")
		got := take(s, q, 1, time.Hour, time.Second)
		release := way.hold()
		answers := make(chan error, 2)
		for range 2 {
			go func() { answers <- commit(s, func(b *broker.Batch) { b.Settle(got[0].Ref, broker.ReasonAcked) }).Err }()
			synctest.Wait()
		}
		if n := len(answers); n > 0 {
			t.Errorf("%d were answered while nobody knows", n)
		}
		release()
		if first, second := <-answers, <-answers; errors.Join(first, second) == nil || first != nil && second != nil || !errors.Is(errors.Join(first, second), broker.ErrGone) {
			t.Errorf("answered %v and %v, want that one removed it", first, second)
		}
		counts(t, s, q, 0, 0)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestALateReceiptDoesNotSettleWhatIsHandedOutAgain while the store asks for its message,
// which an earlier start handed out.
func TestALateReceiptDoesNotSettleWhatIsHandedOutAgain(t *testing.T) {
	const lease = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		way := newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Hold: time.Second, Dial: []nats.Option{nats.InProcessServer(way)}}
		earlier, q := begun(t, o, broker.Def{})
		send(t, earlier, q, "one")
		first := take(earlier, q, 1, lease, time.Second)
		ends := time.Now().Add(lease)
		<-time.After(time.Second)
		earlier.Crash()

		s := open(t, o)
		s.Bind(make(heard, 10))
		second := make(chan []broker.Delivery)
		go func() { second <- take(s, q, 1, time.Hour, time.Minute) }()
		<-time.After(time.Until(ends) - 2*time.Second)
		way.mute.Store(true) // it asks, and nobody hears
		late := make(chan error)
		go func() {
			late <- commit(s, func(b *broker.Batch) { b.Settle(first[0].Ref, broker.ReasonAcked) }).Err
		}()
		again := <-second
		if len(again) != 1 || again[0].Attempt != 2 {
			t.Fatalf("after the lease %+v, want the second attempt", again)
		}
		way.mute.Store(false)
		if err := <-late; !errors.Is(err, broker.ErrStale) {
			t.Errorf("the late receipt: %v, want stale", err)
		}
		if r := commit(s, func(b *broker.Batch) { b.Settle(again[0].Ref, broker.ReasonAcked) }); r.Err != nil {
			t.Errorf("the receipt of the second attempt: %v", r.Err)
		}
		shut(t, s)
	})
}

// TestWhatIsUnderWayEndsWhenTheStoreFails, at once and as unknown.
func TestWhatIsUnderWayEndsWhenTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q, way := doubted(t)
		way.mute.Store(true)
		ended := make(chan error, 1)
		go func() {
			m := &broker.Message{Topic: "t", Payload: []byte("x"), QoS: 1, ID: broker.ID{1}}
			ended <- commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }).Err
		}()
		synctest.Wait()
		began := time.Now()
		s.Fail(errors.New("for the test"))
		if err := <-ended; !errors.Is(err, broker.ErrUnknown) || time.Since(began) != 0 {
			t.Errorf("a publish that was under way ends after %s with %v, want unknown at once", time.Since(began), err)
		}
		way.mute.Store(false)
		_ = s.Close(t.Context()) // it has failed
	})
}
