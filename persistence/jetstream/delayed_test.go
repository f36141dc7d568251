package jetstream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
)

// TestADelayedPublishWhoseAnswerComesAfterItsTime: the message is in the queue before the
// node knows that it was delayed. It is counted once, and handed out.
func TestADelayedPublishWhoseAnswerComesAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q, way := doubted(t)
		m := &broker.Message{Topic: "t", Payload: []byte("early"), QoS: 1, ID: broker.ID{1}, NotBefore: s.Now().Add(10 * time.Millisecond).UnixMilli()}
		way.cut.Store(true)
		if err := commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }).Err; err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second)
		counts(t, s, q, 1, 0)
		if got := take(s, q, 2, time.Minute, time.Second); len(got) != 1 {
			t.Errorf("%d messages, want 1", len(got))
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
