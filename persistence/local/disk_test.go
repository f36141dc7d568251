package local_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// queueOn defines a queue.
func queueOn(tb testing.TB, s *local.Store, d broker.Def) broker.Target {
	tb.Helper()
	d.Kind = broker.QueueTarget
	id, err := s.Define(context.Background(), d)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// batches is a Completion that hands the batch back.
type batches chan *broker.Batch

func (c batches) Done(b *broker.Batch) { c <- b }

// submit submits one unit.
func submit(s *local.Store, build func(b *broker.Batch)) batches {
	b, c := &broker.Batch{}, make(batches, 1)
	build(b)
	b.End()
	s.Submit(b, broker.Durable, c)
	return c
}

func outcome(c batches) error { return (<-c).Units[0].Result.Err }

func publishTo(s *local.Store, q broker.Target) batches {
	return submit(s, func(b *broker.Batch) { b.Publish(numbered(1, 100), broker.Route{Target: q}) })
}

// shut closes the store and verifies what it left behind.
func shut(tb testing.TB, s *local.Store) {
	tb.Helper()
	if err := s.Close(context.Background()); err != nil {
		tb.Errorf("close: %v", err)
	} else if fs, dir := s.Place(); fs != nil {
		if err := verified(fs, dir); err != nil {
			tb.Errorf("what it left behind: %v", err)
		}
	}
}

func TestNothingIsAnsweredOrShownBeforeItIsOnDisk(t *testing.T) {
	gate := journaltest.NewGateFS(journaltest.NewSectorFS())
	s := open(t, crashOptions(gate))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	gate.Hold()
	c := publishTo(s, q)
	<-gate.Held()
	if got := receive(t, s, q, 1); len(got) != 0 {
		t.Error("a message was delivered before it was on disk")
	}
	if in, _ := s.Info(context.Background(), q); in.In != 0 || in.Ready != 0 {
		t.Errorf("counted before it was on disk: %+v", in)
	}
	select {
	case <-c:
		t.Error("answered before it was on disk")
	default:
	}
	gate.Release()
	if err := outcome(c); err != nil {
		t.Fatal(err)
	}
	got := receive(t, s, q, 1)
	if len(got) != 1 {
		t.Fatal("not delivered after it was answered")
	}
	gate.Hold()
	c = submit(s, func(b *broker.Batch) { b.Settle(got[0].Ref, broker.ReasonAcked) })
	again := submit(s, func(b *broker.Batch) { b.Settle(got[0].Ref, broker.ReasonAcked) })
	<-gate.Held()
	select {
	case <-c:
		t.Error("an ack was answered before it was on disk")
	case <-again:
		t.Error("the loss of a race was told before the winner was on disk")
	default:
	}
	gate.Release()
	if err := outcome(c); err != nil {
		t.Error(err)
	}
	if err := outcome(again); !errors.Is(err, broker.ErrGone) {
		t.Errorf("second ack answers %v, want gone", err)
	}
	shut(t, s)
}

func TestAFailedSyncLeavesWhatWasUnderWayUnknownAndEndsTheStore(t *testing.T) {
	for _, kind := range []journaltest.Kind{journaltest.Write, journaltest.Sync} {
		t.Run(string(kind), func(t *testing.T) {
			fault := journaltest.NewFaultFS(journaltest.NewSectorFS())
			o := crashOptions(fault)
			failed := make(chan error, 1)
			o.Failed = func(err error) { failed <- err }
			s := open(t, o)
			s.Bind(noEvents{})
			q := queueOn(t, s, broker.Def{Name: "q"})
			empty := queueOn(t, s, broker.Def{Name: "empty"})
			got := make(collect, 1)
			w := &broker.Wait{Target: empty, Max: 1, Until: time.Now().Add(time.Hour), Sink: got}
			s.Receive(w)
			fault.Fail(journaltest.Fault{Kind: kind, Match: journaltest.InLog, At: 1, Forever: true, Err: syscall.EIO})
			if err := outcome(publishTo(s, q)); !errors.Is(err, broker.ErrUnknown) {
				t.Errorf("publish under way answers %v, want unknown", err)
			}
			if <-got; !errors.Is(w.Err, broker.ErrClosed) {
				t.Errorf("a wait ends with %v, want closed", w.Err)
			}
			if err := <-failed; !errors.Is(err, syscall.EIO) {
				t.Errorf("told %v, want the error of the disk", err)
			}
			fault.Heal()
			if err := outcome(publishTo(s, q)); !errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrUnknown) {
				t.Errorf("publish afterwards answers %v, want a definite refusal", err)
			}
			if _, err := s.Get(context.Background(), broker.SpaceAuth, "k"); !errors.Is(err, broker.ErrClosed) {
				t.Errorf("get answers %v, want closed", err)
			}
			if s.State().Err == nil {
				t.Error("the state shows no error")
			}
			if err := s.Close(context.Background()); err == nil {
				t.Error("close hides that the store failed")
			}
		})
	}
}

func TestAFullDiskRefusesPublishesAndRecoversByItself(t *testing.T) {
	fault := journaltest.NewFaultFS(journaltest.NewSectorFS())
	s := open(t, crashOptions(fault))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	fault.Fail(journaltest.Fault{Match: func(op journaltest.Op) bool {
		return op.Changes() && !journaltest.InLog(op)
	}, At: 1, Forever: true, Err: syscall.ENOSPC})
	full := false
	for range 2000 {
		if err := outcome(publishTo(s, q)); err != nil {
			if !errors.Is(err, broker.ErrFull) {
				t.Fatalf("publish to a full disk answers %v, want full", err)
			}
			full = true
			break
		}
	}
	if !full {
		t.Fatal("the disk never filled")
	}
	if !s.State().Full || s.State().Err != nil {
		t.Errorf("state is %+v, want full and no error", s.State())
	}
	got := receive(t, s, q, 1)
	if len(got) != 1 {
		t.Fatal("a full disk stops deliveries")
	}
	fault.Heal()
	for begin := time.Now(); s.State().Full && time.Since(begin) < 10*time.Second; {
		_ = outcome(publishTo(s, q)) // refused until the next attempt to prepare a segment
	}
	if err := outcome(publishTo(s, q)); err != nil {
		t.Errorf("publish after there was room again: %v", err)
	}
	shut(t, s)
}

func TestASecondProcessIsRefusedAndToldWhoHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, local.Options{Dir: dir})
	_, err := local.Open(local.Options{Dir: dir})
	locked, ok := errors.AsType[*journal.LockedError](err)
	if !ok || locked.PID != os.Getpid() {
		t.Errorf("second open answers %v, want a lock held by %d", err, os.Getpid())
	}
	shut(t, s)
	shut(t, open(t, local.Options{Dir: dir}))
}

func TestANewerFormatIsRefusedAndNotTouched(t *testing.T) {
	for text, want := range map[string]string{"millrace data 3\n": "newer", "hello\n": "not one of Millrace"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "FORMAT"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := local.Open(local.Options{Dir: dir})
		if _, ok := errors.AsType[*local.FormatError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("open of %q answers %v, want a text with %q", text, err, want)
		}
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("open left %v behind", names)
		}
	}
}

func TestADirectoryThatAnybodyMayWriteIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	shut(t, open(t, local.Options{Dir: dir}))
	for _, c := range []struct {
		mode os.FileMode
		warn string
	}{{0o777, ""}, {0o770, "group"}} {
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := local.Open(local.Options{Dir: dir, Log: zerolog.New(&log)})
		if c.warn == "" {
			if _, ok := errors.AsType[*local.PermissionError](err); !ok {
				t.Errorf("open of a directory with mode %v answers %v", c.mode, err)
			}
			continue
		}
		if err != nil || !strings.Contains(log.String(), c.warn) {
			t.Errorf("open of a directory with mode %v answers %v and logs %q", c.mode, err, log.String())
		}
		shut(t, s)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := open(t, local.Options{Dir: link, Log: zerolog.New(&log)})
	if !strings.Contains(log.String(), "symbolic link") {
		t.Errorf("a link is not warned of: %q", log.String())
	}
	shut(t, s)
}

func TestRelaxedSaysSo(t *testing.T) {
	o := crashOptions(journaltest.NewSectorFS())
	o.Relaxed = true
	s := open(t, o)
	s.Bind(noEvents{})
	if d := s.State().Durability; d != broker.DurabilityRelaxed {
		t.Errorf("durability is %q", d)
	}
	q := queueOn(t, s, broker.Def{Name: "q"})
	if err := outcome(publishTo(s, q)); err != nil {
		t.Error(err)
	}
	shut(t, s)
}

func TestMessagesColderThanTheCacheAreReadFromDisk(t *testing.T) {
	o := crashOptions(journaltest.NewSectorFS())
	o.CacheSize = 1
	s := open(t, o)
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	const n = 300
	for i := range n {
		c := submit(s, func(b *broker.Batch) { b.Publish(numbered(i, 1000), broker.Route{Target: q}) })
		if err := outcome(c); err != nil {
			t.Fatal(err)
		}
	}
	got := receive(t, s, q, n)
	for i := range got {
		if number(t, &got[i]) != i || len(got[i].Payload) != 1000 {
			t.Fatalf("message %d is %s with %d bytes", i, got[i].Topic, len(got[i].Payload))
		}
	}
	if len(got) != n {
		t.Errorf("got %d messages, want %d", len(got), n)
	}
	shut(t, s)
}

func TestALeaseIsRecordedSoonThoughNobodySubmits(t *testing.T) {
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	const n = 5
	for i := range n {
		if err := outcome(submit(s, func(b *broker.Batch) { b.Publish(numbered(i, 10), broker.Route{Target: q}) })); err != nil {
			t.Fatal(err)
		}
	}
	for range n { // each time after the writer has gone to sleep
		receive(t, s, q, 1)
		waitForQuiet(t, s)
	}
	after := open(t, crashOptions(disk.Clone()))
	after.Bind(noEvents{})
	if in, err := after.Info(context.Background(), q); err != nil || in.Leased != n {
		t.Errorf("%d of %d leases survived, %v", in.Leased, n, err)
	}
	shut(t, after)
	shut(t, s)
}

// waitForQuiet waits until nothing that the store wants to write is unwritten.
func waitForQuiet(t *testing.T, s *local.Store) {
	t.Helper()
	for begin := time.Now(); !s.Quiet(); {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the store is still not quiet")
		}
	}
}

func TestAWarmBatchAllocatesNothingPerMessage(t *testing.T) {
	s := open(t, local.Options{Dir: t.TempDir()})
	s.Bind(noEvents{})
	routes := []broker.Route{{Target: queueOn(t, s, broker.Def{Name: "a"})}, {Target: queueOn(t, s, broker.Def{Name: "b"})}}
	b, c, m := &broker.Batch{}, make(batches, 1), numbered(1, 256)
	const n = 1000
	cycle := func() {
		b.Reset()
		for range n {
			b.Publish(m, routes...)
			b.End()
		}
		s.Submit(b, broker.Durable, c)
		<-c
	}
	cycle()
	// A window for each MiB and a chunk for each 1,024 messages of a queue remain.
	if got := testing.AllocsPerRun(20, cycle); got > n/20 {
		t.Errorf("a batch of %d publishes allocates %v times", n, got)
	}
	shut(t, s)
}
