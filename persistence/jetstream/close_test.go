package jetstream_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// closeSoon closes s after a moment, and says how that ended.
func closeSoon(t *testing.T, s *jetstream.Store) <-chan error {
	t.Helper()
	end := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		end <- s.Close(ctx)
	})
	return end
}

// TestACloseWaitsForUnitsUnderWay, all of them: one that added what it moves removes it
// as well, however late the servers answer.
func TestACloseWaitsForUnitsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{nats.InProcessServer(way)}}
		s := open(t, o)
		s.Bind(make(heard, 10))
		var qs [2]broker.Target
		for i, name := range []string{"from", "to"} {
			var err error
			if qs[i], err = s.Define(t.Context(), broker.Def{Name: name, Kind: broker.QueueTarget}); err != nil {
				t.Fatal(err)
			}
		}
		send(t, s, qs[0], "one")
		got := take(s, qs[0], 1, time.Hour, time.Second)
		time.AfterFunc(3*time.Second, way.hold())
		end := closeSoon(t, s)
		r := commit(s, func(b *broker.Batch) {
			b.Publish(&broker.Message{Topic: "t", Payload: []byte("moved"), QoS: 1, ID: broker.ID{9}}, broker.Route{Target: qs[1]})
			b.Settle(got[0].Ref, broker.ReasonDeadLettered)
		})
		if err := <-end; r.Err != nil || err != nil {
			t.Errorf("the unit: %v; the close: %v", r.Err, err)
		}
		s = open(t, o)
		s.Bind(make(heard, 10))
		counts(t, s, qs[0], 0, 0)
		counts(t, s, qs[1], 1, 0)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestACloseReadsTheLogOfSessionsOn where a publish under way waits for that, though
// the servers have forgotten who reads it.
func TestACloseReadsTheLogOfSessionsOn(t *testing.T) {
	inBubble(t, func(x *clients) {
		s := x.session("s")
		log, err := jetStream(x.T, x.c).Stream(x.Context(), "mr_log")
		if err != nil {
			x.Fatal(err)
		}
		for tail := range log.ConsumerNames(x.Context()).Name() {
			if err := log.DeleteConsumer(x.Context(), tail); err != nil {
				x.Error(err)
			}
		}
		end := closeSoon(x.T, x.Store)
		if err := x.publish("one", s); err != nil {
			x.Error(err)
		}
		if err := <-end; err != nil {
			x.Error(err)
		}
		x.start()
		x.expect(s, "one")
	})
}
