package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

const markName = logDir + "/watermark"

// cutTail takes away the end of the last segment from the record at pos on, and
// every trace that there was more, as a file system does that lost the pages.
func cutTail(disk *journaltest.SectorFS, pos journal.Position) {
	name := fmt.Sprintf("%s/%08x.seg", logDir, pos.Segment())
	clear(disk.Data(name)[pos.Offset():])
}

func TestALostTailIsDamageThoughNoLaterRecordProvesIt(t *testing.T) {
	l := newSmallLog(t, true)
	last := l.groups[len(l.groups)-1][0].pos
	first := l.groups[0][0].pos
	for name, c := range map[string]struct {
		damage func(disk *journaltest.SectorFS)
		offset int64
		says   string
		left   int
	}{
		"the last group": {func(d *journaltest.SectorFS) { cutTail(d, last) }, int64(last.Offset()), "durable beyond it", len(l.groups) - 1},
		"all segments": {func(d *journaltest.SectorFS) {
			for _, n := range l.files(t) {
				if n != "watermark" {
					_ = d.Remove(logDir + "/" + n)
				}
			}
		}, 0, "the log is empty", 0},
		"all records": {func(d *journaltest.SectorFS) {
			for n := first.Segment(); n <= last.Segment(); n++ {
				clear(d.Data(fmt.Sprintf("%s/%08x.seg", logDir, n))[4096:])
			}
		}, 4096, "durable beyond it", 0},
	} {
		t.Run(name, func(t *testing.T) {
			disk := l.disk.Clone()
			c.damage(disk)
			o := damageOptions(disk)
			for range 2 { // the refusal changes nothing
				_, err := journal.Open(o, nil)
				damage, ok := errors.AsType[*journal.DamageError](err)
				if !ok || damage.Offset != c.offset || !strings.Contains(damage.Reason, c.says) {
					t.Fatalf("got %v, want damage at %d that says %q", err, c.offset, c.says)
				}
			}
			o.AcceptLoss = true
			var lost []journal.Loss
			o.Lost = func(l journal.Loss) error { lost = append(lost, l); return nil }
			j, log := open(t, o)
			checkLog(t, log, l.groups[:c.left])
			if len(lost) == 0 || lost[len(lost)-1].From >= lost[len(lost)-1].To {
				t.Errorf("told of the losses %+v", lost)
			}
			more := mustAppend(t, j, "goes on")
			mustClose(t, j)
			j, log = open(t, damageOptions(disk)) // the loss was accepted once and for all
			checkLog(t, log, append(slices.Clone(l.groups[:c.left]), more))
			mustClose(t, j)
		})
	}
}

func TestAWatermarkThatIsMissingOrIllegibleIsMadeAnew(t *testing.T) {
	l := newSmallLog(t, true)
	for name, damage := range map[string]func(disk *journaltest.SectorFS){
		"missing": func(d *journaltest.SectorFS) { _ = d.Remove(markName) },
		"damaged": func(d *journaltest.SectorFS) {
			data := d.Data(markName)
			data[20] ^= 1
			data[4096+20] ^= 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := l.disk.Clone()
			damage(disk)
			var text bytes.Buffer
			o := damageOptions(disk)
			o.Log = zerolog.New(&text)
			j, log := open(t, o)
			checkLog(t, log, l.groups)
			if !strings.Contains(text.String(), "watermark is "+name) {
				t.Errorf("logged %s", text.String())
			}
			mustClose(t, j)
			cutTail(disk, l.groups[len(l.groups)-1][0].pos)
			if _, err := journal.Open(damageOptions(disk), nil); err == nil {
				t.Error("the new watermark proves nothing")
			}
		})
	}
}

func TestATornSlotLeavesTheOtherOne(t *testing.T) {
	l := newSmallLog(t, true)
	for slot := range 2 {
		disk := l.disk.Clone()
		disk.Data(markName)[slot*4096+40] ^= 1
		j, log := open(t, damageOptions(disk))
		checkLog(t, log, l.groups)
		mustClose(t, j)
	}
}

func TestAWatermarkOfAnotherStoreIsNamed(t *testing.T) {
	l, other := newSmallLog(t, true), newSmallLog(t, true)
	l.disk.SetData(markName, slices.Clone(other.disk.Data(markName)))
	o := damageOptions(l.disk)
	_, err := journal.Open(o, nil)
	if damage, ok := errors.AsType[*journal.DamageError](err); !ok || damage.File != markName {
		t.Fatalf("got %v, want damage of %s", err, markName)
	}
	o.AcceptLoss = true
	for range 2 {
		j, log := open(t, o)
		checkLog(t, log, l.groups)
		mustClose(t, j)
		o.AcceptLoss = false
	}
}

// countMarks counts the syncs of the watermark.
func countMarks(fs journal.FS, n *int) journal.FS {
	return journaltest.Watch(fs, func(op journaltest.Op, run func() error) error {
		if op.Kind == journaltest.Sync && strings.HasPrefix(op.Name, markName) {
			*n++
		}
		return run()
	})
}

func TestTheWatermarkFollowsEachSecondAndRestsWhenNothingIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewSectorFS()
		marks := 0
		o := damageOptions(countMarks(disk, &marks))
		j, err := journal.Open(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		var log [][]record
		for range 50 {
			log = append(log, mustAppend(t, j, "x"))
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if marks < 5 || marks > 7 {
			t.Errorf("%d marks in 5 s", marks)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		before := marks
		time.Sleep(time.Hour)
		synctest.Wait()
		if marks != before {
			t.Errorf("%d marks while idle", marks-before)
		}
		killed := disk.Kill() // the watermark alone now proves the last group
		cutTail(killed, log[len(log)-1][0].pos)
		if _, err := journal.Open(damageOptions(killed), nil); err == nil {
			t.Error("the loss of the last group is not noticed")
		}
		mustClose(t, j)
	})
}

func TestAWatermarkThatCannotBeWrittenStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		marks := 0
		disk := journaltest.NewFaultFS(countMarks(journaltest.NewSectorFS(), &marks))
		o := damageOptions(disk)
		j, err := journal.Open(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		disk.Fail(journaltest.Fault{Kind: journaltest.Sync, Match: func(op journaltest.Op) bool { return op.Name == markName }, At: 1, Err: syscall.EIO})
		synctest.Wait()
		before := marks
		for range 4 {
			mustAppend(t, j, "x")
			time.Sleep(1100 * time.Millisecond)
		}
		synctest.Wait()
		// The file of the failed sync was not synced again, and a new one was made.
		if marks != before+3 || disk.Fired() != 1 {
			t.Errorf("%d marks after one failed", marks-before)
		}
		if err := j.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func FuzzWatermark(f *testing.F) {
	l := newSmallLog(f, true)
	whole := l.disk.Data(markName)
	f.Add(slices.Clone(whole))
	f.Add(whole[:64])
	f.Add([]byte("MILLMARK"))
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := l.disk.Clone()
		disk.SetData(markName, slices.Clone(data))
		if _, err := l.check(disk); err != nil {
			t.Fatal(err)
		}
	})
}
