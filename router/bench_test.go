package router_test

import (
	"fmt"
	"runtime"
	"strconv"
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
