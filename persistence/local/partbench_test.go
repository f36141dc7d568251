package local_test

import (
	"fmt"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
)

// behind is how many messages of other topics lie before those that are asked for.
const behind = 1_000_000

// BenchmarkPart takes messages of one topic from a queue in which a million of a
// thousand other topics wait before them. It shows how long the first filter
// that asks needs (first-ms), and another one when topics are known (next-ms);
// what the index of topics takes for a message; and then what each message costs that
// is published, received through the filter and acknowledged, beside one that a
// queue without others gives to everybody.
func BenchmarkPart(b *testing.B) {
	drivers(b, func(b *testing.B, s *local.Store) {
		b.Helper()
		q, alone := defineBench(b, s, "q", broker.QueueTarget), defineBench(b, s, "alone", broker.QueueTarget)
		p := newPipeline(s, 16)
		publishOthers(b, p, q)
		publishOne(b, p, "mine", q)
		publishOne(b, p, "yours", q)
		before := heapInUse()
		first := takeOne(b, s, q, "mine")
		second := takeOne(b, s, q, "yours")
		index := float64(heapInUse()-before) / behind
		for _, c := range []struct {
			name, filter string
			q            broker.Target
		}{{"part", "mine", q}, {"whole", "", alone}} {
			b.Run(c.name, func(b *testing.B) {
				r := newTaker(s, c.q, c.filter)
				begin := cpu()
				for range b.N {
					publishOne(b, p, "mine", c.q)
					r.take(b, p)
				}
				reportCPU(b, begin)
				b.ReportMetric(float64(first.Milliseconds()), "first-ms")
				b.ReportMetric(float64(second.Microseconds())/1000, "next-ms")
				b.ReportMetric(index, "index-B/msg")
			})
		}
	})
}

func publishOthers(b *testing.B, p *pipeline, q broker.Target) {
	b.Helper()
	topics := make([]string, 1000)
	for i := range topics {
		topics[i] = fmt.Sprintf("devices/%04d/temperature", i)
	}
	payload := make([]byte, 256)
	for i := 0; i < behind; {
		batch := p.next()
		for range benchBatch {
			batch.Publish(&broker.Message{Topic: topics[i%len(topics)], Payload: payload, QoS: 1}, broker.Route{Target: q})
			batch.End()
			i++
		}
		p.flush(batch)
	}
	p.wait(b)
}

func publishOne(b *testing.B, p *pipeline, topic string, q broker.Target) {
	b.Helper()
	batch := p.next()
	batch.Publish(&broker.Message{Topic: topic, Payload: make([]byte, 256), QoS: 1}, broker.Route{Target: q})
	batch.End()
	p.flush(batch)
	p.wait(b)
}

// taker takes one message at a time.
type taker struct {
	s *local.Store
	w broker.Wait
	c chan struct{}
}

func newTaker(s *local.Store, q broker.Target, filter string) *taker {
	r := &taker{s: s, c: make(chan struct{}, 1)}
	r.w = broker.Wait{Target: q, Filter: filter, Max: 1, Lease: time.Minute, Sink: r}
	return r
}

func (r *taker) Deliver(*broker.Wait) { r.c <- struct{}{} }

func (r *taker) take(b *testing.B, p *pipeline) {
	b.Helper()
	r.w.Until = time.Now().Add(time.Minute)
	r.s.Receive(&r.w)
	<-r.c
	if r.w.Err != nil || len(r.w.Got) != 1 {
		b.Fatalf("received %d messages, %v", len(r.w.Got), r.w.Err)
	}
	batch := p.next()
	batch.Settle(r.w.Got[0].Ref, broker.ReasonAcked)
	batch.End()
	p.flush(batch)
	p.wait(b)
}

// takeOne says how long a new consumer waits for the message that it wants.
func takeOne(b *testing.B, s *local.Store, q broker.Target, filter string) time.Duration {
	b.Helper()
	begin := time.Now()
	newTaker(s, q, filter).take(b, newPipeline(s, 1))
	return time.Since(begin)
}
