package local_test

import (
	"context"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
	"millrace/persistence/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a place that keeps nothing.
type memory struct{}

func (memory) Open(tb testing.TB) broker.Store {
	tb.Helper()
	return open(tb, local.Options{})
}

// disk is a place on the machine's file system.
type disk local.Options

func (d disk) Open(tb testing.TB) broker.Store {
	tb.Helper()
	return open(tb, local.Options(d))
}

func (d disk) Verify() error {
	if d.FS == nil {
		d.FS = journal.OS()
	}
	return verified(d.FS, d.Dir)
}

// verified is what Verify has against a data directory.
func verified(fs journal.FS, dir string) error {
	v, err := local.Verify(context.Background(), fs, dir)
	if err != nil {
		return err
	}
	if !v.Sound || len(v.Missing) > 0 || v.Watermark != v.LogEnd {
		return fmt.Errorf("not sound: %+v", v)
	}
	return nil
}

func open(tb testing.TB, o local.Options) *local.Store {
	tb.Helper()
	s, err := local.Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestTheMemoryDriverPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Place { return memory{} })
}

func TestTheDiskDriverPassesTheSuite(t *testing.T) { storetest.Run(t, newDisk) }

func TestTheMemoryDriverAgreesWithTheModel(t *testing.T) {
	storetest.RunModel(t, func(testing.TB) storetest.Place { return memory{} })
}

func TestTheDiskDriverAgreesWithTheModel(t *testing.T) { storetest.RunModel(t, newSmall) }

func TestTheStreamsOfBothDriversAgreeWithTheModel(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		storetest.RunStreamModel(t, func(testing.TB) storetest.Place { return memory{} })
	})
	t.Run("disk", func(t *testing.T) { storetest.RunStreamModel(t, newSmall) })
}

// newSmall is a disk in memory whose segments a few messages fill.
func newSmall(testing.TB) storetest.Place {
	return disk{FS: journaltest.NewSectorFS(), Dir: "data", SegmentSize: 16 << 10, FirstSegmentSize: 8 << 10, WindowSize: 4 << 10, CacheSize: 4 << 10}
}

func newDisk(tb testing.TB) storetest.Place {
	tb.Helper()
	return disk{Dir: tb.TempDir(), SegmentSize: 256 << 10, FirstSegmentSize: 64 << 10, WindowSize: 64 << 10}
}
