package journal_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

// groupBodies are the bodies of the i-th group of a log. Each process that
// appends has an era of its own, so that bytes of an earlier one show.
func groupBodies(i, era int) []string {
	rng := rand.New(rand.NewPCG(uint64(i), 7))
	bodies := make([]string, 1+rng.IntN(3))
	for k := range bodies {
		n := rng.IntN(1200)
		if rng.IntN(25) == 0 {
			n = 20_000 // more than a segment
		}
		bodies[k] = fmt.Sprintf("%06d ", era) + strings.Repeat(fmt.Sprintf("%d.%d ", i, k), n/5)
	}
	return bodies
}

func crashOptions(fs journal.FS) journal.Options {
	return journal.Options{
		FS: fs, Dir: "/data/log", SegmentSize: 16 << 10, FirstSegmentSize: 8 << 10,
		WindowSize: 8 << 10, CacheSize: 16 << 10, MaxPending: 24 << 10, MarkEvery: time.Millisecond,
	}
}

// workload appends groups and knows which of them must survive a power cut.
type workload struct {
	j     atomic.Pointer[journal.Journal]
	acked atomic.Int64 // groups answered, all of which were durable
	start int          // groups there before
	era   int

	mu   sync.Mutex
	ends []journal.Position
}

type ack struct {
	w    *workload
	n    int64
	back chan error
}

func (a ack) Done(err error) {
	if err == nil {
		a.w.acked.Store(a.n)
	}
	if a.back != nil {
		a.back <- err
	}
}

// run appends the groups from start to end-1; relaxed answers prove nothing.
func (w *workload) run(j *journal.Journal, end int, relaxed bool, rng *rand.Rand) error {
	w.j.Store(j)
	for i := w.start; i < end; i++ {
		a := ack{w: w, n: int64(i + 1)}
		if relaxed {
			a.n = 0
		}
		level := journal.Durable
		var c journal.Completion
		switch rng.IntN(5) {
		case 0:
			level = journal.Lazy
		case 1, 2:
			c = a
		default:
			a.back = make(chan error, 1)
			c = a
		}
		g, err := appendGroup(j, level, c, groupBodies(i, w.era)...)
		if err != nil {
			return err
		}
		last := g[len(g)-1]
		w.mu.Lock()
		w.ends = append(w.ends, last.pos+journal.Position(last.size))
		w.mu.Unlock()
		if a.back != nil {
			if err := <-a.back; err != nil {
				return err
			}
		}
	}
	return nil
}

// sure is how many groups must survive a power cut from now on.
func (w *workload) sure() int {
	n := int(w.acked.Load())
	if j := w.j.Load(); j != nil {
		durable := j.State().Durable
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, end := range w.ends {
			if end <= durable {
				n = max(n, w.start+i+1)
			}
		}
	}
	return max(n, w.start)
}

// wholeGroups checks that a log consists of the first groups of the workload,
// each of them whole, and returns how many.
func wholeGroups(log [][]record) (int, error) {
	last := 0
	for i, g := range log {
		era, _ := strconv.Atoi(g[0].body[:6])
		if era < last {
			return 0, fmt.Errorf("group %d of era %d stands behind one of era %d", i, era, last)
		}
		last = era
		want := groupBodies(i, era)
		if len(g) != len(want) {
			return 0, fmt.Errorf("group %d has %d records, want %d", i, len(g), len(want))
		}
		for k, r := range g {
			if r.body != want[k] || int(r.typ) != k+1 {
				return 0, fmt.Errorf("group %d record %d: type %d, body %.40q, want %.40q", i, k, r.typ, r.body, want[k])
			}
		}
	}
	return len(log), nil
}

// crasher takes power cuts of a file system while a workload runs on it.
type crasher struct {
	tb   testing.TB
	fs   journaltest.Crashable
	w    *workload
	mu   sync.Mutex
	rng  *rand.Rand
	cuts int
	era  int
}

var keeps = []int{0, 30, 70, 100}

func (c *crasher) do(op journaltest.Op, run func() error) error {
	if err := run(); err != nil || !op.Changes() {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, keep := range keeps {
		sure := c.w.sure() // before the cut: what is answered later may be in it or not
		after := c.fs.Crash(keep, c.rng)
		if s, ok := c.fs.(*journaltest.SectorFS); ok && keep == 100 {
			after = s.Kill() // power was never lost: the next process finds everything
		}
		c.cuts++
		if err := c.check(after, sure); err != nil {
			c.tb.Errorf("power cut after %s %s with %d %% kept: %v", op.Kind, op.Name, keep, err)
		}
	}
	return nil
}

// check recovers, cuts the power during and after that, and recovers again.
func (c *crasher) check(fs journaltest.Crashable, sure int) error {
	var again []journaltest.Crashable
	var mu sync.Mutex
	watch := journaltest.Watch(fs, func(op journaltest.Op, run func() error) error {
		err := run()
		mu.Lock()
		defer mu.Unlock()
		if op.Changes() && c.rng.IntN(12) == 0 {
			again = append(again, fs.Crash(keeps[c.rng.IntN(len(keeps))], c.rng))
		}
		return err
	})
	n, err := c.recoverOn(watch, sure, 2)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	for _, fs := range again {
		if _, err := c.recoverOn(fs, sure, 0); err != nil {
			return fmt.Errorf("after a second cut in recovery: %w", err)
		}
	}
	if c.rng.IntN(4) == 0 {
		if _, err := c.recoverOn(fs.Crash(0, c.rng), n+2, 0); err != nil {
			return fmt.Errorf("after a cut once it was closed: %w", err)
		}
	}
	return nil
}

// recoverOn opens the log, which must have at least sure groups, and appends
// some. It returns how many there were.
func (c *crasher) recoverOn(fs journal.FS, sure, more int) (int, error) {
	var log [][]record
	j, err := journal.Open(crashOptions(fs), collect(&log))
	if err != nil {
		return 0, err
	}
	n, err := wholeGroups(log)
	if err == nil && n < sure {
		err = fmt.Errorf("%d groups left of %d", n, sure)
	}
	c.era++
	for i := n; i < n+more && err == nil; i++ {
		back := make(done, 1)
		if _, err = appendGroup(j, journal.Durable, back, groupBodies(i, c.era)...); err == nil {
			err = <-back
		}
	}
	return n, errors.Join(err, j.Close(context.Background()))
}

// crashEverywhere takes a power cut after each change of the disk, and returns
// how many.
func crashEverywhere(t *testing.T, fs journaltest.Crashable, relaxed bool, seed uint64, groups int) int {
	t.Helper()
	c := &crasher{tb: t, fs: fs, w: &workload{}, rng: rand.New(rand.NewPCG(seed, 1))}
	o := crashOptions(journaltest.Watch(fs, c.do))
	o.Relaxed = relaxed
	for round := range 2 {
		var log [][]record
		j, err := journal.Open(o, collect(&log))
		if err != nil {
			t.Fatal(err)
		}
		n, err := wholeGroups(log)
		if err != nil || n < c.w.sure() {
			t.Fatalf("round %d: %d groups, want %d: %v", round, n, c.w.sure(), err)
		}
		c.mu.Lock()
		c.era++
		c.w = &workload{start: n, era: c.era}
		c.mu.Unlock()
		if err := c.w.run(j, n+groups, relaxed, rand.New(rand.NewPCG(seed, 2))); err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
	}
	return c.cuts
}

// MILLRACE_CRASH_STATES is how many states of the disk after a power cut are
// looked at; each is recovered, sometimes with a second cut in the recovery.
func TestAPowerCutAnywhereLosesNothingAnswered(t *testing.T) {
	groups := 12
	if testing.Short() {
		groups = 5
	}
	states, err := strconv.Atoi(cmp.Or(os.Getenv("MILLRACE_CRASH_STATES"), "0"))
	if err != nil {
		t.Fatalf("MILLRACE_CRASH_STATES: %v", err)
	}
	systems := map[string]func() journaltest.Crashable{
		"blocks":  func() journaltest.Crashable { return journaltest.NewCrashFS() },
		"sectors": func() journaltest.Crashable { return journaltest.NewSectorFS() },
	}
	for name, system := range systems {
		for _, relaxed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/relaxed=%v", name, relaxed), func(t *testing.T) {
				t.Parallel()
				cuts := 0
				for seed := uint64(0); !t.Failed() && (seed == 0 || cuts < states/4); seed++ {
					cuts += crashEverywhere(t, system(), relaxed, seed, groups)
				}
				t.Logf("%d power cuts", cuts)
			})
		}
	}
}
