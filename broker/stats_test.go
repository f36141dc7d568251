package broker_test

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
)

// figures is what Stats says of publishes.
type figures struct{ taken, refused, duplicates, stored, unmatched uint64 }

func (f *fixture) figures() figures {
	s := f.Stats()
	return figures{s.Published, s.Refused, s.Duplicates, s.Stored, s.Unmatched}
}

func TestStatsCountWhatProducersOffered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "a/#", func(c *broker.QueueConfig) { c.DeadLetterTopic, c.MaxRetries = "dead", 0 })
		f.queue("dead", "dead")
		f.publish("a/1", "stored")
		f.publish("nobody", "unmatched")
		for range 2 {
			if _, err := f.Publish(f.ctx, &broker.Message{Topic: "a/1", Payload: []byte("x"), DedupKey: "k"}); err != nil {
				t.Fatal(err)
			}
		}
		bad := []*broker.Message{{Topic: "a/1"}, {Topic: "a/+"}}
		if _, err := f.PublishBatch(f.ctx, bad); err == nil {
			t.Fatal("a batch with a wildcard in a topic was taken")
		}
		p := f.NewProducer(admin, func([]broker.Outcome) {})
		p.Publish(&broker.Message{Topic: "nobody"}, 0) // QoS 0: it has no outcome
		p.Flush()
		if got, want := f.figures(), (figures{taken: 5, refused: 2, duplicates: 1, stored: 2, unmatched: 2}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}

		// Nobody offered what the broker itself sends on.
		before := f.figures()
		f.nackAll("q")
		f.await("dead", 1, 10*time.Second)
		a := f.NewAnnouncer(func(err error) { t.Error(err) })
		a.Announce(&broker.Message{Topic: "$SYS/broker/uptime", Retain: true})
		a.Flush()
		if got := f.figures(); got != before {
			t.Errorf("with dead letters and announcements %+v, want %+v", got, before)
		}
	})
}

// nackAll gives back what is ready now.
func (f *fixture) nackAll(queue string) {
	f.tb.Helper()
	for _, r := range f.receive(queue, 10) {
		if _, err := f.Nack(f.ctx, queue, r.ID, r.Receipt, 0); err != nil {
			f.tb.Fatal(err)
		}
	}
}

func TestStatsCountWhatIsOverARate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t, func(o *broker.Options) {
			var err error
			o.Auth, err = auth.Open(t.Context(), auth.Options{
				Store: broker.NewKeys(o.Store, broker.SpaceAuth), AllowAnonymous: true, Log: zerolog.Nop(), Rates: auth.Rates{Messages: 1},
			})
			if err != nil {
				t.Fatal(err)
			}
		})
		f.publish("a", "x")
		if _, err := f.Publish(f.ctx, &broker.Message{Topic: "a", QoS: 1}); broker.KindOf(err) != broker.Full {
			t.Fatalf("the second message of a second: %v", err)
		}
		ms := []broker.StreamMessage{message("x"), message("y")}
		if err := f.producer("s", "b", true).Publish(f.ctx, ms); broker.KindOf(err) != broker.Full {
			t.Fatalf("two more to a stream: %v", err)
		}
		if got, want := f.figures(), (figures{taken: 1, refused: 3, unmatched: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}
