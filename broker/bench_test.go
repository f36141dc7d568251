package broker_test

import (
	"sync/atomic"
	"testing"

	"millrace/broker"
	"millrace/persistence/local"
)

func onDisk(b *testing.B) *fixture {
	b.Helper()
	s, err := local.Open(local.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	return openOver(b, s)
}

// The whole way of a QoS 1 publish of 256 bytes through a producer, as an MQTT
// connection with a window does it: 100 messages a flush, durable.
func BenchmarkProducer(b *testing.B) {
	for name, prepare := range map[string]func(*fixture){
		"OneQueue": func(f *fixture) { f.queue("q", "t/#") },
		"OneQueueUnderALimitOfAll": func(f *fixture) {
			f.queue("q", "t/#")
			f.limit(broker.Limits{Stored: 1 << 50})
		},
		"ThreeQueuesAndAStream": func(f *fixture) {
			for _, q := range []string{"a", "b", "c"} {
				f.queue(q, "t/#")
			}
			if _, err := f.CreateStream(f.ctx, broker.NewStreamConfig("s", "t/#")); err != nil {
				b.Fatal(err)
			}
		},
		"Nothing": func(*fixture) {},
	} {
		b.Run(name, func(b *testing.B) {
			f := onDisk(b)
			prepare(f)
			payload := make([]byte, 256)
			var done atomic.Int64
			all := make(chan struct{})
			p := f.NewProducer(admin, func(os []broker.Outcome) {
				for i := range os {
					if os[i].Err != nil {
						b.Error(os[i].Err)
					}
				}
				if done.Add(int64(len(os))) == int64(b.N) {
					close(all)
				}
			})
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				p.Publish(&broker.Message{Topic: "t/1", Payload: payload, QoS: 1}, uint64(i))
				if i%100 == 99 {
					p.Flush()
				}
			}
			p.Flush()
			<-all
		})
	}
}

// Receive and ack in batches of 100, as a service does over HTTP.
func BenchmarkReceiveAndAck(b *testing.B) {
	f := onDisk(b)
	f.queue("q", "t")
	publish := func(n int) {
		var ms []*broker.Message
		for range n {
			ms = append(ms, &broker.Message{Topic: "t", Payload: make([]byte, 256), QoS: 1})
		}
		if _, err := f.PublishBatch(f.ctx, ms); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for n := 0; n < b.N; n += 100 {
		b.StopTimer()
		publish(100)
		b.StartTimer()
		got := f.receive("q", 100)
		ss := make([]broker.Settlement, len(got))
		for i := range got {
			ss[i] = broker.Settlement{ID: got[i].ID, Receipt: got[i].Receipt}
		}
		if _, err := f.AckBatch(f.ctx, "q", ss); err != nil {
			b.Fatal(err)
		}
	}
}

type nullSink struct{}

func (nullSink) Deliver(*broker.Message, []*broker.Subscription) {}

// A QoS 0 publish to a hundred live subscriptions of one sink.
func BenchmarkFanOut(b *testing.B) {
	f := onDisk(b)
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
}
