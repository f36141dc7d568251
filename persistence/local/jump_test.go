package local_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/clock"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
	"millrace/persistence/storetest"
)

// unsteady is a disk of a machine whose wall clock is right when the store is
// opened, and set to another time, a day back to a year on, before each time
// that the store looks at it.
type unsteady struct{ disk }

func (u unsteady) Open(tb testing.TB) broker.Store {
	tb.Helper()
	looks := 0
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex // goroutines look when they want
	u.Clock = clock.New(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		if looks++; looks == 1 {
			return time.Now()
		}
		days := rng.IntN(366)
		if days == 0 {
			days = -1
		}
		return time.Now().AddDate(0, 0, days)
	})
	return u.disk.Open(tb)
}

func newUnsteady(tb testing.TB) storetest.Place {
	tb.Helper()
	return unsteady{newSmall(tb).(disk)}
}

// Nothing that lasts lasts longer or shorter because somebody sets the clock:
// the suite and the models, which know of no jumps, see none.
func TestAClockThatIsSetWhileTheStoreRunsChangesNothing(t *testing.T) {
	t.Run("suite", func(t *testing.T) { storetest.Run(t, newUnsteady) })
	t.Run("model", func(t *testing.T) { storetest.RunModel(t, newUnsteady) })
	t.Run("streams", func(t *testing.T) { storetest.RunStreamModel(t, newUnsteady) })
}

// at runs f with the store open while the clock of the machine shows so many
// days after the first one. Each call is another run of the process, so that the
// clock jumps between two of them, forward or back.
func at(t *testing.T, disk *journaltest.SectorFS, days int, f func(t *testing.T, s *local.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Duration(days) * 24 * time.Hour)
		s := open(t, crashOptions(disk))
		s.Bind(noEvents{})
		f(t, s)
		shut(t, s)
	})
}

// What a clock that jumps while the broker is down may do: time that seems to
// have passed ends leases, delays and lives that are due; time that seems not to
// have passed ends them later, and brings nothing back. What has no end of its
// own is never touched.
func TestAClockThatJumpsOverARestartLosesAndRevivesNothing(t *testing.T) {
	disk := journaltest.NewSectorFS()
	counts := func(t *testing.T, s *local.Store, name string) broker.Info {
		t.Helper()
		in, err := s.Info(context.Background(), s.Named(broker.QueueTarget, name))
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	expect := func(t *testing.T, s *local.Store, when string, ready, leased, delayed, mortal int64) {
		t.Helper()
		synctest.Wait()
		if in := counts(t, s, "q"); in.Ready != ready || in.Leased != leased || in.Delayed != delayed {
			t.Errorf("%s: %d ready, %d leased, %d delayed; want %d, %d, %d", when, in.Ready, in.Leased, in.Delayed, ready, leased, delayed)
		}
		if in := counts(t, s, "mortal"); in.Ready != mortal {
			t.Errorf("%s: %d messages of a day are there, want %d", when, in.Ready, mortal)
		}
	}
	at(t, disk, 100, func(t *testing.T, s *local.Store) {
		q, mortal := queueOn(t, s, broker.Def{Name: "q"}), queueOn(t, s, broker.Def{Name: "mortal", TTL: 24 * time.Hour})
		for range 3 {
			if err := outcome(publishTo(s, q)); err != nil {
				t.Fatal(err)
			}
		}
		later := numbered(4, 10)
		later.NotBefore = time.Now().Add(time.Hour).UnixMilli()
		c := submit(s, func(b *broker.Batch) {
			b.Publish(later, broker.Route{Target: q})
			b.Publish(numbered(5, 10), broker.Route{Target: mortal})
		})
		if err := outcome(c); err != nil {
			t.Fatal(err)
		}
		receive(t, s, q, 1) // for an hour
		expect(t, s, "at first", 2, 1, 1, 1)
	})
	at(t, disk, 0, func(t *testing.T, s *local.Store) {
		expect(t, s, "100 days back", 2, 1, 1, 1)
		if err := outcome(publishTo(s, s.Named(broker.QueueTarget, "q"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(99 * 24 * time.Hour)
		expect(t, s, "99 days later", 3, 1, 1, 1)
		time.Sleep(25*time.Hour + time.Second) // as long after the jump as it went back: now all is due
		expect(t, s, "when the clock was right again", 5, 0, 0, 1)
	})
	at(t, disk, 500, func(t *testing.T, s *local.Store) {
		expect(t, s, "400 days on", 5, 0, 0, 0)
	})
	at(t, disk, 50, func(t *testing.T, s *local.Store) {
		expect(t, s, "450 days back", 5, 0, 0, 0)
		if got := receive(t, s, s.Named(broker.QueueTarget, "q"), 10); len(got) != 5 {
			t.Errorf("%d of 5 messages are delivered after all jumps", len(got))
		}
	})
}
