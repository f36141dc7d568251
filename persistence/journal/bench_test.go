//go:build unix

package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

// openBench opens a journal that is past its small first segments.
func openBench(b *testing.B, relaxed bool) *journal.Journal {
	b.Helper()
	j, _ := open(b, journal.Options{Dir: b.TempDir(), FirstSegmentSize: 64 << 20, Relaxed: relaxed})
	mustAppend(b, j, "warm")
	return j
}

// BenchmarkOneWaiter reports the journal's rate as a part of the disk's own,
// measured in turns so that both see the same load.
func BenchmarkOneWaiter(b *testing.B) {
	j := openBench(b, false)
	body := string(make([]byte, 256))
	disk := journaltest.RawDisk(b, 1)
	disk(100)
	var raw, ours time.Duration
	const turn = 50
	for n := 0; n < b.N; n += turn {
		raw += disk(turn)
		begin := time.Now()
		for range turn {
			mustAppend(b, j, body)
		}
		ours += time.Since(begin)
	}
	b.ReportMetric(raw.Seconds()/ours.Seconds(), "ratio-to-disk")
	b.ReportMetric(float64(ours.Microseconds())/float64((b.N+turn-1)/turn*turn), "us/append")
}

func BenchmarkWaiters(b *testing.B) {
	for _, waiters := range []int{16, 64, 256} {
		b.Run(fmt.Sprint(waiters), func(b *testing.B) {
			j := openBench(b, false)
			body := make([]byte, 256)
			var mu sync.Mutex
			var took []time.Duration
			before := j.State().Syncs
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range waiters {
				wg.Go(func() {
					c := make(done, 1)
					var mine []time.Duration
					for i := w; i < b.N; i += waiters {
						begin := time.Now()
						if err := errors.Join(appendOne(j, journal.Durable, c, body), <-c); err != nil {
							b.Error(err)
						}
						mine = append(mine, time.Since(begin))
					}
					mu.Lock()
					took = append(took, mine...)
					mu.Unlock()
				})
			}
			wg.Wait()
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(b.N)/float64(j.State().Syncs-before), "appends/sync")
		})
	}
}

// appendOne is without a testing.B, whose Helper costs more than an append.
func appendOne(j *journal.Journal, l journal.Level, c journal.Completion, body []byte) error {
	if err := j.Lock(); err != nil {
		return err
	}
	err := j.Reserve(journal.RecordHeader + len(body))
	if err == nil {
		j.End(append(j.Start(1), body...), false)
	}
	j.Unlock(l, c)
	return err
}

// tokens is a completion that lets another append begin.
type tokens chan struct{}

func (t tokens) Done(error) { t <- struct{}{} }

// BenchmarkPipelined keeps 1000 appends in flight, and reports the processor
// time of the whole process per record: encoding, writing, syncing, answering
// and zero-filling the segments to come.
func BenchmarkPipelined(b *testing.B) {
	for _, relaxed := range []bool{false, true} {
		for _, size := range []int{256, 1024} {
			b.Run(fmt.Sprintf("relaxed=%v/%d", relaxed, size), func(b *testing.B) {
				j := openBench(b, relaxed)
				body := make([]byte, size)
				const depth = 1000
				flying := make(tokens, depth)
				for range depth {
					flying <- struct{}{}
				}
				b.ReportAllocs()
				b.ResetTimer()
				cpu := cpuTime(b)
				for range b.N {
					<-flying
					if err := appendOne(j, journal.Durable, flying, body); err != nil {
						b.Fatal(err)
					}
				}
				for range depth {
					<-flying
				}
				b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppendLazy is the append path alone, with nothing else per record.
func BenchmarkAppendLazy(b *testing.B) {
	j := openBench(b, false)
	body := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		if err := appendOne(j, journal.Lazy, nil, body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, where := range []string{"memory", "disk"} {
		b.Run(where, func(b *testing.B) {
			o := journal.Options{Dir: b.TempDir()}
			j, _ := open(b, o)
			g := mustAppend(b, j, string(make([]byte, 256)))
			if where == "disk" {
				mustClose(b, j)
				j, _ = open(b, o)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := j.Read(g[0].pos, g[0].size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	o := journal.Options{Dir: b.TempDir(), FirstSegmentSize: 64 << 20}
	j, _ := open(b, o)
	body := make([]byte, 256)
	const n = 1_000_000
	for range n {
		if err := appendOne(j, journal.Lazy, nil, body); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, j)
	b.ResetTimer()
	for b.Loop() {
		count := 0
		j, err := journal.Open(o, func(g []journal.Record) error { count += len(g); return nil })
		if err != nil || count != n {
			b.Fatal(count, err)
		}
		b.StopTimer()
		mustClose(b, j)
		b.StartTimer()
	}
}
