package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/local"
)

// rawDisk returns a function that writes and syncs some pages of a zero-filled
// file n times: the most that this disk can do for a group that waits for it.
func rawDisk(b *testing.B, pages int) func(n int) time.Duration {
	b.Helper()
	const size = 64 << 20
	f, err := journal.OS().Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	if err := errors.Join(f.WriteAt(0, make([]byte, size)), f.SyncData()); err != nil {
		b.Fatal(err)
	}
	group := bytes.Repeat([]byte{1}, pages*4096)
	next := 0
	return func(n int) time.Duration {
		begin := time.Now()
		for range n {
			if err := errors.Join(f.WriteAt(int64(next), group), f.SyncData()); err != nil {
				b.Fatal(err)
			}
			if next += len(group); next+len(group) > size {
				next = 0
			}
		}
		return time.Since(begin)
	}
}

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
			disk := rawDisk(b, (producers*360+4095)/4096)
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
