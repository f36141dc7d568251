package local_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
)

// drivers runs a benchmark on each driver.
func drivers(b *testing.B, run func(b *testing.B, s *local.Store)) {
	b.Helper()
	for _, name := range []string{"memory", "disk"} {
		b.Run(name, func(b *testing.B) {
			o := local.Options{}
			if name == "disk" {
				o.Dir = b.TempDir()
			}
			s, err := local.Open(o)
			if err != nil {
				b.Fatal(err)
			}
			s.Bind(noEvents{})
			run(b, s)
			if err := s.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func defineBench(b *testing.B, s *local.Store, name string, kind broker.TargetKind) broker.Target {
	b.Helper()
	t, err := s.Define(context.Background(), broker.Def{Name: name, Kind: kind, Partitions: 1})
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// pipeline keeps some batches under way.
type pipeline struct {
	s    *local.Store
	free chan *broker.Batch
	bad  error
}

func newPipeline(s *local.Store, depth int) *pipeline {
	p := &pipeline{s: s, free: make(chan *broker.Batch, depth)}
	for range depth {
		p.free <- &broker.Batch{}
	}
	return p
}

func (p *pipeline) Done(b *broker.Batch) {
	for i := range b.Units {
		if err := b.Units[i].Result.Err; err != nil {
			p.bad = err
		}
	}
	p.free <- b
}

func (p *pipeline) next() *broker.Batch {
	b := <-p.free
	b.Reset()
	return b
}

func (p *pipeline) flush(b *broker.Batch) { p.s.Submit(b, broker.Durable, p) }

func (p *pipeline) wait(tb testing.TB) {
	tb.Helper()
	var all [16]*broker.Batch
	n := cap(p.free)
	for i := range n {
		all[i] = <-p.free
	}
	if p.bad != nil {
		tb.Fatal(p.bad)
	}
	for i := range n {
		p.free <- all[i]
	}
}

const benchBatch = 100

// publishAll publishes n messages of 256 bytes.
func publishAll(tb testing.TB, p *pipeline, n int, routes []broker.Route) {
	tb.Helper()
	m := &broker.Message{Topic: "devices/0001/temperature", Payload: make([]byte, 256), Published: time.Now().UnixMilli(), QoS: 1, Publisher: "device-0001"}
	for n > 0 {
		b := p.next()
		for range min(n, benchBatch) {
			b.Publish(m, routes...)
			b.End()
		}
		n -= min(n, benchBatch)
		p.flush(b)
	}
	p.wait(tb)
}

func reportCPU(b *testing.B, begin time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpu()-begin)/float64(b.N), "cpu-ns/op")
}

func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct{ queues, streams int }{{1, 0}, {3, 1}} {
		b.Run(fmt.Sprintf("%dq%ds", c.queues, c.streams), func(b *testing.B) {
			drivers(b, func(b *testing.B, s *local.Store) {
				b.Helper()
				var routes []broker.Route
				for i := range c.queues {
					routes = append(routes, broker.Route{Target: defineBench(b, s, fmt.Sprint("q", i), broker.QueueTarget)})
				}
				for range c.streams {
					routes = append(routes, broker.Route{Target: defineBench(b, s, "s", broker.StreamTarget)})
				}
				p := newPipeline(s, 16)
				publishAll(b, p, 10000, routes)
				b.ReportAllocs()
				b.ResetTimer()
				begin := cpu()
				publishAll(b, p, b.N, routes)
				reportCPU(b, begin)
			})
		})
	}
}

// consumer receives and settles by the hundred.
type consumer struct {
	w   broker.Wait
	got chan struct{}
}

func (c *consumer) Deliver(*broker.Wait) { c.got <- struct{}{} }

// consume receives and settles n messages.
func consume(tb testing.TB, s *local.Store, p *pipeline, q broker.Target, n int) {
	tb.Helper()
	c := &consumer{got: make(chan struct{}, 1)}
	c.w = broker.Wait{Target: q, Lease: time.Minute, Sink: c}
	for n > 0 {
		c.w.Max, c.w.Until = min(n, benchBatch), time.Now().Add(10*time.Second)
		s.Receive(&c.w)
		<-c.got
		if c.w.Err != nil || len(c.w.Got) == 0 {
			tb.Fatalf("got %d, %v", len(c.w.Got), c.w.Err)
		}
		n -= len(c.w.Got)
		b := p.next()
		for i := range c.w.Got {
			b.Settle(c.w.Got[i].Ref, broker.ReasonAcked)
			b.End()
		}
		p.flush(b)
	}
	p.wait(tb)
}

func BenchmarkReceiveAndSettle(b *testing.B) {
	drivers(b, func(b *testing.B, s *local.Store) {
		b.Helper()
		q := defineBench(b, s, "q", broker.QueueTarget)
		p := newPipeline(s, 16)
		publishAll(b, p, b.N, []broker.Route{{Target: q}})
		b.ReportAllocs()
		b.ResetTimer()
		begin := cpu()
		consume(b, s, p, q, b.N)
		reportCPU(b, begin)
	})
}

// BenchmarkSubscription is BenchmarkReceiveAndSettle of a subscription.
func BenchmarkSubscription(b *testing.B) {
	drivers(b, func(b *testing.B, s *local.Store) {
		b.Helper()
		st := defineBench(b, s, "s", broker.StreamTarget)
		sub := subscriptionOf(b, s, st)
		p := newPipeline(s, 16)
		publishAll(b, p, b.N, []broker.Route{{Target: st}})
		b.ReportAllocs()
		b.ResetTimer()
		begin := cpu()
		consume(b, s, p, sub, b.N)
		reportCPU(b, begin)
	})
}

// BenchmarkSteady is publish, receive and settle of 100 at a time, in a queue
// that is nearly empty and in one where a million wait.
func BenchmarkSteady(b *testing.B) {
	for _, backlog := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(backlog), func(b *testing.B) {
			drivers(b, func(b *testing.B, s *local.Store) {
				b.Helper()
				q := defineBench(b, s, "q", broker.QueueTarget)
				p := newPipeline(s, 16)
				routes := []broker.Route{{Target: q}}
				publishAll(b, p, backlog, routes)
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				begin := cpu()
				for n := b.N; n > 0; n -= benchBatch {
					publishAll(b, p, min(n, benchBatch), routes)
					consume(b, s, p, q, min(n, benchBatch))
				}
				reportCPU(b, begin)
			})
		})
	}
}

// BenchmarkWaiting reports what a waiting message costs in memory, at a
// million, and how long it takes to open a store with them.
func BenchmarkWaiting(b *testing.B) {
	for range b.N {
		o := local.Options{Dir: b.TempDir(), CacheSize: 1 << 20}
		s, err := local.Open(o)
		if err != nil {
			b.Fatal(err)
		}
		s.Bind(noEvents{})
		q := defineBench(b, s, "q", broker.QueueTarget)
		p := newPipeline(s, 16)
		before := heapInUse()
		const n = 1_000_000
		publishAll(b, p, n, []broker.Route{{Target: q}})
		b.ReportMetric(float64(heapInUse()-before)/n, "B/message")
		if err := s.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
		begin := cpu()
		s, err = local.Open(o)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((cpu() - begin).Seconds(), "open-cpu-s")
		if err := s.Close(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkKeyed is BenchmarkSteady with FIFO groups: every waiting message has
// a key of its own, and is received in batches of 10.
func BenchmarkKeyed(b *testing.B) {
	for _, backlog := range []int{1000, 200_000} {
		b.Run(fmt.Sprint(backlog), func(b *testing.B) {
			drivers(b, func(b *testing.B, s *local.Store) {
				b.Helper()
				q, err := s.Define(context.Background(), broker.Def{Name: "q", Kind: broker.QueueTarget, KeyedFIFO: true})
				if err != nil {
					b.Fatal(err)
				}
				p := newPipeline(s, 16)
				key := 0
				publish := func(n int) {
					for n > 0 {
						batch := p.next()
						for range min(n, benchBatch) {
							key++
							batch.Publish(&broker.Message{Topic: "t", Key: fmt.Sprint(key), Payload: make([]byte, 256)}, broker.Route{Target: q})
							batch.End()
						}
						n -= min(n, benchBatch)
						p.flush(batch)
					}
					p.wait(b)
				}
				publish(backlog)
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				begin := cpu()
				for n := b.N; n > 0; n -= 10 {
					publish(min(n, 10))
					consume(b, s, p, q, min(n, 10))
				}
				reportCPU(b, begin)
			})
		})
	}
}
