package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"millrace/persistence/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small makes options whose limits a short test reaches.
func small(dir string) journal.Options {
	return journal.Options{
		Dir: dir, SegmentSize: 64 << 10, FirstSegmentSize: 64 << 10,
		WindowSize: 8 << 10, CacheSize: 32 << 10, RetryEvery: 5 * time.Millisecond,
	}
}

// open opens a journal that the test closes, and returns what it replayed.
func open(tb testing.TB, o journal.Options) (*journal.Journal, [][]record) {
	tb.Helper()
	var log [][]record
	j, err := journal.Open(o, collect(&log))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = j.Close(context.Background()) })
	return j, log
}

// record is a journal.Record that outlives the call that got it.
type record struct {
	pos  journal.Position
	size uint32
	typ  byte
	body string
}

func collect(log *[][]record) func([]journal.Record) error {
	return func(group []journal.Record) error {
		var g []record
		for _, r := range group {
			g = append(g, record{r.Pos, r.Size, r.Type, string(r.Body)})
		}
		*log = append(*log, g)
		return nil
	}
}

// done is a completion that can be waited for.
type done chan error

func (d done) Done(err error) { d <- err }

// appendGroup appends one group and returns its records.
func appendGroup(j *journal.Journal, l journal.Level, c journal.Completion, bodies ...string) ([]record, error) {
	n := 0
	for _, b := range bodies {
		n += journal.RecordHeader + len(b)
	}
	if err := j.Lock(); err != nil {
		return nil, err
	}
	if err := j.Reserve(n); err != nil {
		j.Unlock(journal.Lazy, nil)
		return nil, err
	}
	var group []record
	for i, b := range bodies {
		pos, size := j.End(append(j.Start(byte(i+1)), b...), i+1 < len(bodies))
		group = append(group, record{pos, size, byte(i + 1), b})
	}
	j.Unlock(l, c)
	return group, nil
}

func mustAppend(tb testing.TB, j *journal.Journal, bodies ...string) []record {
	tb.Helper()
	c := make(done, 1)
	g, err := appendGroup(j, journal.Durable, c, bodies...)
	if err != nil {
		tb.Fatal(err)
	}
	if err := <-c; err != nil {
		tb.Fatal(err)
	}
	return g
}

func mustClose(tb testing.TB, j *journal.Journal) {
	tb.Helper()
	if err := j.Close(context.Background()); err != nil {
		tb.Fatal(err)
	}
}

func checkLog(tb testing.TB, got, want [][]record) {
	tb.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) {
			tb.Fatalf("got %d groups, want %d", len(got), len(want))
		}
		if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
			tb.Fatalf("group %d: got %.200v, want %.200v", i, got[i], want[i])
		}
	}
}

func checkRead(tb testing.TB, j *journal.Journal, log [][]record) {
	tb.Helper()
	for _, g := range log {
		for _, r := range g {
			typ, body, err := j.Read(r.pos, r.size)
			if err != nil || typ != r.typ || string(body) != r.body {
				tb.Fatalf("read %#x: type %d, body %.50q, %v; want type %d, body %.50q", r.pos, typ, body, err, r.typ, r.body)
			}
		}
	}
	checkReadEach(tb, j, log)
}

// checkReadEach reads the log in runs, once whole and once with leaps back.
func checkReadEach(tb testing.TB, j *journal.Journal, log [][]record) {
	tb.Helper()
	for _, step := range []int{1, 7} {
		var want []record
		for from := range step {
			for i := from; i < len(log); i += step {
				want = append(want, log[i]...)
			}
		}
		spots := make([]journal.Spot, len(want))
		for i, r := range want {
			spots[i] = journal.Spot{Pos: r.pos, Size: r.size}
		}
		n := 0
		err := j.ReadEach(spots, nil, func(i int, typ byte, body []byte) error {
			if r := want[i]; i != n || typ != r.typ || string(body) != r.body {
				tb.Fatalf("read of each, %d at %#x: type %d, body %.50q; want type %d, body %.50q", i, r.pos, typ, body, r.typ, r.body)
			}
			n++
			return nil
		})
		if err != nil || n != len(want) {
			tb.Fatalf("read of each ends after %d of %d: %v", n, len(want), err)
		}
	}
}

func TestAppendedGroupsAreReadFromMemoryFromDiskAndAfterReopening(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	rng := rand.New(rand.NewPCG(1, 2))
	var want [][]record
	for i := range 300 {
		bodies := make([]string, 1+rng.IntN(4))
		for k := range bodies {
			bodies[k] = fmt.Sprintf("%d/%d ", i, k) + string(bytes.Repeat([]byte{byte(i)}, rng.IntN(1500)))
		}
		want = append(want, mustAppend(t, j, bodies...))
	}
	if s := j.State(); s.Segments < 3 {
		t.Fatalf("only %d segments", s.Segments)
	}
	checkRead(t, j, want)
	for range 3 {
		mustClose(t, j)
		var log [][]record
		j, log = open(t, o)
		checkLog(t, log, want)
		checkRead(t, j, want)
		want = append(want, mustAppend(t, j, "one more"))
	}
}

// ordered checks that completions come in log order.
type ordered struct {
	mu   sync.Mutex
	seen []journal.Position
}

type orderedDone struct {
	o    *ordered
	pos  journal.Position
	back chan error
}

func (d *orderedDone) Done(err error) {
	d.o.mu.Lock()
	d.o.seen = append(d.o.seen, d.pos)
	d.o.mu.Unlock()
	d.back <- err
}

func TestConcurrentAppendersAreCompletedInLogOrder(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	var order ordered
	var wg sync.WaitGroup
	for a := range 16 {
		wg.Go(func() {
			body := make([]byte, 100+a*30)
			back := make(chan error, 1)
			for i := range 100 {
				binary.LittleEndian.PutUint64(body, uint64(a<<32|i))
				if err := j.Lock(); err != nil {
					t.Error(err)
					return
				}
				if err := j.Reserve(journal.RecordHeader + len(body)); err != nil {
					t.Error(err)
				}
				pos, _ := j.End(append(j.Start(1), body...), false)
				j.Unlock(journal.Durable, &orderedDone{&order, pos, back})
				if err := <-back; err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := 1; i < len(order.seen); i++ {
		if order.seen[i-1] >= order.seen[i] {
			t.Fatalf("completion %d is for %#x after %#x", i, order.seen[i], order.seen[i-1])
		}
	}
	mustClose(t, j)
	_, log := open(t, o)
	if len(log) != 1600 || len(order.seen) != 1600 {
		t.Fatalf("%d groups, %d completions, want 1600", len(log), len(order.seen))
	}
	next := map[uint64]uint64{}
	for i, g := range log {
		if g[0].pos != order.seen[i] {
			t.Fatalf("group %d at %#x was completed as %#x", i, g[0].pos, order.seen[i])
		}
		v := binary.LittleEndian.Uint64([]byte(g[0].body))
		if a := v >> 32; next[a] != v&0xffffffff {
			t.Fatalf("appender %d: group %d where %d was due", a, v&0xffffffff, next[a])
		}
		next[v>>32]++
	}
}

func TestAnOversizeGroupGetsASegmentOfItsOwn(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	var want [][]record
	for i := range 6 {
		want = append(want, mustAppend(t, j, "before"))
		if i%2 == 0 {
			want = append(want, mustAppend(t, j, string(bytes.Repeat([]byte{'x'}, 200_000+i)), "tail"))
		}
		want = append(want, mustAppend(t, j, "after"))
	}
	checkRead(t, j, want)
	mustClose(t, j)
	j, log := open(t, o)
	checkLog(t, log, want)
	checkRead(t, j, want)
}

func TestAnAbandonedGroupLeavesNothing(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	for _, n := range []int{100, 100_000} {
		if err := j.Lock(); err != nil {
			t.Fatal(err)
		}
		if err := j.Reserve(n); err != nil {
			t.Fatal(err)
		}
		j.End(append(j.Start(1), "half a group"...), true)
		j.Abandon()
		c := make(done, 1)
		j.Unlock(journal.Durable, c)
		if err := <-c; err != nil {
			t.Fatal(err)
		}
	}
	if s := j.State(); s.Syncs != 0 {
		t.Fatalf("%d syncs for nothing", s.Syncs)
	}
	want := [][]record{mustAppend(t, j, "whole")}
	want = append(want, mustAppend(t, j, string(make([]byte, 60_000))))
	mustClose(t, j)
	_, log := open(t, o)
	checkLog(t, log, want)
}

func TestAClosedJournalRefusesAppends(t *testing.T) {
	j, _ := open(t, small(t.TempDir()))
	mustAppend(t, j, "x")
	mustClose(t, j)
	if err := j.Lock(); !errors.Is(err, journal.ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	mustClose(t, j)
}
