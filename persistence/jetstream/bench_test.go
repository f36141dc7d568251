//go:build unix

package jetstream_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// spent is the CPU time of this process: servers, client and benchmark.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkPublish publishes 256 bytes into a queue, in batches of a size, of which so
// many are under way, and shows the CPU that all servers and the store take for one.
func BenchmarkPublish(b *testing.B) {
	for _, x := range []struct{ servers, size, depth int }{{1, 1, 64}, {1, 1, 1024}, {1, 100, 20}, {3, 1, 64}, {3, 1, 1024}, {3, 100, 20}} {
		b.Run(fmt.Sprintf("%d servers, %d batches of %d", x.servers, x.depth, x.size), func(b *testing.B) {
			c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: x.servers})
			s := open(b, jetstream.Options{URL: c.URL()})
			q, err := s.Define(b.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
			if err != nil {
				b.Fatal(err)
			}
			size, depth := x.size, x.depth
			free := make(answered, depth)
			for range depth {
				free <- &broker.Batch{}
			}
			payload := make([]byte, 256)
			n := uint64(0)
			b.ResetTimer()
			before := spent(b)
			for b.Loop() {
				x := <-free
				for i := range x.Units {
					if err := x.Units[i].Result.Err; err != nil {
						b.Fatal(err)
					}
				}
				x.Reset()
				for range size {
					n++
					m := &broker.Message{Topic: "bench/topic", Payload: payload, QoS: 1}
					binary.BigEndian.PutUint64(m.ID[8:], n)
					x.Publish(m, broker.Route{Target: q})
					x.End()
				}
				s.Submit(x, broker.Durable, free)
			}
			for range depth {
				<-free
			}
			b.ReportMetric(float64(spent(b)-before)/float64(time.Microsecond)/float64(n), "cpu-µs/msg")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
			if err := s.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkQueues makes 200 queues, 8 at a time, and opens the store with them.
func BenchmarkQueues(b *testing.B) {
	c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: 3})
	o := jetstream.Options{URL: c.URL()}
	s := open(b, o)
	began := time.Now()
	var makers sync.WaitGroup
	for maker := range 8 {
		makers.Go(func() {
			for i := range 25 {
				if _, err := s.Define(b.Context(), broker.Def{Name: fmt.Sprint("q", maker, "-", i), Kind: broker.QueueTarget}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	makers.Wait()
	made := time.Since(began)
	for b.Loop() {
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		s = open(b, o)
	}
	b.ReportMetric(made.Seconds(), "s/made")
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSessions publishes 256 bytes to sessions whose clients are away, and shows
// the CPU of it all for one publish; then what a client that fetches them costs for
// one message, 64 to a batch.
func BenchmarkSessions(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d sessions", n), func(b *testing.B) {
			c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: 1})
			s := open(b, jetstream.Options{URL: c.URL()})
			s.Bind(make(heard, 1))
			to := make([]broker.Route, n)
			for i := range to {
				t, err := s.Define(b.Context(), broker.Def{Name: fmt.Sprint("c", i), Kind: broker.SessionTarget})
				if err != nil {
					b.Fatal(err)
				}
				to[i] = broker.Route{Target: t}
			}
			free := make(answered, 100)
			for range cap(free) {
				free <- &broker.Batch{}
			}
			sent := uint64(0)
			before := spent(b)
			for b.Loop() {
				x := <-free
				x.Reset()
				sent++
				m := &broker.Message{Topic: "bench/topic", Payload: make([]byte, 256), QoS: 1}
				binary.BigEndian.PutUint64(m.ID[8:], sent)
				x.Publish(m, to...)
				x.End()
				s.Submit(x, broker.Durable, free)
			}
			for range cap(free) {
				<-free
			}
			b.ReportMetric(float64(spent(b)-before)/float64(time.Microsecond)/float64(sent), "cpu-µs/publish")
			before = spent(b)
			for got := uint64(0); got < sent; {
				ds := take(s, to[0].Target, 64, time.Hour, time.Minute)
				got += uint64(len(ds))
				x := &broker.Batch{}
				for i := range ds {
					x.Settle(ds[i].Ref, broker.ReasonAcked)
					x.End()
				}
				done := make(answered, 1)
				s.Submit(x, broker.Durable, done)
				<-done
			}
			b.ReportMetric(float64(spent(b)-before)/float64(time.Microsecond)/float64(sent), "cpu-µs/fetched")
			if err := s.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}
