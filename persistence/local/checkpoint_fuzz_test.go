package local_test

import (
	"strings"
	"testing"

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

// FuzzMove puts any bytes into the log as the record of a move.
func FuzzMove(f *testing.F) {
	disk := journaltest.NewSectorFS()
	s := open(f, damageOptions(disk))
	w := &workload{}
	defineCrash(f, s, w)
	fill(f, s, w.queues[0], 10)
	f.Add(s.SampleMove())
	f.Add([]byte{})
	shut(f, s)
	f.Fuzz(func(t *testing.T, body []byte) {
		fs := disk.Clone()
		local.AppendMove(t, journal.Options{FS: fs, Dir: "data/journal", SegmentSize: 16 << 10, FirstSegmentSize: 8 << 10, WindowSize: 4 << 10}, body)
		s, err := local.Open(damageOptions(fs))
		if err != nil {
			return
		}
		if err := s.Check(); err != nil {
			t.Errorf("it opens, and %v", err)
		}
		_ = s.Close(t.Context())
	})
}
