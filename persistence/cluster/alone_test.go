package cluster_test

import (
	"encoding/binary"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// BenchmarkANodeThatIsAlone compares one that leads nobody with the store that it leads
// on: publishes to a queue, which tell nobody anything, and keys, of which it tells
// itself.
func BenchmarkANodeThatIsAlone(b *testing.B) {
	c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: 1})
	for name, start := range map[string]func(b *testing.B) broker.Store{
		"straight": func(b *testing.B) broker.Store {
			b.Helper()
			s, err := jetstream.Open(b.Context(), jetstream.Options{URL: c.URL(), Replicas: 1, Prefix: "straight"})
			if err != nil {
				b.Fatal(err)
			}
			s.Bind(&heard{})
			return s
		},
		"alone": func(b *testing.B) broker.Store {
			b.Helper()
			s := open(b, jetstream.Options{URL: c.URL(), Replicas: 1, Prefix: "alone", Node: "a"})
			s.Follow(deafEvents{})
			s.Bind(&heard{})
			return s
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := start(b)
			defer func() { _ = s.Close(b.Context()) }()
			q, err := s.Define(b.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
			if err != nil {
				b.Fatal(err)
			}
			var n uint64
			b.Run("publish", func(b *testing.B) {
				flood(b, s, func(x *broker.Batch) {
					n++
					m := &broker.Message{Topic: "a", Payload: make([]byte, 256), Published: time.Now().UnixMilli()}
					binary.BigEndian.PutUint64(m.ID[:], n|1<<40)
					x.Publish(m, broker.Route{Target: q})
				})
			})
			b.Run("key", func(b *testing.B) {
				flood(b, s, func(x *broker.Batch) {
					n++
					x.Put(broker.SpaceRetained, string(binary.AppendUvarint([]byte("k"), n%1000)), make([]byte, 256), 0)
				})
			})
		})
	}
}

// deafEvents wants to know all, and does nothing with it.
type deafEvents struct{ broker.ClusterEvents }

func (deafEvents) Wants(broker.Space, string) bool     { return true }
func (deafEvents) Defined(broker.Definition)           {}
func (deafEvents) Recorded(broker.Space, broker.Entry) {}
func (deafEvents) Led()                                {}
func (deafEvents) Alone(bool)                          {}

// flood submits batches of 16 units, 32 at a time.
func flood(b *testing.B, s broker.Store, add func(*broker.Batch)) {
	b.Helper()
	b.ReportAllocs()
	free := make(done, 32)
	for range cap(free) {
		free <- new(broker.Batch)
	}
	for i := 0; i < b.N; {
		x := <-free
		for j := range x.Units {
			if err := x.Units[j].Result.Err; err != nil {
				b.Fatal(err)
			}
		}
		x.Reset()
		for range 16 {
			add(x)
			x.End()
			i++
		}
		s.Submit(x, broker.Durable, free)
	}
	for range cap(free) {
		<-free
	}
}
