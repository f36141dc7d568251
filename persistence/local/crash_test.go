package local_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// Facts of one message of the crash test, as its producer and consumers know
// them. Queue 0 and 1 and the stream get every message.
type fact struct {
	published bool    // answered
	settling  [2]bool // a settlement was submitted
	settled   [2]bool // and answered
	moving    bool    // from queue 0 to the dead letters, submitted
	moved     bool    // and answered
}

// ledger holds the facts. It is copied around each power cut: before the disk
// is, for what must be there, and after it, for what may be.
type ledger struct {
	mu sync.Mutex
	known
}

// known is what a ledger knows.
type known struct {
	facts []fact
	key   int // value of the key that was answered
	keyed int // and submitted
}

func (l *ledger) snapshot() known {
	l.mu.Lock()
	defer l.mu.Unlock()
	return known{facts: append([]fact(nil), l.facts...), key: l.key, keyed: l.keyed}
}

func (l *ledger) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// answer runs what an answered unit proves.
type answer struct {
	t     *testing.T
	may   bool // units may fail
	l     *ledger
	units []func()
	done  chan struct{}
}

func (a *answer) Done(b *broker.Batch) {
	a.l.note(func() {
		for i, f := range a.units {
			if err := b.Units[i].Result.Err; err != nil && a.may {
				continue
			} else if err != nil {
				a.t.Errorf("unit %d failed: %v", i, err)
			} else if f != nil {
				f()
			}
		}
	})
	close(a.done)
}

// workload drives a store at random and keeps the ledger.
type workload struct {
	t       *testing.T
	s       *local.Store
	l       *ledger
	rng     *rand.Rand
	queues  [2]broker.Target
	dead    broker.Target
	stream  broker.Target
	running []*answer
	faulty  bool // the disk fails, and then units may
}

func defineCrash(tb testing.TB, s *local.Store, w *workload) {
	tb.Helper()
	define := func(name string, kind broker.TargetKind) broker.Target {
		id, err := s.Define(context.Background(), broker.Def{Name: name, Kind: kind})
		if err != nil {
			tb.Fatal(err)
		}
		return id
	}
	w.queues[0], w.queues[1] = define("q0", broker.QueueTarget), define("q1", broker.QueueTarget)
	w.dead, w.stream = define("dead", broker.QueueTarget), define("s", broker.StreamTarget)
}

// submit submits b; units says what each unit proves once answered.
func (w *workload) submit(b *broker.Batch, units ...func()) {
	a := &answer{t: w.t, may: w.faulty, l: w.l, units: units, done: make(chan struct{})}
	w.s.Submit(b, broker.Durable, a)
	w.running = append(w.running, a)
	if len(w.running) > 3 || w.rng.IntN(3) == 0 {
		w.wait()
	}
}

func (w *workload) wait() {
	for _, a := range w.running {
		<-a.done
	}
	w.running = w.running[:0]
}

func (w *workload) step() {
	switch w.rng.IntN(6) {
	case 0, 1, 2:
		w.publish()
	case 3, 4:
		w.consume(w.rng.IntN(2))
	default:
		b := &broker.Batch{}
		var v int
		w.l.note(func() { w.l.keyed++; v = w.l.keyed })
		b.Put(broker.SpaceCursors, "k", []byte(strconv.Itoa(v)), 0)
		b.End()
		w.submit(b, func() { w.l.key = max(w.l.key, v) })
	}
}

func (w *workload) publish() {
	b := &broker.Batch{}
	var units []func()
	for range 1 + w.rng.IntN(4) {
		var n int
		w.l.note(func() { n = len(w.l.facts); w.l.facts = append(w.l.facts, fact{}) })
		b.Publish(numbered(n, w.rng.IntN(1500)), broker.Route{Target: w.queues[0]}, broker.Route{Target: w.queues[1]}, broker.Route{Target: w.stream})
		b.End()
		units = append(units, func() { w.l.facts[n].published = true })
	}
	w.submit(b, units...)
}

// numbered is a message that can be told by its number.
func numbered(n, fill int) *broker.Message {
	return &broker.Message{Topic: strconv.Itoa(n), Payload: make([]byte, fill), Published: time.Now().UnixMilli()}
}

func number(tb testing.TB, d *broker.Delivery) int {
	tb.Helper()
	n, err := strconv.Atoi(d.Topic)
	if err != nil {
		tb.Errorf("message with topic %q", d.Topic)
	}
	return n
}

func (w *workload) consume(q int) {
	got, err := tryReceive(w.s, w.queues[q], 1+w.rng.IntN(4))
	if err != nil && !w.faulty {
		w.t.Fatalf("receive: %v", err)
	}
	if len(got) == 0 {
		return
	}
	b := &broker.Batch{}
	var units []func()
	for i := range got {
		n := number(w.t, &got[i])
		switch k := w.rng.IntN(4); {
		case k == 0:
			b.Defer(got[i].Ref, time.Now(), true)
			units = append(units, nil)
		case k < 3 && q == 0:
			w.l.note(func() { w.l.facts[n].moving = true })
			b.Settle(got[i].Ref, broker.ReasonDeadLettered) // first: the copy is what tears
			b.Publish(numbered(n, w.rng.IntN(3000)), broker.Route{Target: w.dead})
			units = append(units, func() { w.l.facts[n].moved = true })
		default:
			w.l.note(func() { w.l.facts[n].settling[q] = true })
			b.Settle(got[i].Ref, broker.ReasonAcked)
			units = append(units, func() { w.l.facts[n].settled[q] = true })
		}
		b.End()
	}
	w.submit(b, units...)
}

func receive(tb testing.TB, s *local.Store, q broker.Target, n int) []broker.Delivery {
	tb.Helper()
	got, err := tryReceive(s, q, n)
	if err != nil {
		tb.Fatalf("receive: %v", err)
	}
	return got
}

func tryReceive(s *local.Store, q broker.Target, n int) ([]broker.Delivery, error) {
	c := make(collect, 1)
	w := &broker.Wait{Target: q, Max: n, Lease: time.Hour, Sink: c}
	s.Receive(w)
	<-c
	return w.Got, w.Err
}

type collect chan struct{}

func (c collect) Deliver(*broker.Wait) { c <- struct{}{} }

// noEvents is a broker that does not listen.
type noEvents struct{}

func (noEvents) Lapsed(broker.Target, broker.Reason, []broker.Delivery) {}
func (noEvents) Dropped(broker.Target, broker.Reason, int)              {}

// crashOptions are small segments, so that many are crossed.
func crashOptions(fs journal.FS) local.Options {
	return local.Options{Dir: "data", FS: fs, SegmentSize: 64 << 10, FirstSegmentSize: 32 << 10, WindowSize: 16 << 10}
}

func TestAPowerCutAnywhereLosesNothingAnsweredAndBringsNothingBack(t *testing.T) {
	systems := map[string]func() journaltest.Crashable{
		"512 byte sectors": func() journaltest.Crashable { return journaltest.NewSectorFS() },
		"4 KiB blocks":     func() journaltest.Crashable { return journaltest.NewCrashFS() },
	}
	for name, system := range systems {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crashRounds(t, 2, func(seed uint64) int { return crashRound(t, system(), seed) })
		})
	}
}

// crashRounds runs rounds that return how often each cut the power, until its
// share of the wanted states, a half or all, was looked at.
func crashRounds(t *testing.T, share int, round func(seed uint64) int) {
	t.Helper()
	rounds := uint64(2)
	if testing.Short() {
		rounds = 1
	}
	states, err := strconv.Atoi(cmp.Or(os.Getenv("MILLRACE_CRASH_STATES"), "0"))
	if err != nil {
		t.Fatalf("MILLRACE_CRASH_STATES: %v", err)
	}
	cuts := 0
	for seed := uint64(0); !t.Failed() && (seed < rounds || cuts < states/share); seed++ {
		cuts += round(seed)
	}
	t.Logf("%d power cuts", cuts)
}

// crashRound runs one workload and cuts the power after each operation that
// changes the disk. It returns how many.
func crashRound(t *testing.T, disk journaltest.Crashable, seed uint64) int {
	t.Helper()
	l := &ledger{}
	var mu sync.Mutex // of rng and cuts
	rng := rand.New(rand.NewPCG(seed, 1))
	armed, cuts := false, 0
	fs := journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
		err := run()
		mu.Lock()
		defer mu.Unlock()
		if !armed || !op.Changes() {
			return err
		}
		keep := 0 // nothing is unsynced, or all of it is lost
		if op.Kind == journaltest.Write {
			keep = []int{0, 50, 80, 90, 95, 100}[rng.IntN(6)]
		}
		cuts++
		before := l.snapshot()
		after := disk.Crash(keep, rng)
		verify(t, after, before, l.snapshot(), fmt.Sprintf("seed %d, cut %d after %s of %s, %d %% kept", seed, cuts, op.Kind, op.Name, keep), rng)
		return err
	})
	s, err := local.Open(crashOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	s.Bind(noEvents{})
	w := &workload{t: t, s: s, l: l, rng: rand.New(rand.NewPCG(seed, 2))}
	defineCrash(t, s, w)
	mu.Lock()
	armed = true
	mu.Unlock()
	for range 150 {
		if w.step(); t.Failed() {
			break
		}
	}
	w.wait()
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	return cuts
}

// verify opens the disk after a power cut, and sometimes cuts again while that
// goes on, and compares with what must be and what may be there.
func verify(t *testing.T, disk journaltest.Crashable, must, may known, where string, rng *rand.Rand) {
	t.Helper()
	if rng.IntN(8) == 0 {
		disk = cutWhileOpening(t, disk, rng, where)
	}
	s, err := local.Open(crashOptions(disk))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("%s: close: %v", where, err)
		} else if rng.IntN(16) == 0 {
			if err := verified(disk, "data"); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
	}()
	s.Bind(noEvents{})
	if err := s.Check(); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	c := &contents{t: t, s: s, where: where}
	q0, q1, dead, stream := c.of("q0"), c.of("q1"), c.of("dead"), c.of("s")
	for n := range may.facts {
		var had fact
		if n < len(must.facts) {
			had = must.facts[n]
		}
		compare(t, where, n, had, may.facts[n], [4]bool{q0[n], q1[n], dead[n], stream[n]})
	}
	e, err := s.Get(context.Background(), broker.SpaceCursors, "k")
	v, _ := strconv.Atoi(string(e.Value))
	if err == nil && (v < must.key || v > may.keyed) || err != nil && must.key > 0 {
		t.Errorf("%s: the key is %q, %v; want %d to %d", where, e.Value, err, must.key, may.keyed)
	}
}

// compare checks where one message is.
func compare(t *testing.T, where string, n int, had, may fact, in [4]bool) {
	t.Helper()
	q0, q1, dead, stream := in[0], in[1], in[2], in[3]
	bad := ""
	switch {
	case had.published && !stream:
		bad = "answered and not in the stream"
	case !stream && (q0 || q1 || dead):
		bad = "in a queue and not in the stream: a torn unit"
	case stream && !q0 && !may.settling[0] && !may.moving:
		bad = "lost from the first queue"
	case stream && !q1 && !may.settling[1]:
		bad = "lost from the second queue"
	case had.settled[0] && q0 || had.settled[1] && q1 || had.moved && q0:
		bad = "settled and back"
	case had.moved && !dead:
		bad = "not among the dead letters"
	case q0 && dead:
		bad = "both in its queue and among the dead letters: a torn unit"
	case may.moving && !may.settling[0] && stream && !q0 && !dead:
		bad = "neither in its queue nor among the dead letters: a torn unit"
	}
	if bad != "" {
		t.Errorf("%s: message %d is %s (%+v, may %+v, found %v)", where, n, bad, had, may, in)
	}
}

// contents reads what a store has.
type contents struct {
	t     *testing.T
	s     *local.Store
	where string
}

// target finds a target by name.
func (c *contents) target(name string) broker.Target {
	c.t.Helper()
	ds, err := c.s.Definitions(context.Background())
	if err != nil {
		c.t.Errorf("%s: %v", c.where, err)
	}
	for _, d := range ds {
		if d.Def.Name == name {
			return d.Target
		}
	}
	c.t.Errorf("%s: %s is not defined", c.where, name)
	return 0
}

// of returns which messages are in the target of a name, whose order it checks.
func (c *contents) of(name string) map[int]bool {
	c.t.Helper()
	there := map[int]bool{}
	list, err := c.s.Read(context.Background(), c.target(name), broker.Pos{States: broker.Ready | broker.Leased | broker.Delayed}, 1<<20, nil)
	if err != nil {
		c.t.Errorf("%s: read %s: %v", c.where, name, err)
	}
	last := -1
	for i := range list {
		n := number(c.t, &list[i])
		if there[n] || name != "dead" && n <= last {
			c.t.Errorf("%s: %s has message %d after %d", c.where, name, n, last)
		}
		if name == "s" && list[i].Seq != uint64(i) {
			c.t.Errorf("%s: offset %d at place %d", c.where, list[i].Seq, i)
		}
		there[n], last = true, n
	}
	return there
}

// cutWhileOpening opens the store and cuts the power at one of the operations
// that this takes.
func cutWhileOpening(t *testing.T, disk journaltest.Crashable, rng *rand.Rand, where string) journaltest.Crashable {
	t.Helper()
	var mu sync.Mutex
	left := 1 + rng.IntN(30)
	var after journaltest.Crashable
	fs := journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
		err := run()
		mu.Lock()
		defer mu.Unlock()
		if op.Changes() {
			if left--; left == 0 {
				after = disk.Crash(50, rng)
			}
		}
		return err
	})
	s, err := local.Open(crashOptions(fs))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return disk
	}
	s.Bind(noEvents{})
	_ = s.Close(context.Background()) // the disk as it was meanwhile is what counts
	mu.Lock()
	defer mu.Unlock()
	if after == nil {
		after = disk.Crash(100, rng)
	}
	return after
}
