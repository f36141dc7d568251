package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
)

// goldenOptions make small files.
func goldenOptions(dir string) local.Options {
	return local.Options{Dir: dir, SegmentSize: 32 << 10, FirstSegmentSize: 8 << 10, WindowSize: 8 << 10}
}

// writeGolden fills a store with a bit of everything.
func writeGolden(t testing.TB, dir string) {
	t.Helper()
	s := open(t, goldenOptions(dir))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "work", Meta: []byte("meta"), LapseAt: 1})
	keyed := queueOn(t, s, broker.Def{Name: "keyed", KeyedFIFO: true})
	st, err := s.Define(context.Background(), broker.Def{Name: "log", Kind: broker.StreamTarget, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		m := numbered(i, 300)
		m.Key = fmt.Sprint("key-", i%3)
		if i == 59 {
			m.NotBefore = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
		}
		if err := outcome(submit(s, func(b *broker.Batch) {
			b.Publish(m, broker.Route{Target: q}, broker.Route{Target: keyed}, broker.Route{Target: st, Partition: uint32(i % 2)})
		})); err != nil {
			t.Fatal(err)
		}
	}
	got := receive(t, s, q, 20)
	for i := range got[:10] {
		if err := outcome(submit(s, func(b *broker.Batch) { b.Settle(got[i].Ref, broker.ReasonAcked) })); err != nil {
			t.Fatal(err)
		}
	}
	if err := outcome(submit(s, func(b *broker.Batch) {
		b.Defer(got[10].Ref, time.Now(), true)
		b.Park(got[10].Ref, broker.ReasonAttempts)
	})); err != nil {
		t.Fatal(err)
	}
	if err := outcome(submit(s, func(b *broker.Batch) {
		b.Put(broker.SpaceRetained, "a", []byte("one"), 0)
		b.Put(broker.SpaceRetained, "b", []byte("two"), 0)
		b.Put(broker.SpaceRetained, "b", nil, 0)
	})); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
}

// The directory testdata/format-1 was written by a program of that format with writeGolden.

func TestDataOfTheFirstFormatIsReadAndCarriedOn(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/format-1")); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, dir)
}

func TestDataOfThisFormatIsWhatGoldenDataHolds(t *testing.T) {
	dir := t.TempDir()
	writeGolden(t, dir)
	checkGolden(t, dir)
}

// checkGolden opens a directory again and again, and finds what was written.
func checkGolden(t *testing.T, dir string) {
	t.Helper()
	for round := range 3 {
		s := open(t, goldenOptions(dir))
		s.Bind(noEvents{})
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		c := &contents{t: t, s: s, where: fmt.Sprint("start ", round)}
		log, err := s.Read(context.Background(), c.target("log"), broker.Pos{Partition: 1, Begin: true}, 100, nil)
		if work, keyed := c.states("work"), c.states("keyed"); err != nil || work != "ready 39 delayed 1 leased or held 9 dead 1" || keyed != "ready 59 delayed 1 leased or held 0 dead 0" || len(log) != 30 {
			t.Errorf("start %d finds work with %s, keyed with %s, %d entries in a partition (%v)", round, work, keyed, len(log), err)
		}
		if e, err := s.Get(context.Background(), broker.SpaceRetained, "a"); err != nil || string(e.Value) != "one" {
			t.Errorf("key a is %q, %v", e.Value, err)
		}
		if _, err := s.Get(context.Background(), broker.SpaceRetained, "b"); !errors.Is(err, broker.ErrNotFound) {
			t.Errorf("key b: %v, want it not found", err)
		}
		shut(t, s)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "FORMAT")); string(text) != "millrace data 2\n" {
		t.Errorf("the format is %q afterwards", text)
	}
}

// states counts the messages of a queue. Its leases have ended long ago, at
// their last attempt.
func (c *contents) states(name string) string {
	in, err := c.s.Info(context.Background(), c.target(name))
	if err != nil {
		c.t.Errorf("%s: %v", c.where, err)
	}
	return fmt.Sprintf("ready %d delayed %d leased or held %d dead %d", in.Ready, in.Delayed, in.Leased+in.Held, in.Dead)
}
