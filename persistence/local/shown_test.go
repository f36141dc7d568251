package local_test

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// TestUpkeepWhileBatchesAreAppended takes checkpoints, and copies streams out,
// while batches go into a stream that are larger than a window: what such a batch
// has appended so far is in the log, and not yet shown. After a power cut nothing
// answered is missing.
func TestUpkeepWhileBatchesAreAppended(t *testing.T) {
	t.Run("checkpoint", func(t *testing.T) {
		upkeepUnderBatches(t, func(s *local.Store) error { return s.Checkpoint() })
	})
	t.Run("copy", func(t *testing.T) {
		upkeepUnderBatches(t, func(s *local.Store) error { s.Tidy(); return nil })
	})
}

func upkeepUnderBatches(t *testing.T, upkeep func(*local.Store) error) {
	t.Helper()
	disk := journaltest.NewSectorFS()
	o := crashOptions(disk)
	o.WindowSize, o.SegmentSize, o.FirstSegmentSize = 8<<10, 16<<10, 16<<10
	s := open(t, o)
	s.Bind(noEvents{})
	st, err := s.Define(t.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	const batches, units = 150, 100
	var answered atomic.Int64
	over := make(chan error, 1)
	go func() {
		var err error
		for range batches {
			c := submit(s, func(b *broker.Batch) {
				for i := range units {
					if b.Publish(numbered(1, 300), broker.Route{Target: st}); i < units-1 {
						b.End()
					}
				}
			})
			err = errors.Join(err, outcome(c))
			answered.Add(units)
		}
		over <- err
	}()
	rng := rand.New(rand.NewPCG(1, 1))
	for running := true; running; {
		if err := upkeep(s); err != nil {
			t.Fatal(err)
		}
		want := answered.Load()
		after := o
		after.FS = disk.Crash(0, rng)
		again := open(t, after)
		in, err := again.Info(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		p := in.Partitions[0]
		ds, err := again.Read(t.Context(), st, broker.Pos{Begin: true}, int(p.Next), nil)
		if err != nil || int64(len(ds)) < want || len(ds) != int(p.Next) {
			t.Fatalf("%d messages are there of %d, and %d were answered; %v", len(ds), p.Next, want, err)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-over:
			if running = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	shut(t, s)
}
