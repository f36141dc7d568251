package router_test

import (
	"sync"
	"testing"
	"time"

	"millrace/router"
)

// contended is what the two trees under comparison have in common.
type contended interface {
	Match(topic string, dst []*session) []*session
	Insert(filter string, v *session) bool
	Remove(filter string, v *session) bool
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

// contenders builds both trees with 10,000 filters.
func contenders() map[string]contended {
	trees := map[string]contended{"lock-free": new(router.Tree[*session]), "rwmutex": new(locked)}
	for _, t := range trees {
		for i := range 10_000 {
			t.Insert(benchFilter(i), &session{i})
		}
	}
	return trees
}

// BenchmarkMatchParallel matches on every processor, alone and while a
// subscriber comes and goes a thousand times a second.
func BenchmarkMatchParallel(b *testing.B) {
	topics := make([]string, 1024)
	for i := range topics {
		topics[i] = benchFilter(i * 7)
	}
	for name, t := range contenders() {
		for _, subscribing := range []bool{false, true} {
			b.Run(name+map[bool]string{false: "/alone", true: "/beside a subscriber"}[subscribing], func(b *testing.B) {
				if subscribing {
					during(b, func(stop <-chan struct{}) { subscribeAndLeave(t, stop) })
				}
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					dst := make([]*session, 0, 8)
					for i := 0; pb.Next(); i++ {
						dst = t.Match(topics[i%len(topics)], dst[:0])
					}
				})
			})
		}
	}
}

// BenchmarkMatchBesideAWideOne measures a small search while another goroutine
// collects 300,000 values all the time and a subscriber comes and goes a
// thousand times a second.
func BenchmarkMatchBesideAWideOne(b *testing.B) {
	for name, t := range contenders() {
		for i := range 300_000 {
			t.Insert("wide", &session{i})
		}
		b.Run(name, func(b *testing.B) {
			during(b, func(stop <-chan struct{}) { subscribeAndLeave(t, stop) })
			during(b, func(stop <-chan struct{}) { matchUntil(t, "wide", stop) })
			dst := make([]*session, 0, 8)
			topic := benchFilter(1)
			for b.Loop() {
				dst = t.Match(topic, dst[:0])
			}
		})
	}
}

// during runs do beside the benchmark and waits for it at the end.
func during(b *testing.B, do func(stop <-chan struct{})) {
	b.Helper()
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { do(stop) })
	b.Cleanup(func() {
		close(stop)
		running.Wait()
	})
}

func subscribeAndLeave(t contended, stop <-chan struct{}) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	v := new(session)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
			t.Insert(benchFilter(i), v)
			t.Remove(benchFilter(i), v)
		}
	}
}

func matchUntil(t contended, topic string, stop <-chan struct{}) {
	var dst []*session
	for {
		select {
		case <-stop:
			return
		default:
			dst = t.Match(topic, dst[:0])
		}
	}
}
