package local_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

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
