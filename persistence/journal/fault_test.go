package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

// runWithFault runs a workload on a failing disk, cuts the power, and checks
// what is left. It reports whether the fault hit anything.
func runWithFault(fault journaltest.Fault, keep int) (hit bool, err error) {
	disk := journaltest.NewSectorFS()
	faulty := journaltest.NewFaultFS(disk)
	o := crashOptions(faulty)
	o.RetryEvery = time.Millisecond
	var failed atomic.Int64
	o.Failed = func(error) { failed.Add(1) }
	faulty.Fail(fault)
	w := &workload{}
	j, err := journal.Open(o, nil)
	if err == nil {
		rng := rand.New(rand.NewPCG(uint64(fault.At), 3))
		err = w.run(j, 20, false, rng)
		for errors.Is(err, journal.ErrFull) && !fault.Forever { // it recovers by itself
			w.start, w.ends = w.start+len(w.ends), nil
			err = w.run(j, 20, false, rng)
		}
		if failed.Load() > 0 {
			if lockErr := j.Lock(); lockErr == nil {
				return true, errors.New("the lock was given after the failure")
			}
			if _, _, readErr := j.Read(journal.Position(1<<32|4096), 20); readErr == nil {
				return true, errors.New("a read succeeded after the failure")
			}
		}
		closeErr := j.Close(context.Background())
		if (failed.Load() > 0) != (closeErr != nil) {
			return true, fmt.Errorf("Failed was called %d times, Close says %w", failed.Load(), closeErr)
		}
	}
	if failed.Load() > 1 {
		return true, fmt.Errorf("Failed was called %d times", failed.Load())
	}
	if faulty.Fired() == 0 {
		return false, err
	}
	var log [][]record
	o.FS = disk.Crash(keep, rand.New(rand.NewPCG(uint64(fault.At), 4)))
	j, openErr := journal.Open(o, collect(&log))
	if openErr != nil {
		return true, fmt.Errorf("recovery: %w, after: %w", openErr, err)
	}
	n, wholeErr := wholeGroups(log)
	if wholeErr == nil && n < int(w.acked.Load()) {
		wholeErr = errors.Join(fmt.Errorf("%d groups left of %d", n, w.acked.Load()), err)
	}
	return true, errors.Join(wholeErr, j.Close(context.Background()))
}

func TestAFailureOfAnyOperationLosesNothingAnswered(t *testing.T) {
	for _, f := range []journaltest.Fault{
		{Err: syscall.EIO},
		{Err: syscall.EIO, Forever: true},
		{Err: syscall.ENOSPC, Short: true, Kind: journaltest.Write},
		{Err: io.ErrShortWrite, Short: true, Kind: journaltest.Write, Forever: true},
	} {
		name := fmt.Sprintf("%v/forever=%v/short=%v", f.Err, f.Forever, f.Short)
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				f.At = n
				hit, err := runWithFault(f, keeps[n%len(keeps)])
				if hit && err != nil {
					t.Fatalf("operation %d fails: %v", n, err)
				}
				if !hit {
					if err != nil {
						t.Fatalf("without a fault: %v", err)
					}
					t.Logf("%d operations", n-1)
					return
				}
			}
		})
	}
}

// errorOrder is a completion that fails the test when a success follows an error.
type errorOrder struct {
	tb    testing.TB
	bad   *atomic.Bool
	count *atomic.Int64
}

func (e errorOrder) Done(err error) {
	e.count.Add(1)
	if err != nil {
		e.bad.Store(true)
	} else if e.bad.Load() {
		e.tb.Error("answered positively after the first failure")
	}
}

func TestAFailedSyncPoisonsTheJournalForAll(t *testing.T) {
	disk := journaltest.NewFaultFS(journaltest.NewSectorFS())
	o := small("/data/log")
	var failed []error
	o.FS, o.Failed = disk, func(err error) { failed = append(failed, err) }
	j, _ := open(t, o)
	mustAppend(t, j, "before")
	disk.Fail(journaltest.Fault{Kind: journaltest.Sync, Match: journaltest.InLog, At: 1, Forever: true, Err: syscall.EIO})
	c := errorOrder{t, new(atomic.Bool), new(atomic.Int64)}
	n := 0
	for {
		if _, err := appendGroup(j, journal.Durable, c, "x"); err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v, want the cause", err)
			}
			break
		}
		n++
	}
	if err := j.Close(context.Background()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	if int(c.count.Load()) != n || !c.bad.Load() {
		t.Fatalf("%d of %d completed", c.count.Load(), n)
	}
	if got := disk.Fired(); got != 1 {
		t.Fatalf("%d more syncs after the failed one", got-1)
	}
	if len(failed) != 1 || !errors.Is(j.State().Err, syscall.EIO) {
		t.Fatalf("Failed called %d times, state %v", len(failed), j.State().Err)
	}
}

func TestAFullDiskRefusesAppendsAndRecoversByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewFaultFS(journaltest.NewSectorFS())
		o := crashOptions(disk)
		j, err := journal.Open(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		isNew := func(op journaltest.Op) bool { return strings.HasSuffix(op.Name, ".new") }
		disk.Fail(journaltest.Fault{
			Kind: journaltest.Write, Match: isNew, At: 1, Forever: true, Err: syscall.ENOSPC, Short: true,
		})
		var log [][]record
		body := strings.Repeat("x", 1000)
		for {
			g, err := appendGroup(j, journal.Durable, nil, body)
			if err != nil {
				if !errors.Is(err, journal.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("got %v, want ErrFull and its cause", err)
				}
				break
			}
			log = append(log, g)
		}
		if s := j.State(); !s.Full || s.Err != nil {
			t.Fatalf("full %v, err %v", s.Full, s.Err)
		}
		checkRead(t, j, log)
		for range 3 {
			time.Sleep(o.RetryEvery + 2*time.Second)
			if _, err := appendGroup(j, journal.Durable, nil, body); !errors.Is(err, journal.ErrFull) {
				t.Fatalf("got %v, want ErrFull", err)
			}
		}
		log = append(log, mustAppend(t, j, "small"))
		disk.Heal()
		time.Sleep(2 * time.Second)
		if j.State().Full {
			t.Fatal("still full")
		}
		log = append(log, mustAppend(t, j, body))
		mustClose(t, j)
		var got [][]record
		j, err = journal.Open(o, collect(&got))
		if err != nil {
			t.Fatal(err)
		}
		checkLog(t, got, log)
		mustClose(t, j)
	})
}

func TestAJournalOpensOnAFullDiskForReading(t *testing.T) {
	disk := journaltest.NewFaultFS(journaltest.NewSectorFS())
	o := crashOptions(disk)
	j, _ := open(t, o)
	log := [][]record{mustAppend(t, j, "there")}
	mustClose(t, j)
	for _, kind := range []journaltest.Kind{journaltest.Create, journaltest.Write} {
		disk.Fail(journaltest.Fault{Kind: kind, At: 1, Forever: true, Err: syscall.ENOSPC})
	}
	j, got := open(t, o)
	checkLog(t, got, log)
	checkRead(t, j, log)
	if _, err := appendGroup(j, journal.Durable, nil, "x"); !errors.Is(err, journal.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	mustClose(t, j)
}

func TestNoAnswerPrecedesTheSync(t *testing.T) {
	gate := journaltest.NewGateFS(journaltest.NewSectorFS())
	o := small("/data/log")
	o.FS = gate
	j, _ := open(t, o)
	mustAppend(t, j, "first")
	gate.Hold()
	a, b, empty := make(done, 1), make(done, 1), make(done, 1)
	if _, err := appendGroup(j, journal.Durable, a, "held"); err != nil {
		t.Fatal(err)
	}
	<-gate.Held()
	if _, err := appendGroup(j, journal.Durable, b, "gathers meanwhile"); err != nil {
		t.Fatal(err)
	}
	if err := j.Lock(); err != nil {
		t.Fatal(err)
	}
	j.Unlock(journal.Durable, empty)
	select {
	case <-a:
		t.Fatal("answered while the sync was held")
	case <-empty:
		t.Fatal("answered out of order")
	default:
	}
	syncs := j.State().Syncs
	gate.Release()
	for _, c := range []done{a, b, empty} {
		if err := <-c; err != nil {
			t.Fatal(err)
		}
	}
	if got := j.State().Syncs - syncs; got != 2 {
		t.Fatalf("%d syncs for two groups", got)
	}
}

func TestLazyRecordsAreWrittenButNeverSyncedForTheirOwnSake(t *testing.T) {
	disk := journaltest.NewFaultFS(journaltest.NewSectorFS())
	o := small("/data/log")
	o.FS = disk
	j, _ := open(t, o)
	for range 10 {
		c := make(done, 1)
		if _, err := appendGroup(j, journal.Lazy, c, "lazy"); err != nil {
			t.Fatal(err)
		}
		if err := <-c; err != nil {
			t.Fatal(err)
		}
	}
	if s := j.State(); s.Syncs != 0 || s.Pending != 0 || s.Writes == 0 {
		t.Fatalf("%d syncs, %d writes, %d pending", s.Syncs, s.Writes, s.Pending)
	}
	mustAppend(t, j, "durable")
	if s := j.State(); s.Syncs != 1 || s.Durable != s.End {
		t.Fatalf("%d syncs, durable %#x, end %#x", s.Syncs, s.Durable, s.End)
	}
}

func TestRelaxedModeAnswersAfterTheWriteAndSyncsEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small("/data/log")
		disk := journaltest.NewSectorFS()
		o.FS, o.Relaxed = disk, true
		j, err := journal.Open(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := [][]record{mustAppend(t, j, "a"), mustAppend(t, j, "b")}
		if s := j.State(); s.Syncs != 0 || s.Durable == s.End {
			t.Fatalf("%d syncs, durable %#x of %#x", s.Syncs, s.Durable, s.End)
		}
		var log [][]record
		o2 := o
		o2.FS = disk.Kill() // the end of the process loses nothing
		k, err := journal.Open(o2, collect(&log))
		if err != nil {
			t.Fatal(err)
		}
		checkLog(t, log, want)
		mustClose(t, k)
		time.Sleep(1100 * time.Millisecond)
		if s := j.State(); s.Syncs != 1 || s.Durable != s.End {
			t.Fatalf("%d syncs, durable %#x of %#x", s.Syncs, s.Durable, s.End)
		}
		time.Sleep(time.Hour)
		if s := j.State(); s.Syncs != 1 {
			t.Fatalf("%d syncs while idle", s.Syncs)
		}
		mustAppend(t, j, "c")
		mustClose(t, j)
		if s := j.State(); s.Durable != s.End {
			t.Fatalf("durable %#x of %#x after Close", s.Durable, s.End)
		}
	})
}

func TestAppendersWaitWhileTooMuchIsUnwritten(t *testing.T) {
	hold := make(chan struct{})
	var holding atomic.Bool
	began := make(chan struct{}, 100)
	o := small("/data/log")
	o.MaxPending = 10_000
	o.FS = journaltest.Watch(journaltest.NewSectorFS(), func(op journaltest.Op, run func() error) error {
		if op.Kind == journaltest.Write && journaltest.InLog(op) && holding.Load() {
			began <- struct{}{}
			<-hold
		}
		return run()
	})
	j, _ := open(t, o)
	holding.Store(true)
	var n atomic.Int64
	finished := make(chan error, 1)
	go func() {
		for range 100 {
			if _, err := appendGroup(j, journal.Durable, nil, strings.Repeat("x", 990)); err != nil {
				finished <- err
				return
			}
			n.Add(1)
		}
		finished <- nil
	}()
	<-began
	for n.Load() < 11 {
		select {
		case err := <-finished:
			t.Fatalf("finished with %v", err)
		default:
		}
	}
	if got := n.Load(); got != 11 {
		t.Fatalf("%d groups of 1000 bytes fit into 10000", got)
	}
	holding.Store(false)
	close(hold)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
}

func TestWaitingAppendersShareOneSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const appenders, rounds = 20, 50
		o := small("/data/log")
		o.FS = journaltest.Watch(journaltest.NewSectorFS(), func(op journaltest.Op, run func() error) error {
			if op.Kind == journaltest.Sync && journaltest.InLog(op) {
				time.Sleep(10 * time.Millisecond)
			}
			return run()
		})
		j, err := journal.Open(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		finished := make(chan struct{})
		for i := range appenders {
			go func() {
				defer func() { finished <- struct{}{} }()
				rng := rand.New(rand.NewPCG(uint64(i), 0))
				for range rounds {
					mustAppend(t, j, "x")
					// They come back one by one, within the gather window.
					time.Sleep(time.Duration(rng.IntN(800)) * time.Microsecond)
				}
			}()
		}
		for range appenders {
			<-finished
		}
		if s := j.State(); s.Syncs > rounds*5/4 {
			t.Fatalf("%d syncs for %d rounds", s.Syncs, rounds)
		}
		mustClose(t, j)
	})
}

func TestALockedDirectoryNamesItsHolder(t *testing.T) {
	name := t.TempDir() + "/LOCK"
	l, err := journal.OS().Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	var locked *journal.LockedError
	if _, err := journal.OS().Lock(name); !errors.As(err, &locked) || locked.PID != syscall.Getpid() {
		t.Fatalf("got %v, want a LockedError of this process", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = journal.OS().Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestRemovedSegmentsAreReusedAndReplayStartsBehindThem(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	var log [][]record
	body := string(bytes.Repeat([]byte("y"), 9000))
	for range 40 {
		log = append(log, mustAppend(t, j, body))
	}
	segs := j.Segments()
	if len(segs) < 5 {
		t.Fatalf("%d segments", len(segs))
	}
	current := segs[len(segs)-1].Number
	if err := j.Remove(current); err == nil {
		t.Fatal("removed the segment that is appended to")
	}
	var kept [][]record
	for _, g := range log {
		if n := g[0].pos.Segment(); n != segs[0].Number && n != segs[2].Number {
			kept = append(kept, g)
		}
	}
	for _, i := range []int{0, 2} {
		if err := j.Remove(segs[i].Number); err != nil {
			t.Fatal(err)
		}
	}
	var scanned [][]record
	if err := j.Scan(segs[1].Number, collect(&scanned)); err != nil {
		t.Fatal(err)
	}
	checkLog(t, scanned, kept[:len(scanned)])
	checkRead(t, j, kept)
	if _, _, err := j.Read(log[0][0].pos, log[0][0].size); !errors.Is(err, journal.ErrNoSegment) {
		t.Fatalf("read from a removed segment: %v", err)
	}
	files := j.State().Segments + j.State().Free
	for range 8 {
		kept = append(kept, mustAppend(t, j, body))
	}
	mustClose(t, j)
	if _, err := journal.Open(o, nil); err == nil {
		t.Fatal("opened from the start, which is missing")
	}
	i := 0
	for kept[i][0].pos.Segment() < segs[3].Number {
		i++
	}
	o.From = kept[i+1][0].pos
	j, got := open(t, o)
	checkLog(t, got, kept[i+1:])
	checkRead(t, j, kept)
	if s := j.State(); s.Segments+s.Free > files+2 {
		t.Fatalf("%d segments and %d free files, %d files before", s.Segments, s.Free, files)
	}
}
