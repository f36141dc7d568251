package local_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
)

// BenchmarkRecovery opens a store in which a million, or five, wait; after a
// Close, and after the end of the process without one. The page cache does not
// have the files.
func BenchmarkRecovery(b *testing.B) {
	for _, n := range []int{1_000_000, 5_000_000} {
		for _, end := range []string{"closed", "killed"} {
			b.Run(fmt.Sprint(n, " ", end), func(b *testing.B) {
				dir := b.TempDir()
				o := local.Options{Dir: dir, CacheSize: 1 << 20}
				s := open(b, o)
				s.Bind(noEvents{})
				p := newPipeline(s, 16)
				publishAll(b, p, n, []broker.Route{{Target: defineBench(b, s, "q", broker.QueueTarget)}})
				s.Tidy()
				if end == "killed" {
					dir = copyDir(b, dir)
				}
				shut(b, s)
				o.Dir = dir
				runtime.GC()
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					if end == "killed" {
						o.Dir = copyDir(b, dir)
					}
					dropCache(b, o.Dir)
					begin := cpu()
					b.StartTimer()
					s := open(b, o)
					b.StopTimer()
					b.ReportMetric((cpu() - begin).Seconds(), "cpu-s")
					if in, err := s.Info(context.Background(), 1); err != nil || in.Ready != int64(n) {
						b.Fatalf("%d ready, %v", in.Ready, err)
					}
					shut(b, s)
				}
			})
		}
	}
}

// copyDir copies a data directory that is in use, as a kill would leave it.
func copyDir(tb testing.TB, from string) string {
	tb.Helper()
	to := tb.TempDir()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(from, path) // both come from the same walk
		switch {
		case errors.Is(err, fs.ErrNotExist) || filepath.Ext(path) == ".new":
			return nil // it is being prepared
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(filepath.Join(to, rel), text, 0o600))
	})
	if err != nil {
		tb.Fatal(err)
	}
	return to
}

// BenchmarkCheckpoint writes a checkpoint while a million wait, and reports how
// long one publisher that waits for each answer had to wait at most.
func BenchmarkCheckpoint(b *testing.B) {
	s := open(b, local.Options{Dir: b.TempDir(), CacheSize: 1 << 20})
	s.Bind(noEvents{})
	q := defineBench(b, s, "q", broker.QueueTarget)
	publishAll(b, newPipeline(s, 16), 1_000_000, []broker.Route{{Target: q}})
	quiet, busy := latencies(s, q, func() {}), []time.Duration(nil)
	b.ResetTimer()
	var took time.Duration
	for range b.N {
		busy = append(busy, latencies(s, q, func() {
			begin := time.Now()
			if err := s.Checkpoint(); err != nil {
				b.Error(err)
			}
			took += time.Since(begin)
		})...)
	}
	b.StopTimer()
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "us/checkpoint")
	b.ReportMetric(float64(worst(quiet).Microseconds()), "us-worst-without")
	b.ReportMetric(float64(worst(busy).Microseconds()), "us-worst-with")
	b.ReportMetric(float64(s.Pause().Microseconds()), "us-longest-lock")
	shut(b, s)
}

// latencies publishes while f runs, and a little longer.
func latencies(s *local.Store, q broker.Target, f func()) (list []time.Duration) {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	for rest := 50; rest > 0; {
		begin := time.Now()
		<-publishTo(s, q)
		list = append(list, time.Since(begin))
		select {
		case <-done:
			rest--
		default:
		}
	}
	return list
}

func worst(list []time.Duration) (d time.Duration) {
	for _, l := range list {
		d = max(d, l)
	}
	return d
}

// BenchmarkBounded publishes, receives and settles in a queue that is nearly
// empty, and reports what was read from the disk and how much of it is used.
func BenchmarkBounded(b *testing.B) {
	dir := b.TempDir()
	s := open(b, local.Options{Dir: dir})
	s.Bind(noEvents{})
	q := defineBench(b, s, "q", broker.QueueTarget)
	p := newPipeline(s, 16)
	routes := []broker.Route{{Target: q}}
	reads := diskReads(b)
	b.ReportAllocs()
	b.ResetTimer()
	begin := cpu()
	for n := b.N; n > 0; n -= benchBatch {
		publishAll(b, p, min(n, benchBatch), routes)
		consume(b, s, p, q, min(n, benchBatch))
	}
	reportCPU(b, begin)
	b.StopTimer()
	b.ReportMetric(float64(diskReads(b)-reads), "B-read")
	s.Tidy()
	st := s.Journal().State()
	b.ReportMetric(float64(st.Segments), "segments")
	b.ReportMetric(float64(st.Free), "spare")
	shut(b, s)
	b.ReportMetric(float64(dirSize(b, dir)>>20), "MiB")
}

// BenchmarkFlow publishes, receives and settles at the same time, with no more
// than 5,000 in the queue: what one message costs from its publish to its ack
// when many share each sync.
func BenchmarkFlow(b *testing.B) {
	s := open(b, local.Options{Dir: b.TempDir()})
	s.Bind(noEvents{})
	q := defineBench(b, s, "q", broker.QueueTarget)
	in, out := newPipeline(s, 16), newPipeline(s, 16)
	routes := []broker.Route{{Target: q}}
	publishAll(b, in, 100_000, routes) // past the small segments
	consume(b, s, out, q, 100_000)
	reads, writes := diskReads(b), s.Journal().State().Writes
	room := make(chan struct{}, 50) // hundreds
	m := &broker.Message{Topic: "devices/0001/temperature", Payload: make([]byte, 256), QoS: 1, Publisher: "device-0001"}
	b.ReportAllocs()
	b.ResetTimer()
	begin := cpu()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := b.N; n > 0; n -= benchBatch {
			room <- struct{}{}
			batch := in.next()
			for range min(n, benchBatch) {
				batch.Publish(m, routes...)
				batch.End()
			}
			in.flush(batch)
		}
	}()
	c := &consumer{got: make(chan struct{}, 1)}
	c.w = broker.Wait{Target: q, Lease: time.Minute, Sink: c}
	for settled := 0; settled < b.N; {
		c.w.Max, c.w.Until = 10*benchBatch, time.Now().Add(10*time.Second)
		s.Receive(&c.w)
		<-c.got
		if c.w.Err != nil || len(c.w.Got) == 0 {
			b.Fatalf("got %d, %v", len(c.w.Got), c.w.Err)
		}
		batch := out.next()
		for i := range c.w.Got {
			batch.Settle(c.w.Got[i].Ref, broker.ReasonAcked)
			batch.End()
			if settled++; settled%benchBatch == 0 {
				<-room
			}
		}
		out.flush(batch)
	}
	<-done
	in.wait(b)
	out.wait(b)
	reportCPU(b, begin)
	b.StopTimer()
	b.ReportMetric(float64(diskReads(b)-reads), "B-read")
	b.ReportMetric(float64(b.N)/float64(s.Journal().State().Writes-writes), "msg/write")
	shut(b, s)
}

// BenchmarkStuck acks b.N messages around one that stays.
func BenchmarkStuck(b *testing.B) {
	dir := b.TempDir()
	s := open(b, local.Options{Dir: dir})
	s.Bind(noEvents{})
	q := defineBench(b, s, "q", broker.QueueTarget)
	p := newPipeline(s, 16)
	routes := []broker.Route{{Target: q}}
	publishAll(b, p, 1, routes)
	if got := receive(b, s, q, 1); len(got) != 1 {
		b.Fatal("nothing to get stuck")
	}
	b.ResetTimer()
	begin := cpu()
	for n := b.N; n > 0; n -= 1000 {
		publishAll(b, p, min(n, 1000), routes)
		consume(b, s, p, q, min(n, 1000))
	}
	reportCPU(b, begin)
	b.StopTimer()
	s.Tidy()
	st := s.Journal().State()
	b.ReportMetric(float64(st.Segments), "segments")
	b.ReportMetric(float64(st.Free), "spare")
	b.ReportMetric(float64(s.Moved()), "moved")
	shut(b, s)
}

// BenchmarkCompaction moves every fifth message of full segments.
func BenchmarkCompaction(b *testing.B) {
	s := open(b, local.Options{Dir: b.TempDir(), CompactRate: 1 << 40})
	s.Bind(noEvents{})
	q := defineBench(b, s, "q", broker.QueueTarget)
	p := newPipeline(s, 16)
	const n = 1_000_000
	publishAll(b, p, n, []broker.Route{{Target: q}})
	sparsen(b, s, p, q, n)
	moved := s.Moved()
	b.ResetTimer()
	begin := time.Now()
	for range 2 {
		s.Tidy() // the second look finds that nobody consumes them
	}
	took := time.Since(begin)
	b.ReportMetric(float64(s.Moved()-moved), "moved")
	b.ReportMetric(took.Seconds()*1e9/float64(max(s.Moved()-moved, 1)), "ns/moved")
	shut(b, s)
}

// sparsen acks four of five messages.
func sparsen(b *testing.B, s *local.Store, p *pipeline, q broker.Target, n int) {
	b.Helper()
	for n > 0 {
		got := receive(b, s, q, min(n, 1000))
		n -= len(got)
		batch := p.next()
		for i := range got {
			if i%5 > 0 {
				batch.Settle(got[i].Ref, broker.ReasonAcked)
				batch.End()
			}
		}
		p.flush(batch)
	}
	p.wait(b)
}

func dirSize(tb testing.TB, dir string) (n int64) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// diskReads is what this process had read from disks so far, in bytes.
func diskReads(tb testing.TB) int64 {
	tb.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		tb.Skip("no /proc/self/io here")
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "read_bytes: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}
