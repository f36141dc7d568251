package jetstream_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
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
