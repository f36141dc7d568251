package broker_test

import (
	"sync/atomic"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// TestMemoryLimitRefusesPublishers has consumers and acks go on meanwhile.
func TestMemoryLimitRefusesPublishers(t *testing.T) { // G6
	var over atomic.Bool
	f := open(t, func(o *broker.Options) { o.Overloaded = over.Load })
	f.queue("q", "t")
	if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	over.Store(true)
	_, publish := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1})
	_, send := f.Send(f.ctx, "q", &broker.Message{})
	_, batch := f.PublishBatch(f.ctx, []*broker.Message{{Topic: "u"}})
	var outcomes []broker.Outcome
	p := f.NewProducer(auth.From(f.ctx), func(os []broker.Outcome) { outcomes = append(outcomes, os...) })
	p.Publish(&broker.Message{Topic: "t"}, 7)
	p.Flush()
	if len(outcomes) != 1 {
		t.Fatalf("%d outcomes", len(outcomes))
	}
	for what, err := range map[string]error{"publish": publish, "send": send, "batch": batch, "producer": outcomes[0].Err} {
		if broker.KindOf(err) != broker.Full {
			t.Errorf("%s: %v, want Full", what, err)
		}
	}
	ds, err := f.Receive(f.ctx, "q", broker.ReceiveOptions{Max: 10})
	if err != nil || len(ds) != 1 {
		t.Fatalf("received %d, %v", len(ds), err)
	}
	over.Store(false)
	if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1}); err != nil {
		t.Error(err)
	}
}
