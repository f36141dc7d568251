package local_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// BenchmarkProducers has producers that wait for each answer before they publish
// the next message. It reports their rate as a part of what the disk does with
// one sync for a message of each, measured in turns so that both see the same
// load.
func BenchmarkProducers(b *testing.B) {
	for _, producers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) {
			s := open(b, local.Options{Dir: b.TempDir()})
			s.Bind(noEvents{})
			q := defineBench(b, s, "q", broker.QueueTarget)
			routes := []broker.Route{{Target: q}}
			publishAll(b, newPipeline(s, 16), 100_000, routes) // past the small segments
			disk := journaltest.RawDisk(b, (producers*360+4095)/4096)
			disk(100)
			const turn = 50
			before := s.Journal().State().Writes
			var raw, ours time.Duration
			groups := 0
			var used time.Duration
			for b.Loop() {
				raw += disk(turn)
				used -= cpu()
				ours += together(s, producers, turn, routes)
				used += cpu()
				groups += turn
			}
			b.ReportMetric(raw.Seconds()/ours.Seconds(), "ratio-to-disk")
			b.ReportMetric(float64(groups*producers)/ours.Seconds(), "msg/s")
			b.ReportMetric(float64(groups*producers)/float64(s.Journal().State().Writes-before), "msg/write")
			b.ReportMetric(float64(used.Nanoseconds())/float64(groups*producers), "cpu-ns/msg")
			shut(b, s)
		})
	}
}

// together has some producers publish n messages each, and returns how long that
// takes.
func together(s *local.Store, producers, n int, routes []broker.Route) time.Duration {
	begin := time.Now()
	var all sync.WaitGroup
	for range producers {
		all.Go(func() {
			m := &broker.Message{Topic: "devices/0001/temperature", Payload: make([]byte, 256), QoS: 1, Publisher: "device-0001"}
			batch, c := &broker.Batch{}, make(batches, 1)
			for range n {
				batch.Reset()
				batch.Publish(m, routes...)
				batch.End()
				s.Submit(batch, broker.Durable, c)
				<-c
			}
		})
	}
	all.Wait()
	return time.Since(begin)
}
