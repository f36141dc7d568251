package local_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// inStream reports whether an operation is on what belongs to streams.
func inStream(op journaltest.Op) bool {
	return strings.HasPrefix(op.Name, filepath.Join("data", "stream"))
}

// keptStream defines a stream without limits.
func keptStream(t testing.TB, s *local.Store) broker.Target {
	t.Helper()
	st, err := s.Define(context.Background(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestACopyThatFailsLosesNothingAndIsDoneAgain(t *testing.T) {
	for _, kind := range []journaltest.Kind{
		journaltest.Create, journaltest.Write, journaltest.Sync, journaltest.SyncDir, journaltest.MkdirAll,
		journaltest.Read, journaltest.Open, journaltest.Remove,
	} {
		for at := 1; at <= 4; at++ {
			fault := journaltest.NewFaultFS(journaltest.NewSectorFS())
			s := open(t, crashOptions(fault))
			s.Bind(noEvents{})
			st := keptStream(t, s)
			l := &streamLedger{}
			for i := range 20 {
				l.publish(t, s, st, i%2, 15, 700)
				if i != 10 && i != 15 {
					continue
				}
				if i == 10 {
					fault.Fail(journaltest.Fault{Kind: kind, Match: inStream, At: at, Err: syscall.EIO, Short: true})
				}
				_, err := s.CopyStreams()
				if fault.Fired() == 0 && err != nil {
					t.Fatalf("%s %d: %v", kind, at, err)
				}
				if kind != journaltest.Read && kind != journaltest.Open {
					readAll(t, s, st, l.snapshot(), l.snapshot(), string(kind))
				}
			}
			fault.Heal()
			if did, err := s.CopyStreams(); !did || err != nil {
				t.Fatalf("%s %d: after the fault: %v, %v", kind, at, did, err)
			}
			f := l.snapshot()
			readAll(t, s, st, f, f, string(kind)+", after the fault")
			shut(t, s)
			s = open(t, crashOptions(fault))
			s.Bind(noEvents{})
			readAll(t, s, st, f, f, string(kind)+", opened again")
			shut(t, s)
			if t.Failed() {
				t.Fatalf("%s %d", kind, at)
			}
		}
	}
}

func TestAByteThatChangedInAFileOfAStreamIsNeverShown(t *testing.T) {
	disk := journaltest.NewSectorFS()
	s := open(t, crashOptions(disk))
	s.Bind(noEvents{})
	st := keptStream(t, s)
	l := &streamLedger{}
	for i := range 12 {
		l.publish(t, s, st, i%2, 15, 700)
	}
	if did, err := s.CopyStreams(); !did || err != nil {
		t.Fatal(did, err)
	}
	shut(t, s)
	name := filepath.Join("data", "stream", "0000000000000001", "0000", "0000000000000000.log")
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	refused, told := 0, 0
	for round := range 200 {
		at := rng.Int64N(size)
		if round < 70 {
			at = int64(round) // all of the header
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		was := b[0]
		b[0] ^= 1 << rng.IntN(8)
		if err := f.WriteAt(at, b[:]); err != nil {
			t.Fatal(err)
		}
		s, err := local.Open(crashOptions(disk))
		if err != nil {
			refused++
			if _, ok := errors.AsType[*journal.DamageError](err); !ok && at != 8 && at != 9 && at != 10 && at != 11 {
				t.Errorf("byte %d: open: %v", at, err)
			}
		} else {
			s.Bind(noEvents{})
			ds, err := s.Read(context.Background(), st, broker.Pos{}, 1000, nil)
			for n := 0; err == nil && n < len(ds) && len(ds) < l.sent[0]; { // the error comes with the rest
				n = len(ds)
				ds, err = s.Read(context.Background(), st, broker.Pos{Seq: ds[n-1].Seq + 1}, 1000, ds)
			}
			if len(ds) < l.sent[0] && err == nil {
				t.Errorf("byte %d: %d of %d messages were read, and no error told", at, len(ds), l.sent[0])
			}
			for i := range ds {
				if n := number(t, &ds[i]); n != i {
					t.Errorf("byte %d: message %d at offset %d", at, n, i)
				}
			}
			if err != nil {
				told++
			}
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
		b[0] = was
		if err := f.WriteAt(at, b[:]); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d starts were refused, %d reads", refused, told)
	if err := disk.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Open(crashOptions(disk)); err == nil {
		t.Error("a file that is missing is not missed")
	}
}

func TestRetentionTakesFilesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := crashOptions(journaltest.NewSectorFS())
		s := open(t, o)
		s.Bind(noEvents{})
		st, err := s.Define(context.Background(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 2, Retention: 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		l := &streamLedger{}
		for i := range 72 { // an hour each
			begin := time.Now()
			l.publish(t, s, st, i%2, 10, 700)
			time.Sleep(time.Hour)
			if i%4 == 0 {
				if _, err := s.CopyStreams(); err != nil {
					t.Fatal(err)
				}
			}
			for part := range uint32(2) {
				ds, err := s.Read(context.Background(), st, broker.Pos{Partition: part, Time: begin.Add(-10 * time.Hour)}, 1, nil)
				if err != nil || len(ds) == 0 && i > 0 {
					t.Fatalf("hour %d: %d messages, %v", i, len(ds), err)
				}
				if len(ds) > 0 && ds[0].Queued < begin.Add(-10*time.Hour).UnixMilli() {
					t.Fatalf("hour %d: a message of %v", i, broker.Time(ds[0].Queued))
				}
				all, err := s.Read(context.Background(), st, broker.Pos{Partition: part, Begin: true}, 1000, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range all {
					if age := time.Since(broker.Time(d.Queued)); age > 28*time.Hour {
						t.Fatalf("hour %d: a message is %v old", i, age)
					}
				}
				if want := 10 * min(i/2, 11); len(all) < want {
					t.Fatalf("hour %d: %d messages of partition %d, want %d at least", i, len(all), part, want)
				}
			}
		}
		f := l.snapshot()
		readAll(t, s, st, f, f, "at the end")
		time.Sleep(48 * time.Hour)
		in, err := s.Info(context.Background(), st)
		if err != nil || in.Bytes != 0 || in.Partitions[0].First != 360 || in.Partitions[1].Next != 360 {
			t.Fatalf("after two days of nothing: %+v, %v", in, err)
		}
		for part := range 2 {
			if names, _ := o.FS.List(filepath.Join("data", "stream", "0000000000000001", []string{"0000", "0001"}[part])); len(names) != 0 {
				t.Fatalf("files are left: %v", names)
			}
		}
		shut(t, s)
	})
}

func TestTheFilesOfAStreamGoWithIt(t *testing.T) {
	o := crashOptions(journaltest.NewSectorFS())
	s := open(t, o)
	s.Bind(noEvents{})
	st := keptStream(t, s)
	l := &streamLedger{}
	for i := range 12 {
		l.publish(t, s, st, i%2, 15, 700)
	}
	if did, err := s.CopyStreams(); !did || err != nil {
		t.Fatal(did, err)
	}
	if err := s.Drop(context.Background(), st); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(context.Background(), st, broker.Pos{}, 1, nil); !errors.Is(err, broker.ErrGone) {
		t.Errorf("read answers %v", err)
	}
	shut(t, s)
	s = open(t, o) // what was not removed before is now
	s.Bind(noEvents{})
	if names, _ := o.FS.List(filepath.Join("data", "stream", "0000000000000001", "0000")); len(names) != 0 {
		t.Errorf("files are left: %v", names)
	}
	shut(t, s)
}
