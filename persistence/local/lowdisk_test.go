package local_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// lookAgain is longer than the store relies on what it knows of the disk.
const lookAgain = 200 * time.Millisecond

// fillUp publishes until it is refused, and returns how many were taken.
func fillUp(tb testing.TB, s *local.Store, q broker.Target) int {
	tb.Helper()
	for n := range 100_000 {
		if err := outcome(publishTo(s, q)); err != nil {
			if !errors.Is(err, broker.ErrFull) {
				tb.Fatalf("publish to a disk that fills up: %v", err)
			}
			if !s.State().Full || s.State().Err != nil {
				tb.Fatalf("refused, and the state is %+v", s.State())
			}
			return n
		}
	}
	tb.Fatal("the disk never filled up")
	return 0
}

// ackSome takes n messages and acknowledges each by itself.
func ackSome(tb testing.TB, s *local.Store, q broker.Target, n int) {
	tb.Helper()
	for _, d := range receive(tb, s, q, n) {
		c := submit(s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) })
		if err := outcome(c); err != nil {
			tb.Fatalf("ack on a full disk: %v", err)
		}
	}
}

func TestALowDiskRefusesWhatTakesRoomAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 2<<20)
		o := crashOptions(disk)
		o.LowDisk = 1 << 20
		s := open(t, o)
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		volatile := queueOn(t, s, broker.Def{Name: "m", Volatile: true})
		retain := func(v []byte) error {
			return outcome(submit(s, func(b *broker.Batch) { b.Put(broker.SpaceRetained, "t", v, 0) }))
		}
		if err := errors.Join(outcome(publishTo(s, q)), outcome(publishTo(s, q)), retain([]byte("v"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)         // segments are prepared behind the back
		edge := disk.Free() - o.LowDisk // so much more, and it is low
		disk.Occupy(edge)
		time.Sleep(lookAgain)
		if err := outcome(publishTo(s, q)); err != nil || s.State().Full {
			t.Fatalf("refused while there is just enough: %v", err)
		}
		disk.Occupy(edge + 1)
		time.Sleep(lookAgain)
		if !s.State().Full {
			t.Error("the state does not show that the disk is low")
		}
		ctx := context.Background()
		_, defined := s.Define(ctx, broker.Def{Name: "new", Kind: broker.QueueTarget})
		both := submit(s, func(b *broker.Batch) {
			b.Publish(numbered(1, 10), broker.Route{Target: q}, broker.Route{Target: volatile})
		})
		for what, err := range map[string]error{"publish": outcome(publishTo(s, q)), "publish to both": outcome(both), "retained": retain([]byte("w")), "definition": defined} {
			if !errors.Is(err, broker.ErrFull) {
				t.Errorf("%s on a low disk answers %v", what, err)
			}
		}
		for what, put := range map[string]func(b *broker.Batch){
			"deleting a retained value": func(b *broker.Batch) { b.Put(broker.SpaceRetained, "t", nil, 0) },
			"a cursor":                  func(b *broker.Batch) { b.Put(broker.SpaceCursors, "c", []byte("5"), 0) },
			"an account":                func(b *broker.Batch) { b.Put(broker.SpaceAuth, "k", []byte("revoked"), 0) },
			"a publish to memory":       func(b *broker.Batch) { b.Publish(numbered(1, 10), broker.Route{Target: volatile}) },
			"a purge":                   func(b *broker.Batch) { b.Purge(volatile, true) },
		} {
			if err := outcome(submit(s, put)); err != nil {
				t.Errorf("%s on a low disk answers %v", what, err)
			}
		}
		ackSome(t, s, q, 1)
		if _, err := s.Define(ctx, broker.Def{Name: "q", Kind: broker.QueueTarget, MaxMessages: 5}); err != nil {
			t.Errorf("altering a queue on a low disk answers %v", err)
		}
		disk.Occupy(edge - o.LowDisk/10 + 1) // not yet a tenth above the mark
		time.Sleep(lookAgain)
		if err := outcome(publishTo(s, q)); !errors.Is(err, broker.ErrFull) {
			t.Errorf("publish just above the mark answers %v", err)
		}
		disk.Occupy(edge - o.LowDisk/10)
		time.Sleep(lookAgain)
		if err := outcome(publishTo(s, q)); err != nil || s.State().Full {
			t.Errorf("publish a tenth above the mark answers %v", err)
		}
		shut(t, s)
	})
}

func TestADiskThatOthersFillLeavesTheReserveForAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 4<<20)
		var crowded atomic.Bool
		o := crashOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
			err := run()
			if op.Kind == journaltest.Remove && crowded.Load() {
				disk.Fill() // others take what is given back
			}
			return err
		}))
		o.LowDisk = 1 // only a full disk is low
		s := open(t, o)
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		const n = 6000
		for range n {
			if err := outcome(publishTo(s, q)); err != nil {
				t.Fatal(err)
			}
		}
		reserved := func() bool {
			names, err := disk.List("data/journal")
			if err != nil {
				t.Fatal(err)
			}
			return slices.Contains(names, "reserve")
		}
		if !reserved() {
			t.Fatal("there is no reserve")
		}
		for round := range 3 {
			disk.Occupy(disk.Free())
			time.Sleep(lookAgain)
			fillUp(t, s, q)
			crowded.Store(true)
			for acked := 0; round == 0 && reserved(); acked += 50 { // all that was prepared is used up
				if acked > n-1000 {
					t.Fatal("the reserve is not used")
				}
				disk.Fill() // what was given back before, too
				ackSome(t, s, q, 50)
			}
			ackSome(t, s, q, 200)
			crowded.Store(false)
			disk.Occupy(0)
			time.Sleep(3 * time.Second) // preparing is tried again
			if err := outcome(publishTo(s, q)); err != nil {
				t.Fatalf("round %d: publish after there was room again: %v", round, err)
			}
			if disk.Free() < 1<<20 {
				break // sealed segments stay until there are checkpoints
			}
		}
		shut(t, s)
		disk.Occupy(disk.Free())
		s = open(t, o) // a full disk is no reason not to open
		s.Bind(noEvents{})
		ackSome(t, s, q, 10)
		if err := outcome(publishTo(s, q)); !errors.Is(err, broker.ErrFull) {
			t.Errorf("publish to a store opened on a full disk answers %v", err)
		}
		shut(t, s)
	})
}

// smallDisk is a folder on a file system of its own, or the test is skipped.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a tmpfs cannot be mounted here: %v: %s", err, bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestASmallDiskIsFilledAndDrained fills a real file system 20 times, by
// messages and, every other time, by somebody else, and drains it.
func TestASmallDiskIsFilledAndDrained(t *testing.T) {
	dir := smallDisk(t, "24m")
	s := open(t, local.Options{Dir: filepath.Join(dir, "data"), FirstSegmentSize: 512 << 10, SegmentSize: 1 << 20})
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	foreign := filepath.Join(dir, "foreign")
	t.Cleanup(func() { _ = s.Close(context.WithoutCancel(t.Context())) }) // of a test that failed: its disk is to be taken away
	taken, took := 0, []time.Duration(nil)
	for round := range 20 {
		if round%2 == 1 {
			fillFile(t, foreign)
		}
		n := 0
		for {
			begin := time.Now()
			c := submit(s, func(b *broker.Batch) { b.Publish(numbered(n, 30_000), broker.Route{Target: q}) })
			if err := outcome(c); err == nil {
				n++
				continue
			} else if !errors.Is(err, broker.ErrFull) {
				t.Fatalf("round %d: %v", round, err)
			}
			took = append(took, time.Since(begin))
			break
		}
		taken += n
		drain(t, s, q)
		_ = os.Remove(foreign) // it is there every other time
		if !within(20*time.Second, func() bool { return outcome(publishTo(s, q)) == nil }) {
			t.Fatalf("round %d: publishing does not resume: %+v", round, s.Journal().State())
		}
		drain(t, s, q)
	}
	slices.Sort(took)
	median, slowest := took[len(took)/2], took[len(took)-1]
	t.Logf("%d messages, a refusal took %v, the slowest %v", taken, median, slowest)
	if median > 100*time.Millisecond || slowest > 5*time.Second { // a busy machine may hold one up
		t.Errorf("a refusal took %v, the slowest %v", median, slowest)
	}
	if taken < 20*300 {
		t.Errorf("only %d messages fitted into 20 times 24 MiB", taken)
	}
	shut(t, s)
}

// fillFile writes until the disk is full.
func fillFile(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Close() // it does not matter what of it is there
}

// drain takes and acknowledges everything.
func drain(t *testing.T, s *local.Store, q broker.Target) {
	t.Helper()
	for {
		got := receive(t, s, q, 100)
		if len(got) == 0 {
			return
		}
		c := submit(s, func(b *broker.Batch) {
			for i := range got {
				b.Settle(got[i].Ref, broker.ReasonAcked)
			}
		})
		if err := outcome(c); err != nil {
			t.Fatalf("ack on a full disk: %v", err)
		}
	}
}

// within waits until ok holds.
func within(limit time.Duration, ok func() bool) bool {
	for begin := time.Now(); !ok(); {
		if time.Since(begin) > limit {
			return false
		}
		<-time.After(20 * time.Millisecond)
	}
	return true
}
