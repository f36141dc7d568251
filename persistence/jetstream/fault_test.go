//go:build unix

package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

func TestMain(m *testing.M) {
	jetstreamtest.Serve()
	os.Exit(m.Run())
}

// ledger is what producers and consumers were told.
type ledger struct {
	mu      sync.Mutex
	sent    int             // what was tried
	stored  map[string]bool // publishes that were acknowledged
	unknown map[string]bool // those whose outcome is unknown
	queue   intake
	sub     intake
	defined map[string]bool // queues whose definition was
	last    time.Time       // when a publish was acknowledged last
	gap     time.Duration   // the longest time between two
	wrong   []string
}

// intake is what consumers of one source were told.
type intake struct {
	seen    map[string]bool // messages that were delivered
	settled map[string]bool // acks that were acknowledged
}

func newIntake() intake { return intake{map[string]bool{}, map[string]bool{}} }

func newLedger() *ledger {
	return &ledger{stored: map[string]bool{}, unknown: map[string]bool{}, queue: newIntake(), sub: newIntake(), defined: map[string]bool{}}
}

// answer notes the outcome of a publish.
func (l *ledger) answer(body string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	switch {
	case err == nil:
		l.stored[body] = true
		if now := time.Now(); !l.last.IsZero() {
			l.gap = max(l.gap, now.Sub(l.last))
		}
		l.last = time.Now()
	case errors.Is(err, broker.ErrUnknown):
		l.unknown[body] = true
	}
}

// delivered notes what a consumer got.
func (l *ledger) delivered(in *intake, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in.seen[body] = true
	if in.settled[body] {
		l.wrong = append(l.wrong, body+" was acknowledged, and came again")
	}
}

// missing are the acknowledged messages that are not in there.
func (l *ledger) missing(there map[string]bool) (list []string) {
	for body := range l.stored {
		if !there[body] {
			list = append(list, body)
		}
	}
	return list
}

// faults are what happens to a cluster, each until it is over. i is the server
// that leads what is published to.
var faults = []struct {
	name string
	do   func(p *jetstreamtest.Processes, i int)
}{
	{"the leader is killed", func(p *jetstreamtest.Processes, i int) { p.Kill(i); <-time.After(2 * time.Second); p.Start(i) }},
	{"all connections are cut", func(p *jetstreamtest.Processes, _ int) { p.Cut(2 * time.Second) }},
	{"the leader hangs", func(p *jetstreamtest.Processes, i int) { p.Pause(i); <-time.After(6 * time.Second); p.Resume(i) }},
	{"the leader stops", func(p *jetstreamtest.Processes, i int) { p.Stop(i); p.Start(i) }},
	{"a follower is killed", func(p *jetstreamtest.Processes, i int) { p.Kill((i + 1) % 3); p.Start((i + 1) % 3) }},
	{"two servers are killed", func(p *jetstreamtest.Processes, i int) {
		p.Kill(i)
		p.Kill((i + 1) % 3)
		<-time.After(time.Second)
		p.Start(i)
		p.Start((i + 1) % 3)
	}},
	{"nobody answers for longer than a call lasts", func(p *jetstreamtest.Processes, _ int) {
		for i := range 3 {
			p.Pause(i)
		}
		<-time.After(12 * time.Second)
		for i := range 3 {
			p.Resume(i)
		}
	}},
}

// TestNothingIsLostInAClusterWithFaults publishes to a queue and a stream,
// consumes, and defines queues while servers are killed, hang and are cut off: the
// first two faults, and with MILLRACE_CLUSTER_ROUNDS more.
func TestNothingIsLostInAClusterWithFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes its time")
	}
	rounds := 2
	if n, err := strconv.Atoi(os.Getenv("MILLRACE_CLUSTER_ROUNDS")); err == nil {
		rounds = n
	}
	p := jetstreamtest.StartProcesses(t)
	for i := range rounds {
		f := faults[i%len(faults)]
		t.Run(fmt.Sprintf("%d %s", i, f.name), func(t *testing.T) { faultRound(t, p, fmt.Sprintf("f%d", i), f.do) })
	}
}

// world is one round.
type world struct {
	*ledger
	s            *jetstream.Store
	q, st        broker.Target
	subscription broker.Target
	ctx          context.Context
	end          context.CancelFunc
	work, idle   sync.WaitGroup
}

func faultRound(t *testing.T, p *jetstreamtest.Processes, prefix string, fault func(*jetstreamtest.Processes, int)) {
	o := jetstream.Options{URL: p.URL(), Prefix: prefix, Replicas: 3, Hold: 2 * time.Second, Failed: func(err error) { t.Errorf("the store takes no more work: %v", err) }}
	w := &world{ledger: newLedger(), s: open(t, o)}
	w.s.Bind(make(heard, 1000))
	w.q, w.st = w.target(t, broker.Def{Name: "q", Kind: broker.QueueTarget}), w.target(t, broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 1})
	w.subscription = w.target(t, broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: w.st})
	w.ctx, w.end = context.WithCancel(t.Context())
	for i := range 2 {
		w.work.Go(func() { w.produce(i) })
	}
	w.work.Go(w.define)
	consuming, drained := context.WithCancel(t.Context())
	w.idle.Go(func() { w.consume(consuming, w.q, &w.queue) })
	w.idle.Go(func() { w.consume(consuming, w.subscription, &w.sub) })

	w.flows(t, 50)
	fault(p, p.Leader(prefix+"_q_"))
	w.flows(t, 50)
	w.end()
	w.work.Wait()
	w.drain(t)
	drained()
	w.idle.Wait()
	w.check(t)
	if err := w.s.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	w.s = open(t, o) // what was answered is there for the next process
	w.s.Bind(make(heard, 1000))
	w.check(t)
	if err := w.s.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	sweep(t, p.URL(), prefix)
	t.Logf("%d publishes tried, %d acknowledged, %d of unknown outcome; %d acks acknowledged, %d queues defined; the longest gap was %v",
		w.sent, len(w.stored), len(w.unknown), len(w.queue.settled)+len(w.sub.settled), len(w.defined), w.gap.Round(time.Millisecond))
}

func (w *world) target(t *testing.T, d broker.Def) broker.Target {
	t.Helper()
	id, err := w.s.Define(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// produce publishes to the queue and to the stream, one after the other.
func (w *world) produce(who int) {
	for n := 0; w.ctx.Err() == nil; n++ {
		body := fmt.Sprintf("%d-%d", who, n)
		m := &broker.Message{Topic: "t", Payload: []byte(body), QoS: 1}
		copy(m.ID[:], fmt.Sprintf("%d-%014d", who, n))
		r := commit(w.s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: w.q}, broker.Route{Target: w.st}) })
		w.answer(body, r.Err)
	}
}

// define makes queues.
func (w *world) define() {
	for n := 0; w.ctx.Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(w.ctx, 15*time.Second)
		name := fmt.Sprint("q", n)
		_, err := w.s.Define(ctx, broker.Def{Name: name, Kind: broker.QueueTarget})
		cancel()
		w.mu.Lock()
		if err == nil {
			w.defined[name] = true
		}
		w.mu.Unlock()
		select {
		case <-time.After(500 * time.Millisecond):
		case <-w.ctx.Done():
		}
	}
}

// consume receives from a queue or subscription and acknowledges, but gives one in
// ten back.
func (w *world) consume(ctx context.Context, from broker.Target, in *intake) {
	for ctx.Err() == nil {
		for _, d := range take(w.s, from, 20, 5*time.Second, 500*time.Millisecond) {
			body := string(d.Payload)
			w.delivered(in, body)
			if rand.IntN(10) == 0 {
				commit(w.s, func(b *broker.Batch) { b.Defer(d.Ref, w.s.Now(), true) })
				continue
			}
			if r := commit(w.s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) }); r.Err == nil {
				w.mu.Lock()
				in.settled[body] = true
				w.mu.Unlock()
			}
		}
	}
}

// flows waits until n more publishes were acknowledged.
func (w *world) flows(t *testing.T, n int) {
	t.Helper()
	count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.stored) }
	want := count() + n
	eventually(t, fmt.Sprintf("%d publishes are acknowledged", n), func() bool { return count() >= want })
}

// drain waits until every acknowledged message was delivered, and nothing is left.
func (w *world) drain(t *testing.T) {
	t.Helper()
	for name, from := range map[string]broker.Target{"queue": w.q, "subscription": w.subscription} {
		var in broker.Info
		var err error
		defer func() {
			if t.Failed() {
				t.Logf("the %s has %+v, %v", name, in, err)
			}
		}()
		eventually(t, "the "+name+" is empty", func() bool {
			in, err = w.s.Info(t.Context(), from)
			return err == nil && in.Ready+in.Leased+in.Delayed == 0
		})
	}
}

// check compares what is there with what was answered.
func (w *world) check(t *testing.T) {
	t.Helper()
	for _, text := range w.wrong {
		t.Error(text)
	}
	if list := w.missing(w.queue.seen); len(list) > 0 {
		t.Errorf("%d acknowledged messages never came from the queue: %v", len(list), list)
	}
	if list := w.missing(w.sub.seen); len(list) > 0 {
		t.Errorf("%d acknowledged messages never came from the subscription: %v", len(list), list)
	}
	if in, err := w.s.Info(t.Context(), w.subscription); err != nil || in.Ready+in.Leased != 0 || in.Difference() != 0 {
		t.Errorf("the subscription has %+v, %v; want everything settled", in, err)
	}
	inStream, from := map[string]bool{}, broker.Pos{Begin: true}
	for {
		ds, err := w.s.Read(t.Context(), w.st, from, 1000, nil)
		if err != nil {
			t.Fatalf("read the stream: %v", err)
		}
		for i := range ds {
			body := string(ds[i].Payload)
			if inStream[body] {
				t.Errorf("%s stands twice in the stream", body)
			}
			inStream[body] = true
			from = broker.Pos{Seq: ds[i].Seq + 1}
		}
		if len(ds) == 0 {
			break
		}
	}
	if list := w.missing(inStream); len(list) > 0 {
		t.Errorf("%d acknowledged messages are not in the stream: %v", len(list), list)
	}
	defs, err := w.s.Definitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i := range defs {
		names[defs[i].Def.Name] = true
	}
	for name := range w.defined {
		if !names[name] {
			t.Errorf("queue %s was defined, and is not there", name)
		}
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(90 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within 90 s: %s", what)
		}
	}
}
