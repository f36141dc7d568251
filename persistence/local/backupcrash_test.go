package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// backupRound cuts the power while backups are taken under traffic: after each
// operation on the disk of the store, and on that of the backup.
type backupRound struct {
	t    *testing.T
	seed uint64
	l    *ledger
	from journaltest.Crashable // the store is there
	to   *journaltest.SectorFS // and the backup here

	mu       sync.Mutex
	rng      *rand.Rand
	armed    bool
	answered bool // the backup was
	begin    known
	cuts     int
	kinds    map[string]int // of what was found of a backup
}

// watch cuts the power after each change of one of the disks.
func (b *backupRound) watch(fs journal.FS) journal.FS {
	return journaltest.Watch(fs, func(op journaltest.Op, run func() error) error {
		err := run()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.armed && op.Changes() && !b.t.Failed() {
			b.cut(op)
		}
		return err
	})
}

// cut looks at both disks as a power cut leaves them. The caller holds mu.
func (b *backupRound) cut(op journaltest.Op) {
	keep := 0
	if op.Kind == journaltest.Write || op.Kind == journaltest.Rename {
		keep = []int{0, 50, 80, 90, 95, 100}[b.rng.IntN(6)]
	}
	b.cuts++
	where := fmt.Sprintf("seed %d, cut %d after %s of %s, %d %% kept", b.seed, b.cuts, op.Kind, op.Name, keep)
	before := b.l.snapshot()
	after, backup := b.from.Crash(keep, b.rng), b.to.Crash(keep, b.rng).(*journaltest.SectorFS)
	now := b.l.snapshot()
	verify(b.t, after, before, now, where, b.rng)
	b.found(backup, now, where)
}

// found judges what is left of a backup: it holds all that was answered before
// it began, or it is refused.
func (b *backupRound) found(disk *journaltest.SectorFS, now known, where string) {
	names, _ := disk.List("out")
	whole := slices.Contains(names, "b.tar")
	if b.answered && !whole {
		b.t.Errorf("%s: the backup was answered, and there is only %v", where, names)
	}
	for _, name := range names {
		archive := disk.Data("out/" + name)
		copied := journaltest.NewSectorFS()
		_, err := local.Restore(context.Background(), copied, "data", bytes.NewReader(archive))
		if err == nil {
			b.kinds["whole "+name]++
			verify(b.t, copied, b.begin, now, where+", of the backup "+name, b.rng)
			continue
		}
		b.kinds["refused "+name]++
		if _, ok := errors.AsType[*local.BackupError](err); !ok || name == "b.tar" {
			b.t.Errorf("%s: %s is refused with %v", where, name, err)
		}
		if left, _ := copied.List("data"); len(left) > 0 {
			b.t.Errorf("%s: refused, and left %v", where, left)
		}
	}
}

// take takes one backup while w works.
func (b *backupRound) take(s *local.Store, w *workload, fs journal.FS) {
	b.mu.Lock()
	b.begin, b.armed, b.answered = b.l.snapshot(), true, false
	b.mu.Unlock()
	r, pipe := io.Pipe()
	var both sync.WaitGroup
	both.Go(func() { _ = pipe.CloseWithError(s.Backup(context.Background(), pipe)) }) // KeepBackup tells of it
	both.Go(func() {
		if _, err := local.KeepBackup(context.Background(), fs, "out/b.tar", r); err != nil {
			b.t.Errorf("seed %d: %v", b.seed, err)
		}
		b.mu.Lock()
		b.answered = true
		b.mu.Unlock()
	})
	for i := range 12 {
		if w.step(); i == 6 {
			s.Tidy()
		}
	}
	w.wait()
	both.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut(journaltest.Op{Kind: journaltest.Sync, Name: "nothing: it was answered"})
	b.armed = false
}

func (b *backupRound) run() int {
	s, err := local.Open(crashOptions(b.watch(b.from)))
	if err != nil {
		b.t.Fatal(err)
	}
	s.Bind(noEvents{})
	w := &workload{t: b.t, s: s, l: b.l, rng: rand.New(rand.NewPCG(b.seed, 22))}
	defineCrash(b.t, s, w)
	for range 2 {
		for range 40 {
			w.step()
		}
		w.wait()
		b.take(s, w, b.watch(b.to))
		if err := b.to.Remove("out/b.tar"); err != nil {
			b.t.Error(err)
		}
		if err := b.to.SyncDir("out"); err != nil {
			b.t.Error(err)
		}
	}
	if err := s.Check(); err != nil {
		b.t.Error(err)
	}
	if err := s.Close(context.Background()); err != nil {
		b.t.Error(err)
	}
	return b.cuts
}

func TestAPowerCutWhileABackupIsTakenLosesNothingAndTheBackupIsWholeOrRefused(t *testing.T) {
	kinds := map[string]int{}
	crashRounds(t, 1, func(seed uint64) int {
		b := &backupRound{
			t: t, seed: seed, l: &ledger{}, from: journaltest.NewSectorFS(), to: journaltest.NewSectorFS(),
			rng: rand.New(rand.NewPCG(seed, 21)), kinds: kinds,
		}
		return b.run()
	})
	t.Logf("%v", kinds)
	if !t.Failed() && (kinds["whole b.tar"] == 0 || kinds["refused b.tar.part"] == 0) {
		t.Errorf("not every end of a backup was there: %v", kinds)
	}
}
