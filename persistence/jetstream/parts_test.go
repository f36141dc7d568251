package jetstream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
)

// TestWhatWasTakenByTopicIsHeldFromOthers: JetStream hands it out to those who take
// the whole queue, and the node does not let them have it.
func TestWhatWasTakenByTopicIsHeldFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := begun(t, alone(t), broker.Def{LapseAt: 3})
		keyed(t, s, q, "a", "b", "c")
		got(t, pick(s, q, "t/b", 1, time.Minute), "b")
		got(t, take(s, q, 10, time.Hour, time.Second), "a", "c")
		got(t, take(s, q, 10, time.Hour, 58*time.Second))
		back := got(t, take(s, q, 10, time.Second, 3*time.Second), "b") // its lease is over
		if back[0].Attempt != 2 {
			t.Errorf("attempt is %d, want 2", back[0].Attempt)
		}
		<-time.After(2 * time.Second)
		last := got(t, pick(s, q, "t/#", 10, time.Second), "b")
		if last[0].Attempt != 3 {
			t.Errorf("attempt is %d, want 3", last[0].Attempt)
		}
		<-time.After(2 * time.Second)
		if in, err := s.Info(t.Context(), q); err != nil || in.Held != 1 || in.Leased != 2 || in.Difference() != 0 {
			t.Errorf("%+v, %v; want b held after its last attempt", in, err)
		}
		shut(t, s)
	})
}

// TestAReceiptOfWhatWasTakenByTopicOutlivesItsNode, and its message goes for good.
func TestAReceiptOfWhatWasTakenByTopicOutlivesItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := alone(t)
		s, q := begun(t, o, broker.Def{})
		keyed(t, s, q, "a", "b", "c", "d")
		picked := pick(s, q, "t/b", 1, time.Hour)
		picked = append(picked, pick(s, q, "t/c", 1, time.Hour)...)
		ack(t, s, pick(s, q, "t/d", 1, time.Hour)...)
		got(t, picked, "b", "c")
		s.Crash()
		s = open(t, o)
		s.Bind(make(heard, 10))
		ack(t, s, picked[0])
		got(t, take(s, q, 10, time.Minute, 10*time.Second), "a", "c")
		shut(t, s)
		s = open(t, o)
		s.Bind(make(heard, 10))
		if in, err := s.Info(t.Context(), q); err != nil || in.Leased != 2 || in.Ready != 0 {
			t.Errorf("%+v, %v; want a and c leased", in, err)
		}
		shut(t, s)
	})
}

// TestWhatADeadNodeHadIsFoundByTopic by consumers who never take the whole queue.
func TestWhatADeadNodeHadIsFoundByTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := alone(t)
		s, q := begun(t, o, broker.Def{})
		keyed(t, s, q, "a", "b", "c")
		got(t, take(s, q, 2, time.Hour, time.Second), "a", "b")
		s.Crash()
		s = open(t, o)
		s.Bind(make(heard, 10))
		picked := got(t, pick(s, q, "t/+", 10, time.Minute), "a", "b", "c")
		if r := commit(s, func(b *broker.Batch) { b.Return(picked[1].Ref) }); r.Err != nil {
			t.Error(r.Err)
		}
		if again := got(t, pick(s, q, "t/b", 10, time.Minute), "b"); again[0].Attempt != picked[1].Attempt {
			t.Errorf("after a return the attempt is %d, want %d again", again[0].Attempt, picked[1].Attempt)
		}
		ack(t, s, picked[0], picked[2])
		if in, err := s.Info(t.Context(), q); err != nil || in.Leased != 1 || in.Ready != 0 {
			t.Errorf("%+v, %v; want b leased", in, err)
		}
		shut(t, s)
	})
}

// TestConsumingByTopicTakesAMessageOut of JetStream, which never handed it out.
func TestConsumingByTopicTakesAMessageOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := begun(t, alone(t), broker.Def{})
		keyed(t, s, q, "a", "b")
		w := &broker.Wait{Target: q, Filter: "t/b", Max: 1, Consume: true, Sink: make(waited, 1)}
		s.Receive(w)
		<-w.Sink.(waited)
		got(t, w.Got, "b")
		got(t, take(s, q, 10, time.Hour, time.Second), "a")
		if in, err := s.Info(t.Context(), q); err != nil || in.Out[broker.ReasonAcked] != 1 || in.Difference() != 0 {
			t.Errorf("%+v, %v; want one acked", in, err)
		}
		shut(t, s)
	})
}
