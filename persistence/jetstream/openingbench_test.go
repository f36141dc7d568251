//go:build unix

package jetstream_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// backlogs makes queues and sessions, and has the sessions wait for a tenth of what was
// published to them: one of them for the oldest, the others for the newest.
func backlogs(b *testing.B, s *jetstream.Store, queues, sessions, published int) {
	b.Helper()
	var makers sync.WaitGroup
	to := make([]broker.Target, sessions)
	for maker := range 8 {
		makers.Go(func() {
			for i := maker; i < queues; i += 8 {
				if _, err := s.Define(b.Context(), broker.Def{Name: fmt.Sprint("q", i), Kind: broker.QueueTarget}); err != nil {
					b.Error(err)
				}
			}
			for i := maker; i < sessions; i += 8 {
				t, err := s.Define(b.Context(), broker.Def{Name: fmt.Sprint("c", i), Kind: broker.SessionTarget})
				if err != nil {
					b.Error(err)
				}
				to[i] = t
			}
		})
	}
	makers.Wait()
	free := make(answered, 20)
	for range cap(free) {
		free <- &broker.Batch{}
	}
	away := published * 9 / 10
	publish := func(from, upTo int) {
		for n := from; n < upTo; {
			x := <-free
			x.Reset()
			for range 100 {
				m := &broker.Message{Topic: "bench/topic", Payload: make([]byte, 256), QoS: 1}
				binary.BigEndian.PutUint64(m.ID[8:], uint64(n)+1)
				x.Publish(m, broker.Route{Target: to[n%sessions], Tag: 1})
				x.End()
				n++
			}
			s.Submit(x, broker.Durable, free)
		}
		var all []*broker.Batch
		for range cap(free) {
			x := <-free
			for i := range x.Units {
				if err := x.Units[i].Result.Err; err != nil {
					b.Fatal(err)
				}
			}
			all = append(all, x)
		}
		for _, x := range all {
			x.Reset()
			free <- x
		}
	}
	publish(0, away)
	var takers sync.WaitGroup
	for taker := range 8 {
		takers.Go(func() {
			for i := taker; i < sessions; i += 8 {
				if i == 0 {
					continue // it is away all the time
				}
				got := take(s, to[i], 1000, time.Hour, time.Minute)
				if len(got) != away/sessions {
					b.Errorf("%d are received", len(got))
				}
				x, done := &broker.Batch{}, make(answered, 1)
				for i := range got {
					x.Settle(got[i].Ref, broker.ReasonAcked)
					x.End()
				}
				s.Submit(x, broker.Durable, done)
				<-done
			}
		})
	}
	takers.Wait()
	publish(away, published)
}

// BenchmarkOpening opens a store with 200 queues and 2,000 sessions whose log holds
// much that nobody waits for any more: as a node does that takes over from one that
// died.
func BenchmarkOpening(b *testing.B) {
	for _, servers := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d servers", servers), func(b *testing.B) {
			c := jetstreamtest.Start(b, jetstreamtest.Options{Servers: servers})
			o := jetstream.Options{URL: c.URL(), Hold: time.Second, Log: zerolog.New(os.Stderr)}
			s := open(b, o)
			s.Bind(make(heard, 1))
			began := time.Now()
			backlogs(b, s, 200, 2000, 200_000)
			b.Logf("filled in %s", time.Since(began))
			var cpu, wall time.Duration
			n := 0
			for b.Loop() {
				b.StopTimer()
				s.Crash()
				<-time.After(2 * o.Hold)
				b.StartTimer()
				before, began := spent(b), time.Now()
				s = open(b, o)
				cpu, wall = cpu+spent(b)-before, wall+time.Since(began)
				n++
			}
			b.ReportMetric(cpu.Seconds()/float64(n), "cpu-s/open")
			b.ReportMetric(wall.Seconds()/float64(n), "s/open")
			if err := s.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}
