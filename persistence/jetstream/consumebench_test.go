//go:build unix

package jetstream_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// BenchmarkConsume leases and settles messages of 256 bytes, 100 at a time, and
// shows the CPU that the server and the store take for one.
func BenchmarkConsume(b *testing.B) {
	for _, how := range []string{"queue", "part", "groups", "subscription"} {
		b.Run(how, func(b *testing.B) {
			c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: 1})
			s := open(b, jetstream.Options{URL: c.URL()})
			s.Bind(make(heard, 10))
			to, from := targetsOf(b, s, how)
			filter := ""
			if how == "part" {
				filter = "bench/#"
			}
			w := &broker.Wait{Target: from, Filter: filter, Max: 100, Lease: time.Minute, Sink: make(waited, 1)}
			x := &broker.Batch{}
			done := make(answered, 1)
			spentAll, n := time.Duration(0), uint64(0)
			for b.Loop() {
				b.StopTimer()
				publishMany(b, s, to, &n)
				b.StartTimer()
				before := spent(b)
				for left := 1000; left > 0; left -= len(w.Got) {
					w.Until = s.Now().Add(time.Minute)
					s.Receive(w)
					<-w.Sink.(waited)
					x.Reset()
					for i := range w.Got {
						x.Settle(w.Got[i].Ref, broker.ReasonAcked)
						x.End()
					}
					s.Submit(x, broker.Durable, done)
					<-done
				}
				spentAll += spent(b) - before
			}
			b.ReportMetric(float64(spentAll)/float64(time.Microsecond)/float64(n), "cpu-µs/msg")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
			if err := s.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}

// targetsOf defines what is published to, and what is received from.
func targetsOf(b *testing.B, s *jetstream.Store, how string) (to, from broker.Target) {
	b.Helper()
	define := func(d broker.Def) broker.Target {
		t, err := s.Define(b.Context(), d)
		if err != nil {
			b.Fatal(err)
		}
		return t
	}
	if how == "subscription" {
		to = define(broker.Def{Name: "s", Kind: broker.StreamTarget})
		return to, define(broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: to})
	}
	to = define(broker.Def{Name: "q", Kind: broker.QueueTarget, KeyedFIFO: how == "groups"})
	return to, to
}

// publishMany publishes a thousand messages, each with a key of its own.
func publishMany(b *testing.B, s broker.Store, to broker.Target, n *uint64) {
	b.Helper()
	x := &broker.Batch{}
	payload := make([]byte, 256)
	for range 1000 {
		*n++
		m := &broker.Message{Topic: "bench/topic", Payload: payload, QoS: 1, Key: fmt.Sprint(*n)}
		binary.BigEndian.PutUint64(m.ID[8:], *n)
		x.Publish(m, broker.Route{Target: to})
		x.End()
	}
	done := make(answered, 1)
	s.Submit(x, broker.Durable, done)
	<-done
}
