package router_test

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/router"
)

// session stands for what a broker keeps in its tree.
type session struct{ id int }

// benchSizes are numbers of filters; the largest is what the design promises.
var benchSizes = []int{10, 10_000, 1_000_000}

// benchFilter is the filter of the i-th device of a fleet of sites.
func benchFilter(i int) string {
	return "site/" + strconv.Itoa(i%1000) + "/device/" + strconv.Itoa(i) + "/state"
}

// benchTree is filled once per size, since a million filters take a while.
var benchTree = func() func(n int) *router.Tree[*session] {
	trees := map[int]*router.Tree[*session]{}
	return func(n int) *router.Tree[*session] {
		if trees[n] == nil {
			trees[n] = new(router.Tree[*session])
			for i := range n {
				trees[n].Insert(benchFilter(i), &session{i})
			}
		}
		return trees[n]
	}
}()

// BenchmarkMatch publishes to one device after another: "exact" finds its own
// filter, "wildcards" three more that hold "+" or "#", "none" nothing.
func BenchmarkMatch(b *testing.B) {
	for _, n := range benchSizes {
		tree := benchTree(n)
		topics, strangers := make([]string, 4096), make([]string, 4096)
		for i := range topics {
			topics[i] = benchFilter(i * 7919 % n)
			strangers[i] = topics[i] + "/x"
		}
		run := func(name string, topics []string, want int) {
			b.Run(fmt.Sprintf("filters=%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				dst := make([]*session, 0, 8)
				i := 0
				for b.Loop() {
					dst = tree.Match(topics[i%len(topics)], dst[:0])
					i++
				}
				if len(dst) != want {
					b.Fatalf("got %d matches, want %d", len(dst), want)
				}
			})
		}
		run("exact", topics, 1)
		run("none", strangers, 0)
		wild, v := []string{"site/+/device/+/state", "site/#", "+/+/+/+/state"}, new(session)
		for _, f := range wild {
			tree.Insert(f, v)
		}
		run("wildcards", topics, 1+len(wild))
		for _, f := range wild {
			tree.Remove(f, v)
		}
	}
}

// BenchmarkMemory reports what a filter costs at a million of them, with the
// tree's own copies of the names and without the values.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	filters := make([]string, n)
	for i := range filters {
		filters[i] = benchFilter(i)
	}
	v := new(session)
	for b.Loop() {
		before := heapBytes()
		var tree router.Tree[*session]
		start := time.Now()
		for _, f := range filters {
			tree.Insert(f, v)
		}
		b.ReportMetric(float64(time.Since(start).Nanoseconds())/n, "ns/insert")
		b.ReportMetric(float64(heapBytes()-before)/n, "B/filter")

		var names router.Names[*session]
		before = heapBytes()
		for _, f := range filters {
			names.Set(f, v)
		}
		b.ReportMetric(float64(heapBytes()-before)/n, "B/name")
		runtime.KeepAlive(&tree)
		runtime.KeepAlive(&names)
	}
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// locked is the tree behind a read-write lock, to measure what the lock-free
// one gains.
type locked struct {
	mu sync.RWMutex
	router.Tree[*session]
}

func (l *locked) Match(topic string, dst []*session) []*session {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.Tree.Match(topic, dst)
}

func (l *locked) Insert(filter string, v *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Tree.Insert(filter, v)
}

func (l *locked) Remove(filter string, v *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Tree.Remove(filter, v)
}

// BenchmarkMatchParallel matches on every processor while a subscriber comes
// and goes at a steady rate; slowest is the longest that one search took.
// With "wide" one goroutine also publishes to a filter of 100,000 values.
func BenchmarkMatchParallel(b *testing.B) {
	type tree interface {
		Match(topic string, dst []*session) []*session
		Insert(filter string, v *session) bool
		Remove(filter string, v *session) bool
	}
	for _, kind := range []string{"lock-free", "rwmutex"} {
		for _, load := range []struct {
			name  string
			every time.Duration
			wide  bool
		}{{"quiet", 0, false}, {"subscriber", time.Millisecond, false}, {"subscriber+wide", time.Millisecond, true}} {
			b.Run(kind+"/"+load.name, func(b *testing.B) {
				var t tree = new(router.Tree[*session])
				if kind == "rwmutex" {
					t = new(locked)
				}
				for i := range 10_000 {
					t.Insert(benchFilter(i), &session{i})
				}
				stop := make(chan struct{})
				var others sync.WaitGroup
				if load.every > 0 {
					others.Go(func() { subscribeAndLeave(t.Insert, t.Remove, load.every, stop) })
				}
				if load.wide {
					for i := range 100_000 {
						t.Insert("wide", &session{i})
					}
					others.Go(func() { matchUntil(t.Match, "wide", stop) })
				}
				measureParallel(b, t.Match)
				close(stop)
				others.Wait()
			})
		}
	}
}

// measureParallel runs the searches and reports the slowest.
func measureParallel(b *testing.B, match func(string, []*session) []*session) {
	topics := make([]string, 1024)
	for i := range topics {
		topics[i] = benchFilter(i * 7)
	}
	var mu sync.Mutex
	var slowest time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]*session, 0, 8)
		var mine time.Duration
		for i := 0; pb.Next(); i++ {
			start := time.Now()
			dst = match(topics[i%len(topics)], dst[:0])
			mine = max(mine, time.Since(start))
		}
		mu.Lock()
		slowest = max(slowest, mine)
		mu.Unlock()
	})
	b.ReportMetric(float64(slowest.Microseconds()), "slowest-µs")
}

func subscribeAndLeave(insert, remove func(string, *session) bool, every time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	v := new(session)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
			insert(benchFilter(i), v)
			remove(benchFilter(i), v)
		}
	}
}

func matchUntil(match func(string, []*session) []*session, topic string, stop <-chan struct{}) {
	var dst []*session
	for {
		select {
		case <-stop:
			return
		default:
			dst = match(topic, dst[:0])
		}
	}
}
