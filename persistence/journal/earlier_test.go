package journal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"millrace/persistence/journal"
)

func TestSegmentsBeforeTheReplayPositionAreShownToTheirOwner(t *testing.T) {
	o := small(t.TempDir())
	var sealed atomic.Int32
	o.Sealed = func(uint32) { sealed.Add(1) }
	j, _ := open(t, o)
	var log [][]record
	body := string(bytes.Repeat([]byte("y"), 9000))
	for range 40 {
		log = append(log, mustAppend(t, j, body))
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	segs := j.Segments()
	if n := int(sealed.Load()); n != len(segs)-1 {
		t.Errorf("told of %d full segments, there are %d", n, len(segs)-1)
	}
	if err := j.Remove(segs[1].Number); err != nil {
		t.Fatal(err)
	}
	from := segs[3].Number
	mustClose(t, j)
	o.From = journal.Position(uint64(from) << 32)
	var ends []uint32
	var scanned [][]record
	o.Earlier = func(e *journal.Earlier) error {
		ends = append(ends, e.End)
		return e.Scan(collect(&scanned))
	}
	j, replayed := open(t, o)
	if len(ends) != 2 || ends[0] != 0 || ends[1] != segs[2].End {
		t.Errorf("ends shown are %v, want 0 before the gap and %d", ends, segs[2].End)
	}
	var want [][]record
	for _, g := range log {
		if n := g[0].pos.Segment(); n < from && n != segs[1].Number {
			want = append(want, g)
		}
	}
	checkLog(t, scanned, want)
	checkLog(t, replayed, log[len(log)-len(replayed):])
	if n := replayed[0][0].pos.Segment(); n != from {
		t.Errorf("replay begins in segment %d, want %d", n, from)
	}
	// The end that the scan found holds, so that the segment can go.
	if err := j.Remove(segs[0].Number); err != nil {
		t.Error(err)
	}
}

func TestThePartOfASegmentBeforeTheReplayPositionIsShownToo(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	var log [][]record
	for range 20 {
		log = append(log, mustAppend(t, j, "body"))
	}
	mustClose(t, j)
	o.From = log[7][0].pos
	var scanned [][]record
	o.Earlier = func(e *journal.Earlier) error {
		if e.End != o.From.Offset() {
			t.Errorf("the part ends at %d, want %d", e.End, o.From.Offset())
		}
		return e.Scan(collect(&scanned))
	}
	_, replayed := open(t, o)
	checkLog(t, scanned, log[:7])
	checkLog(t, replayed, log[7:])
}

func TestDamageInAnEarlierSegmentIsFoundWhenItsEndIsKnown(t *testing.T) {
	o := small(t.TempDir())
	j, _ := open(t, o)
	body := string(bytes.Repeat([]byte("y"), 9000))
	for range 30 {
		mustAppend(t, j, body)
	}
	segs := j.Segments()
	mustClose(t, j)
	name := filepath.Join(o.Dir, "00000001.seg")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[20000] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o.From = journal.Position(uint64(segs[2].Number) << 32)
	o.Earlier = func(e *journal.Earlier) error { return e.Scan(func([]journal.Record) error { return nil }) }
	_, err = journal.Open(o, nil)
	if damage := (*journal.DamageError)(nil); !errors.As(err, &damage) || filepath.Base(damage.File) != "00000001.seg" {
		t.Fatalf("open answers %v, want damage of the first segment", err)
	}
}

func TestSyncMakesDurableWhatWasWrittenLazily(t *testing.T) {
	for _, relaxed := range []bool{false, true} {
		o := small(t.TempDir())
		o.Relaxed = relaxed
		j, _ := open(t, o)
		if _, err := appendGroup(j, journal.Lazy, nil, "a"); err != nil {
			t.Fatal(err)
		}
		end := j.State().End
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := j.State().Durable; got < end {
			t.Errorf("durable up to %x after a sync, want %x", got, end)
		}
		mustClose(t, j)
		if err := j.Sync(); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("sync of a closed journal answers %v", err)
		}
	}
}
