package jetstream_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// keyed publishes messages whose key is the first letter of their body.
func keyed(t *testing.T, s broker.Store, q broker.Target, list ...string) {
	t.Helper()
	for _, body := range list {
		m := &broker.Message{Topic: "t/" + body, Payload: []byte(body), Key: body[:1], QoS: 1}
		copy(m.ID[:], body)
		if r := commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// got fails unless the bodies are those, in order.
func got(t *testing.T, ds []broker.Delivery, want ...string) []broker.Delivery {
	t.Helper()
	have := []string{}
	for _, d := range ds {
		have = append(have, string(d.Payload))
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", have, want)
	}
	return ds
}

// ack settles deliveries.
func ack(t *testing.T, s broker.Store, ds ...broker.Delivery) {
	t.Helper()
	for _, d := range ds {
		if r := commit(s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) }); r.Err != nil {
			t.Errorf("ack of %s: %v", d.Payload, r.Err)
		}
	}
}

// pick receives by topic what is there now.
func pick(s broker.Store, q broker.Target, filter string, limit int, lease time.Duration) []broker.Delivery {
	w := &broker.Wait{Target: q, Filter: filter, Max: limit, Lease: lease, Sink: make(waited, 1)}
	s.Receive(w)
	<-w.Sink.(waited)
	return w.Got
}

// lone opens stores on one server, in fake time.
func alone(t *testing.T) jetstream.Options {
	return jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{jetstreamtest.InProcess(t).Dial()}}
}

// begun opens a store and defines a queue.
func begun(t *testing.T, o jetstream.Options, d broker.Def) (*jetstream.Store, broker.Target) {
	t.Helper()
	s := open(t, o)
	s.Bind(make(heard, 100))
	d.Name, d.Kind = "q", broker.QueueTarget
	q, err := s.Define(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return s, q
}

func shut(t *testing.T, s *jetstream.Store) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestKeysStayTakenWhenANodeDies has the next node keep the order of each key,
// although it does not know who has what.
func TestKeysStayTakenWhenANodeDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := alone(t)
		s, q := begun(t, o, broker.Def{KeyedFIFO: true})
		keyed(t, s, q, "a1", "a2", "b1", "a3", "b2", "c1")
		first := got(t, take(s, q, 2, time.Minute, time.Second), "a1", "b1") // a2 was put off
		s.Crash()
		s = open(t, o)
		s.Bind(make(heard, 10))
		c := got(t, take(s, q, 10, time.Hour, 10*time.Second), "c1")
		ack(t, s, first[0]) // a receipt of before
		got(t, take(s, q, 10, time.Hour, 30*time.Second))
		<-time.After(30 * time.Second) // the lease of b1 is over, and a2 was put off for as long
		again := got(t, take(s, q, 10, time.Hour, time.Second), "a2", "b1")
		if again[0].Attempt != 1 || again[1].Attempt != 1 {
			t.Errorf("attempts are %d and %d, want them counted anew", again[0].Attempt, again[1].Attempt)
		}
		ack(t, s, again[1], c[0])
		got(t, take(s, q, 10, time.Hour, time.Second), "b2")
		if in, err := s.Info(t.Context(), q); err != nil || in.Leased != 2 || in.Ready != 1 {
			t.Errorf("%+v, %v; want a2 and b2 leased and a3 ready", in, err)
		}
		shut(t, s)
	})
}

// TestAQueueLooksAheadForAFreeKey as far as it is told, and no message farther.
func TestAQueueLooksAheadForAFreeKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := alone(t)
		o.LookAhead = 3
		s, q := begun(t, o, broker.Def{KeyedFIFO: true})
		keyed(t, s, q, "a1", "a2", "a3", "b1", "a4", "c1")
		a := got(t, take(s, q, 1, time.Hour, time.Second), "a1")
		got(t, take(s, q, 10, time.Hour, time.Second), "b1") // behind two of a
		got(t, take(s, q, 10, time.Hour, time.Second))       // c1 is behind three
		ack(t, s, a...)
		ack(t, s, got(t, take(s, q, 1, time.Hour, time.Second), "a2")...)
		got(t, take(s, q, 10, time.Hour, time.Second), "a3", "c1")
		shut(t, s)
	})
}

// TestWhatExpiresOrIsPurgedPassesItsKeyOn, also what waits for a key.
func TestWhatExpiresOrIsPurgedPassesItsKeyOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := begun(t, alone(t), broker.Def{KeyedFIFO: true, TTL: time.Minute})
		keyed(t, s, q, "a1", "a2", "a3")
		first := got(t, take(s, q, 10, 90*time.Second, time.Second), "a1")
		<-time.After(70 * time.Second) // a2 and a3 expire in their line
		if in, err := s.Info(t.Context(), q); err != nil || in.Out[broker.ReasonExpired] != 2 || in.Leased != 1 {
			t.Errorf("%+v, %v; want 2 expired", in, err)
		}
		keyed(t, s, q, "a4", "a5")
		got(t, take(s, q, 10, time.Hour, time.Second))
		ack(t, s, first...)
		got(t, take(s, q, 10, time.Hour, time.Second), "a4")
		if r := commit(s, func(b *broker.Batch) { b.Purge(q, true) }); r.Err != nil || r.Count != 2 {
			t.Errorf("purged %d, %v; want a4 and a5", r.Count, r.Err)
		}
		keyed(t, s, q, "a6")
		got(t, take(s, q, 10, time.Hour, time.Second), "a6")
		shut(t, s)
	})
}
