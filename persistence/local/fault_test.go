package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// faultsEach is how many operations of each kind are made to fail, each by
// itself: the first 500 with MILLRACE_FAULTS=all.
func faultsEach() int {
	switch {
	case os.Getenv("MILLRACE_FAULTS") == "all":
		return 500
	case testing.Short():
		return 3
	default:
		return 12
	}
}

// faultRun is one workload on a disk on which one operation fails, once or from
// then on.
type faultRun struct {
	t      *testing.T
	fault  journaltest.Fault
	seed   uint64
	failed atomic.Int64 // how often the store said that it has
	late   atomic.Int64 // units that were submitted after that and succeeded
}

// Done is the completion of a unit that was submitted after the store had failed.
func (f *faultRun) Done(b *broker.Batch) {
	if b.Units[0].Result.Err == nil {
		f.late.Add(1)
	}
}

// run reports whether the fault hit anything.
func (f *faultRun) run() (hit bool, err error) {
	disk := journaltest.NewSectorFS()
	faulty := journaltest.NewFaultFS(disk)
	o := crashOptions(faulty)
	o.SegmentSize, o.FirstSegmentSize, o.WindowSize = 16<<10, 8<<10, 8<<10 // many files
	o.MarkEvery = time.Millisecond
	o.Failed = func(error) { f.failed.Add(1) }
	l := &ledger{}
	if err := f.work(faulty, o, l); err != nil {
		return true, err
	}
	if f.failed.Load() > 1 {
		return true, fmt.Errorf("it was told %d times that the store failed", f.failed.Load())
	}
	if f.late.Load() > 0 {
		return true, errors.New("acknowledged after the first failure")
	}
	rng := rand.New(rand.NewPCG(f.seed, 3))
	after := disk.Crash([]int{0, 50, 100}[f.seed%3], rng)
	known := l.snapshot()
	verify(f.t, after, known, known, fmt.Sprintf("%s %d fails with %v, for ever %v", f.fault.Kind, f.fault.At, f.fault.Err, f.fault.Forever), rng)
	return faulty.Fired() > 0, nil
}

// work runs the workload until it ends, or until the disk does.
func (f *faultRun) work(faulty *journaltest.FaultFS, o local.Options, l *ledger) error {
	s, err := local.Open(o)
	if err != nil {
		return err // nothing fails yet
	}
	s.Bind(noEvents{})
	w := &workload{t: f.t, s: s, l: l, rng: rand.New(rand.NewPCG(f.seed, 2)), faulty: true}
	defineCrash(f.t, s, w)
	faulty.Fail(f.fault)
	for range 60 + 12*f.fault.At { // so many that there is an operation to fail
		w.step()
		if s.State().Err != nil {
			break
		}
	}
	w.wait()
	if f.failed.Load() > 0 {
		b := &broker.Batch{}
		b.Publish(numbered(0, 10), broker.Route{Target: w.queues[0]})
		b.End()
		s.Submit(b, broker.Durable, f)
	} else if err := s.Check(); err != nil {
		return err
	}
	closed := s.Close(context.Background())
	if (f.failed.Load() > 0) != (closed != nil) && faulty.Fired() > 0 && f.failed.Load() > 0 {
		return fmt.Errorf("the store failed, and Close says %w", closed)
	}
	return nil
}

func TestAFailureOfAnyOperationLosesNothingAnswered(t *testing.T) {
	for _, kind := range []journaltest.Kind{journaltest.Write, journaltest.Sync, journaltest.Rename, journaltest.Create, journaltest.SyncDir, journaltest.Remove} {
		for _, f := range []journaltest.Fault{
			{Kind: kind, Err: syscall.EIO},
			{Kind: kind, Err: syscall.EIO, Forever: true},
			{Kind: kind, Err: syscall.ENOSPC, Short: true},
			{Kind: kind, Err: syscall.ENOSPC, Short: true, Forever: true},
			{Kind: kind, Err: io.ErrShortWrite, Short: true},
		} {
			if errors.Is(f.Err, io.ErrShortWrite) && kind != journaltest.Write {
				continue
			}
			name := fmt.Sprintf("%s/%v/forever=%v", kind, f.Err, f.Forever)
			t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				t.Parallel()
				hits := 0
				for at := 1; at <= faultsEach(); at++ {
					f.At = at
					r := &faultRun{t: t, fault: f, seed: uint64(at)}
					hit, err := r.run()
					if err != nil || t.Failed() {
						t.Fatalf("operation %d: %v", at, err)
					}
					if !hit {
						break
					}
					hits++
				}
				t.Logf("%d operations were made to fail", hits)
			})
		}
	}
}
