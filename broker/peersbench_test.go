package broker_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"millrace/broker"
	"millrace/broker/clustertest"
)

// nodes are the settings whose costs are compared: a broker without a Cluster, one
// that is its only node, and one of two.
func nodes(b *testing.B, run func(b *testing.B, f *fixture)) {
	b.Helper()
	b.Run("NoCluster", func(b *testing.B) { run(b, open(b)) })
	b.Run("OneNode", func(b *testing.B) { run(b, share(b, "").start("a")) })
	b.Run("AnotherThatWantsNothing", func(b *testing.B) {
		nodes := share(b, "")
		f := nodes.start("a")
		nodes.start("b")
		run(b, f)
	})
}

// A QoS 0 publish to a hundred live subscriptions of one sink.
func BenchmarkNodesFanOut(b *testing.B) {
	nodes(b, func(b *testing.B, f *fixture) {
		b.Helper()
		for range 100 {
			if err := f.Subscribe(&broker.Subscription{Filter: "t/+", Principal: admin, Sink: nullSink{}}); err != nil {
				b.Fatal(err)
			}
		}
		p := f.NewProducer(admin, nil)
		m := &broker.Message{Topic: "t/1", Payload: make([]byte, 256)}
		b.ReportAllocs()
		for b.Loop() {
			p.Publish(m, 0)
		}
	})
}

// A QoS 1 publish to one queue and one live subscription, in memory, 100 a flush.
func BenchmarkNodesPublish(b *testing.B) {
	nodes(b, func(b *testing.B, f *fixture) {
		b.Helper()
		f.queue("q", "t/#", func(c *broker.QueueConfig) { c.MaxMessages = 1000 })
		if err := f.Subscribe(&broker.Subscription{Filter: "t/+", Principal: admin, Sink: nullSink{}}); err != nil {
			b.Fatal(err)
		}
		p := f.NewProducer(admin, func([]broker.Outcome) {})
		payload := make([]byte, 256)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.Publish(&broker.Message{Topic: "t/1", Payload: payload, QoS: 1}, uint64(i))
			if i%100 == 99 {
				p.Flush()
			}
		}
		p.Flush()
	})
}

// A QoS 0 publish of 256 bytes that another node wants, until it is handed to the
// network: what does not fit there would be shed.
func BenchmarkNodesSend(b *testing.B) {
	bus := clustertest.New(b)
	f, n := start(b, bus, "a")
	other, _ := start(b, bus, "b")
	if err := other.Subscribe(&broker.Subscription{Filter: "t/+", Principal: admin, Sink: nullSink{}}); err != nil {
		b.Fatal(err)
	}
	n.SetTell(func(string, []byte) {})
	p := f.NewProducer(admin, nil)
	m := &broker.Message{Topic: "t/1", Payload: make([]byte, 256)}
	b.ReportAllocs()
	b.SetBytes(256)
	for b.Loop() {
		p.Publish(m, 0)
	}
	st := f.Stats().Nodes
	b.ReportMetric(float64(st.Sent)/float64(max(1, st.Frames)), "messages/frame")
	b.ReportMetric(float64(st.Shed)/float64(b.N), "shed/op")
}

// A frame of 100 messages of 256 bytes from another node, to one live subscription.
func BenchmarkNodesReceive(b *testing.B) {
	for name, filter := range map[string]string{"Wanted": "t/+", "NotWantedAnyMore": "x"} {
		b.Run(name, func(b *testing.B) {
			bus := clustertest.New(b)
			f, n := start(b, bus, "a")
			other, on := start(b, bus, "b")
			s, _ := other.listen("t/+")
			frames := make(chan []byte, 101)
			held := make(chan struct{})
			n.Hold(held)
			n.SetTell(func(kind string, body []byte) {
				if kind == "live" {
					frames <- slices.Clone(body)
				}
			})
			for range 101 { // the first few have frames of their own
				f.say(0, "t/1", string(make([]byte, 256)))
			}
			close(held)
			var frame []byte
			count := 0
			for ; count < 50; count = int(binary.LittleEndian.Uint32(frame[25:])) {
				frame = <-frames
			}
			other.Unsubscribe(s)
			if err := other.Subscribe(&broker.Subscription{Filter: filter, Principal: admin, Sink: nullSink{}}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				on.Hear("live", "a", frame)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/message")
		})
	}
}
