package router_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"millrace/router"
)

// phase counts the changes of one entry: even when it stands still, 0 modulo 4
// when it is absent, 2 when it is present. An observer that reads the same even
// phase before and after a search knows what the search had to find.
type phase struct{ atomic.Uint64 }

// change runs do between two steps of the phase.
func (p *phase) change(do func()) {
	p.Add(1)
	do()
	p.Add(1)
}

// known returns whether the entry was present all through search, and ok if
// that is certain.
func (p *phase) known(search func()) (present, ok bool) {
	before := p.Load()
	search()
	return before%4 == 2, before%2 == 0 && p.Load() == before
}

// churn runs writers that change entries in turn, and observers beside them
// until all writers are done. It fails if the observers were never sure.
func churn(t *testing.T, entries int, write func(i int, present bool), observe func(i int) (certain bool)) {
	t.Helper()
	const writers, rounds = 2, 150
	present := make([]bool, entries)
	var writing, observing sync.WaitGroup
	var done atomic.Bool
	var certain atomic.Int64
	for w := range writers {
		writing.Go(func() {
			for range rounds {
				for i := w; i < entries; i += writers {
					present[i] = !present[i]
					write(i, present[i])
				}
			}
		})
	}
	for range 3 {
		observing.Go(func() {
			for !done.Load() {
				if observe(rand.IntN(entries)) {
					certain.Add(1)
				}
			}
		})
	}
	writing.Wait()
	done.Store(true)
	observing.Wait()
	if certain.Load() == 0 {
		t.Error("no search ran while its entry stood still")
	}
}

func TestMatchersSeeEveryFilterThatStandsAndNoneThatIsGone(t *testing.T) {
	const entries = 64
	for name, filter := range map[string]func(i int) (filter, topic string){
		"each its own literal": func(i int) (string, string) { s := "a/" + strconv.Itoa(i); return s, s },
		"each its own plus":    func(i int) (string, string) { return "+/" + strconv.Itoa(i) + "/#", "a/" + strconv.Itoa(i) },
		"all the same":         func(int) (string, string) { return "a/#", "a/b" },
	} {
		t.Run(name, func(t *testing.T) {
			var tree router.Tree[int]
			var phases [entries]phase
			churn(t, entries, func(i int, present bool) {
				f, _ := filter(i)
				phases[i].change(func() {
					if changed := present && tree.Insert(f, i) || !present && tree.Remove(f, i); !changed {
						t.Errorf("%q: value %d was not in the state it was left in", f, i)
					}
				})
			}, func(i int) bool {
				_, topic := filter(i)
				var found []int
				present, certain := phases[i].known(func() { found = tree.Match(topic, nil) })
				count := 0
				for _, v := range found {
					if v == i {
						count++
					}
				}
				if count > 1 || certain && (count == 1) != present {
					t.Errorf("value %d came %d times, present: %v", i, count, present)
				}
				return certain
			})
			wantLen(t, tree.Len(), 0)
			wantLen(t, tree.Nodes(), 0)
		})
	}
}

func TestLoopsSeeEveryNameThatStandsAndNoneThatIsGone(t *testing.T) {
	const entries = 64
	var names router.Names[int]
	var phases [entries]phase
	topic := func(i int) string { return "a/" + strconv.Itoa(i) + "/b" }
	churn(t, entries, func(i int, present bool) {
		phases[i].change(func() {
			if present {
				names.Set(topic(i), i)
			} else {
				names.Delete(topic(i))
			}
		})
	}, func(i int) bool {
		var found []string
		present, certain := phases[i].known(func() {
			for topic := range names.Match([]string{"#", "a/+/b", topic(i)}[i%3]) {
				found = append(found, topic)
			}
		})
		if certain && slices.Contains(found, topic(i)) != present {
			t.Errorf("%q found: %v, present: %v", topic(i), !present, present)
		}
		return certain
	})
	wantLen(t, names.Len(), 0)
	wantLen(t, names.Nodes(), 0)
}

// TestAValueThatIsReplacedIsNeverMissed puts a new value in beside the old
// before that goes, as who changes a subscription does: at no time is there none.
func TestAValueThatIsReplacedIsNeverMissed(t *testing.T) {
	for _, others := range []int{0, 3, 50} {
		var tree router.Tree[int]
		for i := range others {
			tree.Insert("a/#", -1-i)
		}
		tree.Insert("a/#", 0)
		var wait sync.WaitGroup
		done := make(chan struct{})
		wait.Go(func() {
			defer close(done)
			for i := range 50_000 {
				tree.Insert("a/#", i+1)
				tree.Remove("a/#", i)
			}
		})
		for range 2 {
			wait.Go(func() {
				var dst []int
				for {
					select {
					case <-done:
						return
					default:
					}
					dst = tree.Match("a/b", dst[:0])
					slices.Sort(dst)
					if n := len(dst) - others; n < 1 || len(slices.Compact(dst)) != others+n {
						t.Errorf("beside %d others: %d values, %v", others, n, dst[others:])
						return
					}
				}
			})
		}
		wait.Wait()
	}
}
