package local_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// crashStates is how many states of the disk after a power cut are looked at.
func crashStates(t *testing.T) int {
	t.Helper()
	if v := os.Getenv("MILLRACE_CRASH_STATES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("MILLRACE_CRASH_STATES is %q: %v", v, err)
		}
		return n
	}
	if testing.Short() {
		return 200
	}
	return 600
}

// busyQueues get what the workload publishes: every message, and every third.
var busyQueues = []string{"work", "keyed", "third"}

// life is what is known of a message in one queue.
type life struct {
	stored  bool // its publish was answered
	leaving bool // a settlement was submitted
	left    bool // and answered
	parked  bool // answered as dead
	parking bool
}

// diary is what the workload knows of the store.
type diary struct {
	queues [3][]life // by queue and number
	keys   map[string]span
	dedup  int // messages up to this one were answered, each with a key of its own
	ends   [2]span
}

// span is an answered and a submitted version.
type span struct{ must, may int }

func (d *diary) clone() diary {
	c := diary{keys: maps.Clone(d.keys), dedup: d.dedup, ends: d.ends}
	for i := range d.queues {
		c.queues[i] = slices.Clone(d.queues[i])
	}
	return c
}

// busy drives a store so that segments fill, empty and keep a few messages.
type busy struct {
	t      *testing.T
	s      *local.Store
	rng    *rand.Rand
	queues [3]broker.Target
	stream broker.Target
	temp   broker.Target
	held   []broker.Delivery // of the first queue

	mu sync.Mutex
	diary
}

func (w *busy) note(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *busy) snapshot() diary {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clone()
}

func (w *busy) define() {
	for i, name := range busyQueues {
		w.queues[i] = queueOn(w.t, w.s, broker.Def{Name: name, KeyedFIFO: name == "keyed", LapseAt: uint32(2 * (1 - min(i, 1)))})
	}
	var err error
	if w.stream, err = w.s.Define(context.Background(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 2, MaxBytes: 200 << 10}); err != nil {
		w.t.Fatal(err)
	}
	w.temp = queueOn(w.t, w.s, broker.Def{Name: "temp"})
}

func (w *busy) step() {
	switch w.rng.IntN(10) {
	case 0, 1:
		w.publish()
	case 2, 3, 4, 5, 6:
		w.consume(w.rng.IntN(3))
	case 7:
		w.put()
	case 8:
		w.release()
	default:
		w.replaceTemp()
	}
}

// publish publishes some messages as a unit each, with a key for repeats.
func (w *busy) publish() {
	b, c := &broker.Batch{}, make(batches, 1)
	first := len(w.diary.queues[0])
	n := 1 + w.rng.IntN(8)
	for i := first; i < first+n; i++ {
		m := numbered(i, w.rng.IntN(1200))
		m.Key, m.DedupKey, m.BodyHash = fmt.Sprint("k", i%50), fmt.Sprint("once-", i), 1
		m.ID[0], m.ID[1], m.ID[2] = 1, byte(i), byte(i>>8)
		if w.rng.IntN(60) == 0 {
			m.NotBefore = time.Now().Add(time.Hour).UnixMilli()
		}
		to := []broker.Route{{Target: w.queues[0]}, {Target: w.queues[1]}, {Target: w.stream, Partition: uint32(i % 2)}, {Target: w.temp}}
		if i%3 == 0 {
			to = append(to, broker.Route{Target: w.queues[2]})
		}
		b.Publish(m, to...)
		b.End()
	}
	w.note(func() {
		for i := range w.diary.queues {
			w.diary.queues[i] = append(w.diary.queues[i], make([]life, n)...)
		}
		for i := first; i < first+n; i++ {
			w.ends[i%2].may++
		}
	})
	w.s.Submit(b, broker.Durable, c)
	<-c
	w.note(func() {
		for k := range b.Units {
			if r := &b.Units[k].Result; r.Err != nil || r.Duplicate {
				w.t.Errorf("publish of %d answers %+v", first+k, r)
			}
			for q := range w.diary.queues {
				if i := first + k; q < 2 || i%3 == 0 {
					w.diary.queues[q][i].stored = true
				}
			}
			w.ends[(first+k)%2].must++
		}
		w.dedup = first + n
	})
}

// consume acks most of what it takes, gives some back, and keeps a few.
func (w *busy) consume(q int) {
	got := receive(w.t, w.s, w.queues[q], 1+w.rng.IntN(24))
	b, c := &broker.Batch{}, make(batches, 1)
	var answered []func(l []life)
	var submitted []func(l []life)
	for i := range got {
		n := number(w.t, &got[i])
		switch k := w.rng.IntN(60); {
		case k == 0 && q == 0:
			w.held = append(w.held, got[i]) // stuck until it is released
		case k == 1 && got[i].Attempt == 1: // after a second one the broker decides
			b.Defer(got[i].Ref, time.Now().Add(time.Duration(w.rng.IntN(2))*time.Hour), true)
			b.End()
		default:
			b.Settle(got[i].Ref, broker.ReasonAcked)
			b.End()
			submitted = append(submitted, func(l []life) { l[n].leaving = true })
			answered = append(answered, func(l []life) { l[n].left = true })
		}
	}
	w.submit(b, c, q, submitted, answered)
}

// release ends one of the messages that are stuck, or parks it.
func (w *busy) release() {
	if len(w.held) == 0 {
		return
	}
	i := w.rng.IntN(len(w.held))
	d := w.held[i]
	w.held = slices.Delete(w.held, i, i+1)
	n := number(w.t, &d)
	b, c := &broker.Batch{}, make(batches, 1)
	if w.rng.IntN(2) == 0 {
		b.Park(d.Ref, broker.ReasonAttempts)
		b.End()
		w.submit(b, c, 0, []func(l []life){func(l []life) { l[n].parking = true }}, []func(l []life){func(l []life) { l[n].parked = true }})
		return
	}
	b.Settle(d.Ref, broker.ReasonAcked)
	b.End()
	w.submit(b, c, 0, []func(l []life){func(l []life) { l[n].leaving = true }}, []func(l []life){func(l []life) { l[n].left = true }})
}

func (w *busy) submit(b *broker.Batch, c batches, q int, submitted, answered []func(l []life)) {
	w.note(func() {
		for _, f := range submitted {
			f(w.diary.queues[q])
		}
	})
	w.s.Submit(b, broker.Durable, c)
	<-c
	for i := range b.Units {
		if err := b.Units[i].Result.Err; err != nil {
			w.t.Errorf("settlement in %s answers %v", busyQueues[q], err)
		}
	}
	w.note(func() {
		for _, f := range answered {
			f(w.diary.queues[q])
		}
	})
}

// put writes a version of a key; every fourth version of it deletes it.
func (w *busy) put() {
	key := fmt.Sprint("key-", w.rng.IntN(6))
	var v int
	w.note(func() {
		s := w.keys[key]
		s.may++
		v, w.keys[key] = s.may, s
	})
	value := []byte(strconv.Itoa(v) + strings.Repeat(" ", w.rng.IntN(300)))
	if v%4 == 0 {
		value = nil
	}
	if err := outcome(submit(w.s, func(b *broker.Batch) { b.Put(broker.SpaceRetained, key, value, 0) })); err != nil {
		w.t.Errorf("put answers %v", err)
	}
	w.note(func() {
		s := w.keys[key]
		s.must = v
		w.keys[key] = s
	})
}

// replaceTemp drops a queue that is full of messages, and makes it again.
func (w *busy) replaceTemp() {
	if w.rng.IntN(3) > 0 {
		return
	}
	if err := w.s.Drop(context.Background(), w.temp); err != nil {
		w.t.Error(err)
	}
	w.temp = queueOn(w.t, w.s, broker.Def{Name: "temp"})
}

// TestAPowerCutAnywhereInTheUpkeepIsSurvived cuts the power after each operation
// on the disk: commits, full segments, hints, copies of streams, moves,
// checkpoints, removals and their reuse, and again while the store is opened.
func TestAPowerCutAnywhereInTheUpkeepIsSurvived(t *testing.T) {
	states := crashStates(t)
	for _, name := range []string{"512 byte sectors", "4 KiB blocks"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			total := tally{}
			for seed := uint64(1); total.cuts < states/2 && !t.Failed(); seed++ {
				var disk journaltest.Crashable = journaltest.NewSectorFS()
				if name == "4 KiB blocks" {
					disk = journaltest.NewCrashFS()
				}
				total.add(busyRound(t, disk, seed, states/2-total.cuts))
			}
			t.Logf("%+v", total)
			if !t.Failed() && (total.checkpoints == 0 || total.freed == 0 || total.hints == 0 || total.copied == 0 || total.moved == 0 || total.reused == 0 && states >= 1000) {
				t.Errorf("not all kinds of upkeep were there: %+v", total)
			}
		})
	}
}

// tally counts what a round met with.
type tally struct {
	cuts, checkpoints, freed, reused, hints, copied int
	moved                                           int64
}

func (a *tally) add(b tally) {
	a.cuts += b.cuts
	a.checkpoints += b.checkpoints
	a.freed += b.freed
	a.reused += b.reused
	a.hints += b.hints
	a.copied += b.copied
	a.moved += b.moved
}

// seen counts an operation of the upkeep.
func (a *tally) seen(op journaltest.Op) {
	switch {
	case op.Kind == journaltest.Rename && strings.Contains(op.Name, "ckpt-"):
		a.checkpoints++
	case op.Kind == journaltest.Rename && strings.HasSuffix(op.Name, ".free"):
		a.freed++
	case op.Kind == journaltest.Write && strings.HasSuffix(op.Name, ".free"):
		a.reused++
	case op.Kind == journaltest.Create && strings.HasSuffix(op.Name, ".hint"):
		a.hints++
	case op.Kind == journaltest.Write && strings.HasSuffix(op.Name, ".log"):
		a.copied++
	}
}

func busyRound(t *testing.T, disk journaltest.Crashable, seed uint64, most int) (n tally) {
	t.Helper()
	var mu sync.Mutex // of rng, armed and n
	rng := rand.New(rand.NewPCG(seed, 11))
	armed := false
	w := &busy{t: t, rng: rand.New(rand.NewPCG(seed, 12)), diary: diary{keys: map[string]span{}}}
	fs := journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
		err := run()
		mu.Lock()
		defer mu.Unlock()
		if n.seen(op); !armed || !op.Changes() || n.cuts >= most || t.Failed() {
			return err
		}
		if journaltest.InLog(op) && op.Kind != journaltest.Rename && rng.IntN(30) > 0 {
			return err // most operations are commits: the turn of each comes with another seed
		}
		keep := 0
		if op.Kind == journaltest.Write || op.Kind == journaltest.Rename || op.Kind == journaltest.Remove {
			keep = []int{0, 30, 70, 90, 100}[rng.IntN(5)]
		}
		n.cuts++
		must := w.snapshot()
		after := disk.Crash(keep, rng)
		v := verifier{t: t, must: must, may: w.snapshot(), rng: rng, where: fmt.Sprintf("seed %d, cut %d after %s of %s, %d %% kept", seed, n.cuts, op.Kind, op.Name, keep)}
		v.verify(after)
		return err
	})
	w.s = open(t, crashOptions(fs))
	w.s.Bind(noEvents{})
	w.define()
	for range 150 {
		w.step() // until there is something to keep up
	}
	mu.Lock()
	armed = true
	mu.Unlock()
	for range 600 {
		mu.Lock()
		enough := n.cuts >= most
		mu.Unlock()
		if w.step(); t.Failed() || enough {
			break
		}
	}
	n.moved = w.s.Moved()
	if err := w.s.Check(); err != nil {
		t.Error(err)
	}
	shut(t, w.s)
	return n
}
