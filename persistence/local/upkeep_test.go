package local_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// fill publishes n messages of a kilobyte.
func fill(t testing.TB, s *local.Store, q broker.Target, n int) {
	t.Helper()
	for from := 0; from < n; from += 50 {
		b, c := &broker.Batch{}, make(batches, 1)
		for i := from; i < min(n, from+50); i++ {
			b.Publish(numbered(i, 1000), broker.Route{Target: q})
			b.End()
		}
		s.Submit(b, broker.Durable, c)
		<-c
		for i := range b.Units {
			if err := b.Units[i].Result.Err; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// ackAll acks what is ready, but for every keep-th message; 0 keeps none.
func ackAll(t testing.TB, s *local.Store, q broker.Target, keep int) (kept int) {
	t.Helper()
	for {
		got := receive(t, s, q, 50)
		if len(got) == 0 {
			return kept
		}
		b, c := &broker.Batch{}, make(batches, 1)
		for i := range got {
			if keep > 0 && number(t, &got[i])%keep == 0 {
				kept++
				continue
			}
			b.Settle(got[i].Ref, broker.ReasonAcked)
			b.End()
		}
		s.Submit(b, broker.Durable, c)
		<-c
	}
}

func TestSegmentsGoWhenTheirMessagesDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, crashOptions(journaltest.NewSectorFS()))
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		fill(t, s, q, 2000)
		synctest.Wait()
		if n := s.Journal().State().Segments; n < 20 {
			t.Fatalf("%d segments for 2 MB", n)
		}
		// Nothing is published any more, and no time passes: the acks suffice.
		ackAll(t, s, q, 0)
		synctest.Wait()
		if st := s.Journal().State(); st.Segments > 3 || st.Free > 8 {
			t.Errorf("%d segments and %d spare ones are left of an empty queue", st.Segments, st.Free)
		}
		shut(t, s)
	})
}

func TestAFewMessagesThatStayHoldNoSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := journaltest.NewSectorFS()
		s := open(t, crashOptions(fs))
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		kept := 0
		for range 40 {
			fill(t, s, q, 100)
			kept += ackAll(t, s, q, 100)
			synctest.Wait()
		}
		if st := s.Journal().State(); st.Segments > 3 {
			t.Errorf("%d segments are left of %d messages that stay", st.Segments, kept)
		}
		if s.Moved() == 0 {
			t.Error("nothing was moved")
		}
		shut(t, s)
		s = open(t, crashOptions(fs))
		s.Bind(noEvents{})
		if in, err := s.Info(context.Background(), q); err != nil || in.Ready+in.Leased != int64(kept) || in.Difference() != 0 {
			t.Errorf("%+v, %v; want %d messages", in, err, kept)
		}
		shut(t, s)
	})
}

func TestAStartReadsHintsAndNoSegmentsThatAreFull(t *testing.T) {
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	fill(t, s, q, 1000)
	s.Tidy()
	shut(t, s)
	usual := 0
	for _, damage := range []string{"", "removed", "of another", "cut off"} {
		fs := disk.Clone()
		names, err := fs.List("data/journal")
		if err != nil {
			t.Fatal(err)
		}
		var hints []string
		for _, n := range names {
			if len(n) > 5 && n[len(n)-5:] == ".hint" {
				hints = append(hints, "data/journal/"+n)
			}
		}
		if len(hints) < 10 {
			t.Fatalf("hints are %v", hints)
		}
		switch victim := hints[3]; damage {
		case "removed":
			err = fs.Remove(victim)
		case "of another":
			fs.SetData(victim, append([]byte(nil), fs.Data(hints[4])...))
		case "cut off":
			fs.SetData(victim, append([]byte(nil), fs.Data(victim)[:100]...))
		}
		if err != nil {
			t.Fatal(err)
		}
		read := map[string]int{}
		watch := journaltest.Watch(fs, func(op journaltest.Op, run func() error) error {
			if op.Kind == journaltest.Read {
				read[op.Name]++
			}
			return run()
		})
		s := open(t, crashOptions(watch))
		many := 0
		for name, n := range read {
			if n > 1 && name[len(name)-4:] == ".seg" { // the header is always read
				many++
			}
		}
		if damage == "" {
			usual = many // the one that was written to last, and the one prepared behind it
		}
		if usual > 2 || damage != "" && many != usual+1 {
			t.Errorf("hint %s: %d segments were read, usually %d", damage, many, usual)
		}
		s.Bind(noEvents{})
		if in, err := s.Info(context.Background(), q); err != nil || in.Ready != 1000 || in.Payload != 1000*1000 {
			t.Errorf("hint %s: %+v, %v", damage, in, err)
		}
		if err := s.Check(); err != nil {
			t.Errorf("hint %s: %v", damage, err)
		}
		if got := receive(t, s, q, 1000); len(got) != 1000 {
			t.Errorf("hint %s: %d messages can be read", damage, len(got))
		}
		shut(t, s)
	}
}

func TestADamagedCheckpointIsSetAsideAndTheOneBeforeServes(t *testing.T) {
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	for range 5 {
		fill(t, s, q, 300)
		ackAll(t, s, q, 100)
	}
	shut(t, s)
	names, err := disk.List("data/checkpoint")
	if err != nil || len(names) != 2 {
		t.Fatalf("checkpoints are %v, %v", names, err)
	}
	size := len(disk.Data("data/checkpoint/" + names[1]))
	for at := 0; at < size; at += 1 + size/200 {
		fs := disk.Clone()
		fs.Data("data/checkpoint/" + names[1])[at] ^= 0x10
		s, err := local.Open(crashOptions(fs))
		if err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		s.Bind(noEvents{})
		if in, err := s.Info(context.Background(), q); err != nil || in.Ready+in.Leased != 15 || in.In != 1500 || in.Difference() != 0 {
			t.Errorf("byte %d: %+v, %v", at, in, err)
		}
		if l := s.Losses(); len(l.Damage) != 1 || fs.Data(l.Damage[0].Kept) == nil {
			t.Errorf("byte %d: told %+v", at, l)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	both := disk.Clone()
	for _, n := range names {
		both.Data("data/checkpoint/" + n)[9] ^= 1
	}
	if _, err := local.Open(crashOptions(both)); named(err) != nil {
		t.Errorf("with both damaged, open answers %v", err)
	}
}

func TestManyEmptyQueuesMakeASmallCheckpoint(t *testing.T) {
	disk := journaltest.NewSectorFS()
	o := crashOptions(disk)
	o.SegmentSize = 1 << 20
	s := open(t, o)
	s.Bind(noEvents{})
	const n = 2000
	for i := range n {
		queueOn(t, s, broker.Def{Name: fmt.Sprint("q", i)})
	}
	shut(t, s)
	names, _ := disk.List("data/checkpoint")
	if size := len(disk.Data("data/checkpoint/" + names[len(names)-1])); size > 100*n {
		t.Errorf("%d empty queues take %d bytes", n, size)
	}
	s = open(t, o)
	if ds, err := s.Definitions(context.Background()); err != nil || len(ds) != n {
		t.Errorf("%d definitions, %v", len(ds), err)
	}
	shut(t, s)
}
