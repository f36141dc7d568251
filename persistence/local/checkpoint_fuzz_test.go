package local_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// FuzzHint reads any bytes as the body of a hint: entries, or an error.
func FuzzHint(f *testing.F) {
	f.Add(local.SampleHint())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		if again, ok := local.ReadHint(body); ok {
			if twice, ok := local.ReadHint(again); !ok || string(twice) != string(again) {
				t.Errorf("%x becomes %x and then %x", body, again, twice)
			}
		}
	})
}

// FuzzHintFile reads any bytes as the file of a hint.
func FuzzHintFile(f *testing.F) {
	f.Add(local.SampleHintFile())
	f.Fuzz(func(_ *testing.T, file []byte) { local.ReadHintFile(file) })
}

// FuzzCheckpoint puts any bytes into the sections of a checkpoint whose
// checksums are right, and opens the store: it opens, or says what is wrong.
func FuzzCheckpoint(f *testing.F) {
	disk := journaltest.NewSectorFS()
	s := open(f, damageOptions(disk))
	w := &workload{}
	defineCrash(f, s, w)
	fill(f, s, w.queues[0], 30)
	_ = receive(f, s, w.queues[0], 5)
	if err := outcome(submit(s, func(b *broker.Batch) {
		m := numbered(1, 10)
		m.DedupKey = "k"
		b.Publish(m, broker.Route{Target: w.queues[1]}, broker.Route{Target: w.stream})
		b.Put(broker.SpaceAuth, "key", []byte("value"), 0)
	})); err != nil {
		f.Fatal(err)
	}
	shut(f, s)
	names, _ := disk.List("data/checkpoint")
	name := "data/checkpoint/" + names[len(names)-1]
	for kind, body := range local.Sections(disk, name) {
		f.Add(kind, body)
	}
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		fs := disk.Clone()
		fs.SetData(name, local.WithSection(fs, name, kind, body))
		s, err := local.Open(damageOptions(fs))
		if err != nil {
			if named(err) != nil && !strings.Contains(err.Error(), "checkpoint") {
				t.Errorf("open answers %v", err)
			}
			return
		}
		if err := s.Check(); err != nil {
			t.Errorf("it opens, and %v", err)
		}
		_ = s.Close(t.Context()) // what it says of such a store is not the point
	})
}

// FuzzRecord puts any bytes into the log as a record of any type: the store opens,
// or says what is wrong.
func FuzzRecord(f *testing.F) {
	disk := journaltest.NewSectorFS()
	log := journal.Options{Dir: "data/journal", SegmentSize: 16 << 10, FirstSegmentSize: 8 << 10, WindowSize: 4 << 10}
	s := open(f, damageOptions(disk))
	w := &workload{}
	defineCrash(f, s, w)
	fill(f, s, w.queues[0], 10)
	everyRecord(f, s, w)
	f.Add(local.RecMove, s.SampleMove())
	shut(f, s)
	log.FS = disk.Clone()
	types, bodies := local.RecordsOf(f, log)
	for i := range types {
		f.Add(types[i], bodies[i])
		f.Add(types[i], []byte{})
	}
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		fs, log := disk.Clone(), log
		log.FS = fs
		local.AppendRecord(t, log, typ, body)
		s, err := local.Open(damageOptions(fs))
		if err != nil {
			return
		}
		if err := s.Check(); err != nil {
			t.Errorf("it opens, and %v", err)
		}
		s.Bind(noEvents{})
		_ = contentsOf(s) // what a forged record shows is not the point
		_ = s.Close(t.Context())
	})
}

// everyRecord has the store write a record of each type but moves.
func everyRecord(tb testing.TB, s *local.Store, w *workload) {
	tb.Helper()
	ctx := context.Background()
	sub, err := s.Define(ctx, broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: w.stream, LapseAt: 2})
	if err != nil {
		tb.Fatal(err)
	}
	must := func(build func(b *broker.Batch)) {
		if err := outcome(submit(s, build)); err != nil {
			tb.Fatal(err)
		}
	}
	for range 8 {
		must(func(b *broker.Batch) {
			b.Publish(numbered(1, 2000), broker.Route{Target: w.stream}, broker.Route{Target: w.queues[1]})
		})
	}
	got := receive(tb, s, w.queues[0], 4)
	must(func(b *broker.Batch) { b.Defer(got[0].Ref, time.Now().Add(time.Hour), true) })
	must(func(b *broker.Batch) { b.Settle(got[1].Ref, broker.ReasonAcked) })
	must(func(b *broker.Batch) { b.Return(got[2].Ref) })
	must(func(b *broker.Batch) { b.Park(got[3].Ref, broker.ReasonAttempts) })
	must(func(b *broker.Batch) { b.Purge(w.queues[1], true) })
	must(func(b *broker.Batch) {
		b.Put(broker.SpaceAuth, "key", []byte("value"), 0)
		b.Put(broker.SpaceAuth, "gone", nil, 0)
		b.SettleUpTo(sub, broker.Offset{Offset: 1}, broker.ReasonAcked)
		b.SettleAt(sub, broker.Offset{Offset: 3}, broker.ReasonAcked)
		b.Seek(sub, broker.Offset{Offset: 2})
	})
	if _, err := s.CopyStreams(); err != nil {
		tb.Fatal(err)
	}
	gone := queueOn(tb, s, broker.Def{Name: "gone"})
	if err := s.Drop(ctx, gone); err != nil {
		tb.Fatal(err)
	}
}

// FuzzStreamFile puts any bytes into a file of a stream, as entries whose
// checksums are right: what is read of it has its offset, or what is wrong is
// named; and with AcceptLoss it can be read to its end.
func FuzzStreamFile(f *testing.F) {
	d := newDamaged(f)
	name := d.streamFiles(f)[0]
	file := d.disk.Data(name)
	f.Add(file[64:])
	lost := slices.Clone(file[64:])
	lost[3] |= 0x80
	f.Add(lost)
	f.Fuzz(func(t *testing.T, body []byte) {
		disk := d.disk.Clone()
		b := append(slices.Clone(file[:64]), body...)
		local.SealStreamFile(b)
		disk.SetData(name, b)
		if s, err := local.Open(damageOptions(disk.Clone())); err == nil {
			_ = contentsOf(s)
			_ = s.Close(t.Context())
		} else if named(err) != nil {
			t.Errorf("open answers %v", err)
		}
		o := damageOptions(disk)
		o.AcceptLoss = true
		s := open(t, o)
		if got := contentsOf(s); strings.Contains(got, "is damaged") {
			t.Errorf("with loss accepted it cannot be read: %s", got)
		}
		_ = s.Close(t.Context())
	})
}
