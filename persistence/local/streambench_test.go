package local_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
)

// fillStream makes a store on disk with a stream of n messages of size bytes.
func fillStream(b *testing.B, o local.Options, n, size int) (*local.Store, broker.Target, int64) {
	b.Helper()
	s, err := local.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	s.Bind(noEvents{})
	st := defineBench(b, s, "s", broker.StreamTarget)
	m := &broker.Message{Topic: "devices/0001/temperature", Payload: make([]byte, size), Published: time.Now().UnixMilli(), QoS: 1, Publisher: "device-0001"}
	p := newPipeline(s, 16)
	for n > 0 {
		batch := p.next()
		for range min(n, benchBatch) {
			batch.Publish(m, broker.Route{Target: st})
			batch.End()
		}
		n -= min(n, benchBatch)
		p.flush(batch)
	}
	p.wait(b)
	in, err := s.Info(context.Background(), st)
	if err != nil {
		b.Fatal(err)
	}
	return s, st, in.Bytes
}

// scan reads a stream from its beginning to its end.
func scan(b *testing.B, s *local.Store, st broker.Target, n int) {
	b.Helper()
	c := &consumer{got: make(chan struct{}, 1)}
	c.w = broker.Wait{Target: st, Max: 1000, Sink: c, Buffer: new(broker.Buffer)}
	for at := 0; at < n; {
		s.Receive(&c.w)
		<-c.got
		if c.w.Err != nil || len(c.w.Got) == 0 {
			b.Fatalf("at %d: %d messages, %v", at, len(c.w.Got), c.w.Err)
		}
		at += len(c.w.Got)
	}
}

// BenchmarkStreamScan reads half a gigabyte: of a store in memory, from files in
// the page cache, and from files whose pages were dropped.
func BenchmarkStreamScan(b *testing.B) {
	for _, size := range []int{256, 1024} {
		n := 500 << 20 / size
		for _, from := range []string{"memory", "cache", "disk", "file-cache", "file-disk"} {
			b.Run(fmt.Sprintf("%d/%s", size, from), func(b *testing.B) {
				o := local.Options{Dir: b.TempDir(), CacheSize: 1 << 20}
				if from == "memory" {
					o = local.Options{}
				}
				s, st, bytes := fillStream(b, o, n, size)
				if strings.HasPrefix(from, "file") {
					copyAll(b, s)
				}
				b.SetBytes(bytes)
				b.ResetTimer()
				begin := cpu()
				for range b.N {
					if strings.HasSuffix(from, "disk") {
						b.StopTimer()
						dropPages(b)
						b.StartTimer()
					}
					scan(b, s, st, n)
				}
				b.ReportMetric(float64(cpu()-begin)/float64(b.N)/float64(n), "cpu-ns/msg")
				b.StopTimer()
				shut(b, s)
			})
		}
	}
}

// copyAll copies what can be out of the journal, and reports how fast that was.
func copyAll(b *testing.B, s *local.Store) {
	b.Helper()
	begin, used := time.Now(), cpu()
	if _, err := s.CopyStreams(); err != nil {
		b.Fatal(err)
	}
	b.Logf("copied in %v, %v of processor time", time.Since(begin), cpu()-used)
}

// BenchmarkStreamRandom reads single messages at random offsets.
func BenchmarkStreamRandom(b *testing.B) {
	for _, from := range []string{"journal", "file"} {
		b.Run(from, func(b *testing.B) {
			const n = 1_000_000
			s, st, _ := fillStream(b, local.Options{Dir: b.TempDir(), CacheSize: 1 << 20}, n, 256)
			if from == "file" {
				copyAll(b, s)
			}
			got := make([]broker.Delivery, 0, 1)
			b.ReportAllocs()
			begin := cpu()
			for b.Loop() {
				ds, err := s.Read(context.Background(), st, broker.Pos{Seq: rand.Uint64N(n)}, 1, got[:0])
				if err != nil || len(ds) != 1 {
					b.Fatal(len(ds), err)
				}
			}
			reportCPU(b, begin)
			b.StopTimer()
			shut(b, s)
		})
	}
}

// BenchmarkStreamIndex reports what a message of a stream costs in memory, at
// a million.
func BenchmarkStreamIndex(b *testing.B) {
	for range b.N {
		heap := func(n int, copied bool) int64 {
			before := heapInUse()
			s, _, _ := fillStream(b, local.Options{Dir: b.TempDir(), CacheSize: 1 << 20}, n, 256)
			if copied {
				copyAll(b, s)
			}
			after := heapInUse()
			shut(b, s)
			return after - before
		}
		const n, more = 500_000, 1_000_000
		b.ReportMetric(float64(heap(n+more, false)-heap(n, false))/more, "B/message")
		b.ReportMetric(float64(heap(n+more, true)-heap(n, true))/more, "B/copied")
	}
}

// dropPages empties the page cache of clean pages.
func dropPages(b *testing.B) {
	b.Helper()
	if err := exec.CommandContext(b.Context(), "sh", "-c", "sync; echo 1 > /proc/sys/vm/drop_caches").Run(); err != nil {
		b.Skip("the page cache cannot be dropped here: ", err)
	}
}
