package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// restored restores a backup on a new disk.
func restored(tb testing.TB, archive []byte) (*journaltest.SectorFS, *local.Manifest) {
	tb.Helper()
	disk := journaltest.NewSectorFS()
	m, err := local.Restore(context.Background(), disk, "data", bytes.NewReader(archive))
	if err != nil {
		tb.Fatal(err)
	}
	return disk, m
}

func TestABackupHoldsAllThatWasAnsweredBeforeItWhileTrafficGoesOn(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk))
	s.Bind(noEvents{})
	l := &ledger{}
	w := &workload{t: t, s: s, l: l, rng: rand.New(rand.NewPCG(5, 2))}
	defineCrash(t, s, w)
	rng := rand.New(rand.NewPCG(5, 3))
	for round := range rounds {
		for range 40 {
			w.step()
		}
		if round%3 == 2 {
			if _, err := s.CopyStreams(); err != nil {
				t.Fatal(err)
			}
		}
		var archive bytes.Buffer
		before := l.snapshot()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Backup(context.Background(), &archive); err != nil {
				t.Error(err)
			}
		})
		for range 20 { // meanwhile
			w.step()
		}
		wg.Wait()
		copied, m := restored(t, archive.Bytes())
		verify(t, copied, before, l.snapshot(), fmt.Sprintf("backup %d up to %s", round, m.LogEnd), rng)
		if t.Failed() {
			break
		}
	}
	w.wait()
	shut(t, s)
}

func TestARestoredStoreIsSoundAndItsSequencesAreNotUsedAgain(t *testing.T) {
	d := newDamaged(t)
	s := open(t, damageOptions(d.disk))
	s.Bind(noEvents{})
	var archive bytes.Buffer
	if err := s.Backup(context.Background(), &archive); err != nil {
		t.Fatal(err)
	}
	q := s.Named(broker.QueueTarget, "q0")
	later := submit(s, func(b *broker.Batch) { b.Publish(numbered(999, 10), broker.Route{Target: q}) })
	u := (<-later).Units[0].Result
	shut(t, s)
	disk, _ := restored(t, archive.Bytes())
	if err := verified(disk, "data"); err != nil && !strings.Contains(err.Error(), "Watermark:00000000:0") {
		t.Error(err)
	}
	s = open(t, damageOptions(disk))
	s.Bind(noEvents{})
	if got := contentsOf(s); got != d.want {
		t.Errorf("restored\n%s\nwant\n%s", got, d.want)
	}
	again := (<-submit(s, func(b *broker.Batch) { b.Publish(numbered(1000, 10), broker.Route{Target: q}) })).Units[0].Result
	if again.Seq <= u.Seq {
		t.Errorf("message %d after the restore, and %d had been used after the backup", again.Seq, u.Seq)
	}
	shut(t, s)
}

// archive is a backup of what is there.
func (d *damaged) archive(t *testing.T) []byte {
	t.Helper()
	s := open(t, damageOptions(d.disk))
	s.Bind(noEvents{})
	var b bytes.Buffer
	if err := s.Backup(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	return b.Bytes()
}

func TestABackupThatIsNotWholeRestoresNothing(t *testing.T) {
	d := newDamaged(t)
	whole := d.archive(t)
	refused := func(what string, archive []byte) {
		t.Helper()
		disk := journaltest.NewSectorFS()
		_, err := local.Restore(context.Background(), disk, "data", bytes.NewReader(archive))
		if err == nil { // a bit that means nothing, such as one of the padding: then it is all there
			s := open(t, damageOptions(disk))
			s.Bind(noEvents{})
			if got := contentsOf(s); got != d.want {
				t.Errorf("%s: restored\n%s", what, got)
			}
			_ = s.Close(context.Background())
			return
		}
		if _, ok := errors.AsType[*local.BackupError](err); !ok {
			t.Errorf("%s: %v", what, err)
		}
		if names, _ := disk.List("data"); len(names) > 0 {
			t.Errorf("%s: left %v", what, names)
		}
	}
	for i := 0; i < len(whole); i += step(1009) {
		refused(fmt.Sprintf("cut to %d", i), whole[:i])
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("byte %d", i), bad)
	}
	if _, err := local.Restore(context.Background(), d.disk, "data", bytes.NewReader(whole)); err == nil {
		t.Error("restored over a data directory")
	}
}

// A power cut at any moment of a restore leaves what is no data directory, or all
// of it; and all of it once the restore was answered.
func TestAPowerCutWhileRestoring(t *testing.T) {
	d := newDamaged(t)
	archive := d.archive(t)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for cut, whole := 1, false; !whole; cut++ {
		disk := journaltest.NewSectorFS()
		fs, cutOff := cutAfter(disk, cut, rng)
		if _, err := local.Restore(context.Background(), fs, "data", bytes.NewReader(archive)); err != nil {
			t.Fatal(err)
		}
		after, _ := cutOff().(*journaltest.SectorFS)
		if whole = after == nil; whole {
			after = disk.Crash(0, rng).(*journaltest.SectorFS)
		}
		names, _ := after.List("data")
		s, err := local.Open(damageOptions(after))
		if err != nil && (whole || named(err) != nil) {
			t.Fatalf("cut %d, seed %d: %v", cut, seed, err)
		}
		if err != nil {
			continue
		}
		s.Bind(noEvents{})
		if got := contentsOf(s); got != d.want && (whole || slices.Contains(names, "FORMAT")) {
			t.Fatalf("cut %d, seed %d: restored\n%s", cut, seed, got)
		} else if got != d.want && len(names) > 0 {
			t.Fatalf("cut %d, seed %d: a start takes %v for a new data directory", cut, seed, names)
		}
		shut(t, s)
	}
}

// brokenPipe takes so many bytes.
type brokenPipe int

func (p *brokenPipe) Write(b []byte) (int, error) {
	if *p -= brokenPipe(len(b)); *p < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func TestABackupThatBreaksOffLetsGoOfEverything(t *testing.T) {
	d := newDamaged(t)
	s := open(t, damageOptions(d.disk))
	s.Bind(noEvents{})
	for n := range 20 {
		p := brokenPipe(n * 3000)
		if err := s.Backup(context.Background(), &p); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("a backup to a pipe of %d bytes answers %v", n*3000, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Backup(ctx, io.Discard); !errors.Is(err, broker.ErrUnknown) && !errors.Is(err, context.Canceled) {
		t.Errorf("a backup that was given up answers %v", err)
	}
	shut(t, s) // finds every file closed, and the directory sound
}

func TestABackupThatBreaksOffLeavesNoFile(t *testing.T) {
	archive := newDamaged(t).archive(t)
	for what, r := range map[string]io.Reader{
		"the network": io.MultiReader(bytes.NewReader(archive[:len(archive)/2]), iotest.ErrReader(io.ErrUnexpectedEOF)),
		"an end":      bytes.NewReader(archive[:len(archive)/2]),
	} {
		disk := journaltest.NewSectorFS()
		_, err := local.KeepBackup(t.Context(), disk, "out/b.tar", r)
		if _, bad := errors.AsType[*local.BackupError](err); bad != (what == "an end") || !bad && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", what, err)
		}
		if names, _ := disk.List("out"); len(names) > 0 {
			t.Errorf("%s: left %v", what, names)
		}
	}
}

func FuzzRestore(f *testing.F) {
	s, err := local.Open(damageOptions(journaltest.NewSectorFS()))
	if err != nil {
		f.Fatal(err)
	}
	s.Bind(noEvents{})
	var b bytes.Buffer
	if err := s.Backup(context.Background(), &b); err != nil {
		f.Fatal(err)
	}
	if err := s.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("MANIFEST.json"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		disk := journaltest.NewSectorFS()
		if _, err := local.Restore(context.Background(), disk, "data", bytes.NewReader(archive)); err == nil {
			if _, err := local.Verify(context.Background(), disk, "data"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
