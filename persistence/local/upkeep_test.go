package local_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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
		// One of what stays, two where the kept checkpoints begin to read, and the
		// one being written.
		if st := s.Journal().State(); st.Segments > 4 {
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
	segments := len(s.Journal().Segments())
	shut(t, s)
	if n := len(filesIn(t, disk, ".seg")); n > segments+1 || segments < 15 {
		t.Fatalf("there are %d files of %d segments", n, segments)
	}
	for _, damage := range []string{"", "removed", "of another", "cut off"} {
		fs := disk.Clone()
		hints := filesIn(t, fs, ".hint")
		if len(hints) != segments {
			t.Fatalf("of %d segments there are hints %v", segments, hints)
		}
		var err error
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
		// The one that was written to last, and the one prepared behind it.
		want := 1 + len(filesIn(t, disk, ".seg")) - segments
		if damage != "" {
			want++
		}
		if many != want {
			t.Errorf("hint %s: %d segments were read, want %d", damage, many, want)
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
	fill(t, s, q, 100) // full segments of which nothing stays, behind a checkpoint
	ackAll(t, s, q, 0)
	s.Tidy()
	running := disk.Kill()
	shut(t, s)
	for name, disk := range map[string]*journaltest.SectorFS{"closed": disk, "killed": running} {
		names, err := disk.List("data/checkpoint")
		if err != nil || len(names) != 2 {
			t.Fatalf("checkpoints are %v, %v", names, err)
		}
		size := len(disk.Data("data/checkpoint/" + names[1]))
		for at := 0; at < size; at += 1 + size/100 {
			fs := disk.Clone()
			fs.Data("data/checkpoint/" + names[1])[at] ^= 0x10
			s, err := local.Open(crashOptions(fs))
			if err != nil {
				t.Fatalf("%s, byte %d: %v", name, at, err)
			}
			s.Bind(noEvents{})
			if in, err := s.Info(context.Background(), q); err != nil || in.Ready+in.Leased != 15 || in.In != 1600 || in.Difference() != 0 {
				t.Errorf("%s, byte %d: %+v, %v", name, at, in, err)
			}
			if l := s.Losses(); len(l.Damage) != 1 || fs.Data(l.Damage[0].Kept) == nil {
				t.Errorf("%s, byte %d: told %+v", name, at, l)
			}
			if err := s.Close(context.Background()); err != nil {
				t.Errorf("%s, byte %d: %v", name, at, err)
			}
		}
		both := disk.Clone()
		for _, n := range names {
			both.Data("data/checkpoint/" + n)[9] ^= 1
		}
		if _, err := local.Open(crashOptions(both)); named(err) != nil {
			t.Errorf("%s: with both damaged, open answers %v", name, err)
		}
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

func TestALongStartTellsHowFarItHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewSectorFS()
		s := open(t, crashOptions(disk))
		s.Bind(noEvents{})
		fill(t, s, queueOn(t, s, broker.Def{Name: "q"}), 1000)
		shut(t, s)
		forget(t, disk)
		o := crashOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
			if op.Kind == journaltest.Read {
				<-time.After(150 * time.Millisecond) // a slow disk
			}
			return run()
		}))
		var told []local.Progress
		o.Progress = func(p local.Progress) { told = append(told, p) }
		begin := time.Now()
		s = open(t, o)
		if took := time.Since(begin); len(told) < 2 || len(told) > int(took/time.Second) {
			t.Errorf("told %d times in %v", len(told), took)
		}
		for i, p := range told {
			if p.Done <= 0 || p.Done > p.Total || p.Took <= 0 || p.Left < 0 || i > 0 && p.Done < told[i-1].Done {
				t.Errorf("told %+v", told)
			}
		}
		shut(t, s)
	})
}

func TestCompactionKeepsToItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := crashOptions(journaltest.NewSectorFS())
		o.CompactRate = 100_000
		s := open(t, o) // not bound: its upkeep is done when the test says so
		q := queueOn(t, s, broker.Def{Name: "q"})
		fill(t, s, q, 6000)
		kept := ackAll(t, s, q, 8)
		s.Tidy() // looks
		if n := s.Moved(); n > 50 {
			t.Fatalf("%d messages were moved at the first look", n)
		}
		begin := time.Now()
		s.Tidy() // and moves
		n, took := s.Moved(), time.Since(begin)
		// Each kilobyte is read and written; after the last 256 there is no pause.
		least, most := time.Duration(n-256)*20*time.Millisecond, time.Duration(n)*22*time.Millisecond
		if n < int64(kept)*9/10 || took < least || took > most {
			t.Errorf("%d kilobytes were moved in %v, want %v to %v", n, took, least, most)
		}
		shut(t, s)
	})
}

func TestWhatAWaitConsumesHoldsItsSegmentUntilItIsRecorded(t *testing.T) {
	disk := journaltest.NewSectorFS()
	o := crashOptions(disk)
	o.CacheSize = 4 << 10
	s := open(t, o)
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	fill(t, s, q, 400)
	for n := 0; n < 400; {
		c := make(collect, 1)
		w := &broker.Wait{Target: q, Max: 20, Consume: true, Sink: c}
		s.Receive(w)
		s.Tidy()
		<-c
		if w.Err != nil || len(w.Got) != 20 {
			t.Fatalf("got %d, %v", len(w.Got), w.Err)
		}
		for i := range w.Got {
			if number(t, &w.Got[i]) != n {
				t.Fatalf("got %s, want %d", w.Got[i].Topic, n)
			}
			n++
		}
	}
	s.Tidy()
	if st := s.Journal().State(); st.Segments > 3 {
		t.Errorf("%d segments are left of an empty queue", st.Segments)
	}
	shut(t, s)
}

func TestABackupOfAStoreThatFreedSegmentsIsWhole(t *testing.T) {
	s := open(t, crashOptions(journaltest.NewSectorFS()))
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	kept := 0
	for range 10 {
		fill(t, s, q, 200)
		kept += ackAll(t, s, q, 50)
	}
	s.Tidy()
	if first := s.Journal().Segments()[0].Number; first == 1 {
		t.Fatal("no segment was freed")
	}
	var archive bytes.Buffer
	if err := s.Backup(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	disk, _ := restored(t, archive.Bytes())
	s = open(t, crashOptions(disk))
	s.Bind(noEvents{})
	if in, err := s.Info(t.Context(), q); err != nil || in.Ready+in.Leased != int64(kept) || in.In != 2000 || in.Difference() != 0 {
		t.Errorf("%+v, %v; want %d messages", in, err, kept)
	}
	shut(t, s)
}

func TestAMessageCanBeReadWhileItIsMoved(t *testing.T) {
	o := crashOptions(journaltest.NewSectorFS())
	o.CompactRate = 1 << 40
	s := open(t, o)
	s.Bind(noEvents{})
	q := queueOn(t, s, broker.Def{Name: "q"})
	fill(t, s, q, 3000)
	kept := ackAll(t, s, q, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 4 {
			s.Tidy()
		}
	}()
	for more := true; more; {
		select {
		case <-done:
			more = false
		default:
		}
		got, err := s.Read(t.Context(), q, broker.Pos{States: broker.Leased}, 1<<20, nil)
		if err != nil || len(got) != kept {
			t.Fatalf("read %d of %d messages, %v", len(got), kept, err)
		}
	}
	if s.Moved() == 0 {
		t.Error("nothing was moved")
	}
	shut(t, s)
}

func TestTheOlderCheckpointKeepsTheSegmentsThatItNeeds(t *testing.T) {
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk)) // not bound: its upkeep is done when the test says so
	q := queueOn(t, s, broker.Def{Name: "q"})
	for range 3 {
		fill(t, s, q, 300)
		ackAll(t, s, q, 0)
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reclaim(); err != nil {
		t.Fatal(err)
	}
	if first := s.Journal().Segments()[0].Number; first == 1 {
		t.Fatal("no segment was freed")
	}
	image := disk.Kill()
	shut(t, s)
	names, err := image.List("data/checkpoint")
	if err != nil || len(names) != 2 {
		t.Fatalf("checkpoints are %v, %v", names, err)
	}
	image.Data("data/checkpoint/" + names[1])[100] ^= 1
	s = open(t, crashOptions(image))
	s.Bind(noEvents{})
	if in, err := s.Info(t.Context(), q); err != nil || in.Ready != 0 || in.In != 900 || in.Difference() != 0 {
		t.Errorf("%+v, %v", in, err)
	}
	shut(t, s)
}

func TestNoSegmentGoesBeforeTheAcksThatEmptiedItAreOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewSectorFS()
		gate := journaltest.NewGateFS(disk)
		s := open(t, crashOptions(gate)) // not bound: its upkeep is done when the test says so
		q := queueOn(t, s, broker.Def{Name: "q"})
		fill(t, s, q, 300)
		got := receive(t, s, q, 300)
		for range 2 {
			fill(t, s, q, 1)
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		gate.Hold()
		b, c := &broker.Batch{}, make(batches, 1)
		for i := range got {
			b.Settle(got[i].Ref, broker.ReasonAcked)
			b.End()
		}
		s.Submit(b, broker.Durable, c)
		freed := make(chan error, 1)
		go func() { freed <- s.Reclaim() }()
		synctest.Wait() // it waits for the disk
		image := disk.Crash(100, rand.New(rand.NewPCG(1, 1)))
		again := open(t, crashOptions(image))
		again.Bind(noEvents{})
		if in, err := again.Info(t.Context(), q); err != nil || in.Ready+in.Leased+int64(in.Out[broker.ReasonAcked]) != 302 {
			t.Errorf("%+v, %v", in, err)
		}
		shut(t, again)
		select {
		case err := <-freed:
			t.Error("segments were freed while their acks were not on disk")
			freed <- err
		default:
		}
		gate.Release()
		<-c
		if err := <-freed; err != nil || s.Journal().Segments()[0].Number == 1 {
			t.Errorf("not freed afterwards: %v", err)
		}
		shut(t, s)
	})
}

func TestNoSegmentGoesBeforeItsStreamsWereCopied(t *testing.T) {
	fault := journaltest.NewFaultFS(journaltest.NewSectorFS())
	o := crashOptions(fault)
	o.CacheSize = 4 << 10
	s := open(t, o) // not bound: its upkeep is done when the test says so
	st, err := s.Define(t.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget})
	if err != nil {
		t.Fatal(err)
	}
	fault.Fail(journaltest.Fault{
		Kind: journaltest.Create, At: 1, Forever: true, Err: syscall.EIO,
		Match: func(op journaltest.Op) bool { return strings.Contains(op.Name, "/stream/") },
	})
	for range 3 {
		fill(t, s, st, 200)
		s.Tidy()
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	s.Tidy()
	whole := func() {
		t.Helper()
		if got, err := s.Read(t.Context(), st, broker.Pos{Begin: true}, 1000, nil); err != nil || len(got) != 600 {
			t.Fatalf("read %d of 600 entries, %v", len(got), err)
		}
	}
	whole()
	fault.Heal()
	s.Tidy()
	if first := s.Journal().Segments()[0].Number; first == 1 {
		t.Error("nothing was freed once the copy succeeded")
	}
	whole()
	shut(t, s)
}
