package local_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

// What sync: interval promises: the end of the process loses nothing that was
// answered, a power cut what was answered within the interval and no more. Both
// are looked at after each step, with everything unsynced lost.
func TestRelaxedLosesTheLastIntervalAtMostAndNothingWhenKilled(t *testing.T) {
	const interval = time.Second
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewSectorFS()
		o := crashOptions(disk)
		o.Relaxed, o.SyncEvery = true, interval
		s := open(t, o)
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		time.Sleep(2 * interval)
		rng := rand.New(rand.NewPCG(1, 2))
		var answered []time.Time
		lostSome := false
		there := func(fs journal.FS) int {
			o := crashOptions(fs)
			after := open(t, o)
			after.Bind(noEvents{})
			in, err := after.Info(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			if err := after.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			return int(in.Ready)
		}
		for n := range 120 {
			c := submit(s, func(b *broker.Batch) { b.Publish(numbered(n, rng.IntN(900)), broker.Route{Target: q}) })
			if err := outcome(c); err != nil {
				t.Fatal(err)
			}
			answered = append(answered, time.Now())
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
			if n%3 != 0 {
				continue
			}
			if got := there(disk.Kill()); got != len(answered) {
				t.Fatalf("a kill left %d of %d", got, len(answered))
			}
			sure := 0
			for sure < len(answered) && time.Since(answered[sure]) > interval {
				sure++
			}
			got := there(disk.Crash(0, rng))
			if got < sure {
				t.Fatalf("a power cut left %d, and %d were older than the interval", got, sure)
			}
			lostSome = lostSome || got < len(answered)
		}
		if !lostSome {
			t.Error("no power cut lost anything: the store was not relaxed")
		}
		shut(t, s)
	})
}
