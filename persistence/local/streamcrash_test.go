package local_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// streamFacts is what is known of the partitions of one stream, where the
// number of each message is the offset that it must have.
type streamFacts struct {
	sent, answered, first [2]int
}

// streamLedger holds the facts while a store works.
type streamLedger struct {
	mu sync.Mutex
	streamFacts
}

func (l *streamLedger) snapshot() streamFacts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.streamFacts
}

// publishTo publishes n messages to a partition in one batch, and waits.
func (l *streamLedger) publish(t testing.TB, s *local.Store, st broker.Target, part, n, fill int) {
	t.Helper()
	b, c := &broker.Batch{}, make(batches, 1)
	l.mu.Lock()
	from := l.sent[part]
	l.sent[part] += n
	l.mu.Unlock()
	for i := range n {
		b.Publish(numbered(from+i, fill), broker.Route{Target: st, Partition: uint32(part)})
		b.End()
	}
	s.Submit(b, broker.Durable, c)
	<-c
	for i := range b.Units {
		if r := b.Units[i].Result; r.Err != nil || r.Seq != uint64(from+i) {
			t.Errorf("message %d of partition %d: offset %d, %v", from+i, part, r.Seq, r.Err)
		}
	}
	in, err := s.Info(context.Background(), st)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered[part] += n
	for i := range l.first {
		l.first[i] = int(in.Partitions[i].First)
	}
}

const streamLimit = 150 << 10

func streamOf(t testing.TB, s *local.Store) broker.Target {
	t.Helper()
	st, err := s.Define(context.Background(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 2, MaxBytes: streamLimit})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestAPowerCutAnywhereKeepsStreamsWholeAndTheirOffsets(t *testing.T) {
	systems := map[string]func() journaltest.Crashable{
		"512 byte sectors": func() journaltest.Crashable { return journaltest.NewSectorFS() },
		"4 KiB blocks":     func() journaltest.Crashable { return journaltest.NewCrashFS() },
	}
	for name, system := range systems {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crashRounds(t, 2, func(seed uint64) int { return streamRound(t, system(), seed) })
		})
	}
}

// streamRound publishes, copies and cuts off at random, and cuts the power
// after each operation that changes the disk. It returns how often.
func streamRound(t *testing.T, disk journaltest.Crashable, seed uint64) (cuts int) {
	t.Helper()
	l := &streamLedger{}
	var mu sync.Mutex // of rng and cuts
	rng := rand.New(rand.NewPCG(seed, 7))
	armed := false
	fs := journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
		err := run()
		mu.Lock()
		defer mu.Unlock()
		if !armed || !op.Changes() {
			return err
		}
		keep := 0
		if op.Kind == journaltest.Write {
			keep = []int{0, 50, 90, 100}[rng.IntN(4)]
		}
		cuts++
		must := l.snapshot()
		after := disk.Crash(keep, rng)
		verifyStream(t, after, must, l.snapshot(), rng,
			fmt.Sprintf("seed %d, cut %d after %s of %s, %d %% kept", seed, cuts, op.Kind, op.Name, keep))
		return err
	})
	s := open(t, crashOptions(fs))
	s.Bind(noEvents{})
	st := streamOf(t, s)
	mu.Lock()
	armed = true
	mu.Unlock()
	copies := 0
	for i := range 80 {
		mu.Lock()
		part, n, fill, copied := rng.IntN(2), 1+rng.IntN(20), rng.IntN(800), rng.IntN(4) == 0
		mu.Unlock()
		l.publish(t, s, st, part, n, fill)
		if copied {
			did, err := s.CopyStreams()
			if err != nil {
				t.Fatalf("copy: %v", err)
			}
			if did {
				copies++
			}
		}
		if i%20 == 0 {
			readAll(t, s, st, l.snapshot(), l.snapshot(), "while it works")
		}
		if t.Failed() {
			break
		}
	}
	mu.Lock()
	armed = false
	mu.Unlock()
	readAll(t, s, st, l.snapshot(), l.snapshot(), "at the end")
	if f := l.snapshot(); f.first[0] == 0 || f.first[1] == 0 || copies == 0 {
		t.Errorf("nothing was cut off or copied: first offsets %v, %d copies", f.first, copies)
	}
	shut(t, s)
	return cuts
}

// verifyStream opens the disk after a power cut, works on, and opens it again.
func verifyStream(t *testing.T, disk journaltest.Crashable, must, may streamFacts, rng *rand.Rand, where string) {
	t.Helper()
	s, err := local.Open(crashOptions(disk))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	s.Bind(noEvents{})
	st := streamOf(t, s)
	l := &streamLedger{streamFacts: readAll(t, s, st, must, may, where)}
	if rng.IntN(4) == 0 {
		for part := range 2 {
			l.publish(t, s, st, part, 40, 700)
		}
		if _, err := s.CopyStreams(); err != nil {
			t.Errorf("%s: copy: %v", where, err)
		}
		readAll(t, s, st, l.snapshot(), l.snapshot(), where+", after more work")
	}
	shut(t, s)
	if rng.IntN(4) == 0 {
		s = open(t, crashOptions(disk))
		s.Bind(noEvents{})
		readAll(t, s, st, l.snapshot(), l.snapshot(), where+", opened again")
		shut(t, s)
	}
}

// readAll reads both partitions from the first offset to the last, in pieces of
// several sizes, and returns what is there.
func readAll(t testing.TB, s *local.Store, st broker.Target, must, may streamFacts, where string) (f streamFacts) {
	t.Helper()
	for part := range 2 {
		first, at := -1, broker.Pos{Partition: uint32(part), Begin: true}
		next := 0
		for size := 1; ; size = size*3%1000 + 1 {
			ds, err := s.Read(context.Background(), st, at, size, nil)
			if r, ok := errors.AsType[*broker.RangeError](err); ok && !at.Begin {
				at, first = broker.Pos{Partition: uint32(part), Seq: r.First}, -1 // cut off meanwhile
				continue
			}
			if err != nil {
				t.Errorf("%s: read of partition %d at %+v: %v", where, part, at, err)
				return f
			}
			if len(ds) == 0 {
				break
			}
			if first < 0 {
				first, next = int(ds[0].Seq), int(ds[0].Seq)
			}
			for i := range ds {
				if n, _ := strconv.Atoi(ds[i].Topic); int(ds[i].Seq) != next || n != next {
					t.Errorf("%s: partition %d has message %s at offset %d, want %d", where, part, ds[i].Topic, ds[i].Seq, next)
					return f
				}
				next++
			}
			at = broker.Pos{Partition: uint32(part), Seq: uint64(next)}
		}
		in, err := s.Info(context.Background(), st)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			return f
		}
		p := in.Partitions[part]
		if first < 0 {
			first, next = int(p.First), int(p.Next)
		}
		switch {
		case int(p.Next) != next:
			t.Errorf("%s: partition %d reads to %d and ends at %d", where, part, next, p.Next)
		case next < must.answered[part] || next > may.sent[part]:
			t.Errorf("%s: partition %d ends at %d, %d were answered and %d sent", where, part, next, must.answered[part], may.sent[part])
		case int(p.First) < must.first[part] || first > next:
			t.Errorf("%s: partition %d begins at %d, and did at %d before", where, part, p.First, must.first[part])
		case p.Bytes < 0 || p.Bytes > 2*streamLimit || p.Bytes == 0 && p.First < p.Next:
			t.Errorf("%s: partition %d has %d bytes", where, part, p.Bytes)
		}
		f.sent[part], f.answered[part], f.first[part] = next, next, first
	}
	return f
}
