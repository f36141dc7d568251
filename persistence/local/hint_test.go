package local_test

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

// filesIn lists the files of a kind in the journal, in the order of their segments.
func filesIn(t *testing.T, fs journal.FS, kind string) []string {
	t.Helper()
	names, err := fs.List("data/journal")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, n := range names {
		if strings.HasSuffix(n, kind) {
			files = append(files, filepath.Join("data/journal", n))
		}
	}
	return files
}

func TestSegmentsThatAreFilledDuringUpkeepGetTheirHintsTheNextTime(t *testing.T) {
	disk := journaltest.NewSectorFS()
	var more atomic.Pointer[func()]
	s := open(t, crashOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
		if op.Kind == journaltest.Create && strings.Contains(op.Name, "/stream/") {
			if fill := more.Swap(nil); fill != nil {
				(*fill)() // the copying out of full segments, ahead of the hints
			}
		}
		return run()
	}))) // not bound: its upkeep is done when the test says so
	q := queueOn(t, s, broker.Def{Name: "q"})
	st, err := s.Define(t.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, st, 1)
	fill(t, s, q, 200)
	filled := false
	during := func() { fill(t, s, q, 400); filled = true }
	more.Store(&during)
	s.Tidy()
	s.Tidy()
	if !filled {
		t.Fatal("nothing was published during the upkeep")
	}
	if hints, full := len(filesIn(t, disk, ".hint")), len(s.Journal().Segments())-1; hints != full {
		t.Errorf("%d of %d full segments have hints", hints, full)
	}
	shut(t, s)
}

func TestACloseWritesTheHintsThatUpkeepHasNot(t *testing.T) {
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk)) // not bound: there is no upkeep
	fill(t, s, queueOn(t, s, broker.Def{Name: "q"}), 400)
	all := len(s.Journal().Segments())
	shut(t, s)
	if hints := len(filesIn(t, disk, ".hint")); hints != all || all < 5 {
		t.Errorf("%d of %d segments have hints", hints, all)
	}
}
