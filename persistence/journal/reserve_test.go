package journal_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

// reserveOptions are for a disk that others fill.
func reserveOptions(fs journal.FS) journal.Options {
	return journal.Options{FS: fs, Dir: "/data/log", SegmentSize: 64 << 10, FirstSegmentSize: 32 << 10, WindowSize: 16 << 10, LowDisk: 1}
}

// fillRoom appends groups of a size until it is refused, and returns how many
// bytes were taken.
func fillRoom(t *testing.T, j *journal.Journal, reserve func(n int) error, size int) (taken int) {
	t.Helper()
	for {
		if err := j.Lock(); err != nil {
			t.Fatal(err)
		}
		if err := reserve(journal.RecordHeader + size); err != nil {
			j.Unlock(journal.Lazy, nil)
			if !errors.Is(err, journal.ErrFull) {
				t.Fatal(err)
			}
			return taken
		}
		j.End(append(j.Start(1), strings.Repeat("x", size)...), false)
		c := make(done, 1)
		j.Unlock(journal.Durable, c)
		if err := <-c; err != nil {
			t.Fatal(err)
		}
		taken += size
	}
}

func TestWhatGrowsLeavesTheReserveToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 4<<20)
		j, _ := open(t, reserveOptions(disk))
		mustAppend(t, j, "first")
		synctest.Wait() // the next segment is prepared, and the reserve is there
		disk.Fill()
		grown := fillRoom(t, j, j.ReserveGrowth, 20_000) + fillRoom(t, j, j.ReserveGrowth, 1000)
		if grown < 75_000 || !j.Low(0) {
			t.Errorf("%d bytes were taken of 96 KiB, low %v", grown, j.Low(0))
		}
		if rest := fillRoom(t, j, j.Reserve, 1000); rest < 26_000 {
			t.Errorf("the reserve of 32 KiB took %d bytes", rest)
		}
		disk.Occupy(0)
		time.Sleep(3 * time.Second)
		if more := j.ReserveGrowth; fillOnce(j, more) != nil || j.Low(time.Now().UnixMilli()) {
			t.Errorf("with room again: %+v", j.State())
		}
		mustClose(t, j)
	})
}

func fillOnce(j *journal.Journal, reserve func(n int) error) error {
	if err := j.Lock(); err != nil {
		return err
	}
	defer j.Unlock(journal.Lazy, nil)
	if err := reserve(journal.RecordHeader); err != nil {
		return err
	}
	j.End(j.Start(1), false)
	return nil
}

func TestThePartOfTheReserveThatIsLeftIsNotForWhatGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 4<<20)
		j, _ := open(t, reserveOptions(disk))
		mustAppend(t, j, "first")
		synctest.Wait()
		disk.Fill()
		fillRoom(t, j, j.ReserveGrowth, 1000)
		mustAppend(t, j, strings.Repeat("x", 2000)) // does not fit what is left but the reserve
		if err := fillOnce(j, j.ReserveGrowth); !errors.Is(err, journal.ErrFull) {
			t.Errorf("the rest of the reserve answers %v to what grows", err)
		}
		mustAppend(t, j, "small")
		mustClose(t, j)
	})
}

func TestASegmentThatIsFreedOnAFullDiskIsRoomAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 4<<20)
		var full atomic.Bool
		j, _ := open(t, reserveOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
			err := run()
			if op.Kind == journaltest.Remove && full.Load() {
				disk.Fill() // others take what is given back
			}
			return err
		})))
		for range 200 {
			mustAppend(t, j, strings.Repeat("x", 1000))
		}
		synctest.Wait()
		disk.Fill()
		full.Store(true)
		j.Low(time.Now().UnixMilli())
		first := j.Segments()[0].Number
		for n := range uint32(2) {
			fillRoom(t, j, j.Reserve, 1000)
			if err := j.Remove(first + n); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, j, strings.Repeat("x", 1000))
		}
		mustClose(t, j)
	})
}

func TestWhatMakesRoomWaitsForAnAttemptThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 4<<20)
		var slow atomic.Bool
		resume := make(chan struct{})
		j, _ := open(t, reserveOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
			if op.Kind == journaltest.Create && strings.HasSuffix(op.Name, ".new") && slow.Load() {
				<-resume
			}
			return run()
		})))
		mustAppend(t, j, "first")
		synctest.Wait()
		disk.Fill()
		fillRoom(t, j, j.ReserveGrowth, 1000) // the reserve is the next segment
		disk.Occupy(0)
		disk.Occupy(disk.Free() - 40<<10)
		time.Sleep(1500 * time.Millisecond) // there is room for another reserve, no more
		disk.Fill()
		slow.Store(true)
		go func() {
			time.Sleep(100 * time.Millisecond)
			close(resume)
		}()
		if taken := fillRoom(t, j, j.Reserve, 1000); taken < 54_000 {
			t.Errorf("two reserves of 32 KiB took %d bytes", taken)
		}
		mustClose(t, j)
	})
}
