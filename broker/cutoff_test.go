package broker_test

import (
	"testing"
	"testing/synctest"

	"millrace/broker"
)

// TestANodeThatIsCutOffAcknowledgesNothingByWhatItKnew: others may have made queues
// since, of which it does not know. Live messages of QoS 0 go on.
func TestANodeThatIsCutOffAcknowledgesNothingByWhatItKnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a := s.start("a")
		away := s.Join("b")
		b := s.open(away)
		_, live := b.listen("t/#")
		away.CutOff()
		a.queue("q", "t/#")
		if _, err := b.Publish(b.ctx, &broker.Message{Topic: "t/1", Payload: []byte("x")}); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("a publish whose answer is waited for: %v", err)
		}
		if _, err := b.Queue(b.ctx, "q"); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("a queue that it does not know of: %v", err)
		}
		var outcomes []error
		p := b.NewProducer(nobody, func(os []broker.Outcome) {
			for i := range os {
				outcomes = append(outcomes, os[i].Err)
			}
		})
		for qos := byte(0); qos <= 2; qos++ {
			p.Publish(&broker.Message{Topic: "t/1", Payload: []byte{'0' + qos}, QoS: qos}, 0)
			p.Flush()
		}
		synctest.Wait()
		if len(outcomes) != 2 || broker.KindOf(outcomes[0]) != broker.Unavailable || broker.KindOf(outcomes[1]) != broker.Unavailable {
			t.Errorf("publishes of QoS 1 and 2 end with %v", outcomes)
		}
		wantText(t, "live messages", live.take(), "0")
	})
}

// TestWhatANodeHearsOfWhileItWaitsCounts for what it was asked meanwhile.
func TestWhatANodeHearsOfWhileItWaitsCounts(t *testing.T) {
	s := share(t, "")
	a := s.start("a")
	behind := s.Join("b")
	b := s.open(behind)
	behind.Behind(func() { a.queue("q", "t/#") })
	if p := b.publish("t/1", "one"); p.Matched.Queues != 1 {
		t.Errorf("matched %+v", p.Matched)
	}
	a.expect("q", "one")
	behind.Behind(func() { a.queue("r", "u/#") })
	if _, err := b.Queue(b.ctx, "r"); err != nil {
		t.Error(err)
	}
}
