package local_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// subFacts is what is known of a subscription, and the stream behind it.
type subFacts struct {
	streamFacts
	settling, settled map[broker.Offset]bool // submitted, and answered
}

func (f *subFacts) clone() subFacts {
	return subFacts{f.streamFacts, maps.Clone(f.settling), maps.Clone(f.settled)}
}

// subWork drives a subscription at random and keeps the facts.
type subWork struct {
	t   *testing.T
	s   *local.Store
	st  broker.Target
	sub broker.Target
	rng *rand.Rand

	streamLedger
	mu    sync.Mutex
	facts subFacts
}

func (w *subWork) snapshot() subFacts {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.facts.clone()
	f.streamFacts = w.streamLedger.snapshot()
	return f
}

// settle submits one unit for each offset that build settles, and waits.
func (w *subWork) settle(offsets []broker.Offset, build func(b *broker.Batch, i int)) {
	b, c := &broker.Batch{}, make(batches, 1)
	for i := range offsets {
		build(b, i)
		b.End()
	}
	w.note(w.facts.settling, offsets...)
	w.s.Submit(b, broker.Durable, c)
	<-c
	for i := range offsets {
		if err := b.Units[i].Result.Err; err != nil && !errors.Is(err, broker.ErrGone) { // cut off meanwhile
			w.t.Errorf("settle of %v: %v", offsets[i], err)
		}
	}
	w.note(w.facts.settled, offsets...)
}

func (w *subWork) note(set map[broker.Offset]bool, offsets ...broker.Offset) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range offsets {
		set[o] = true
	}
}

// step receives and settles some, one by one or up to an offset.
func (w *subWork) step(n, settle int, upTo bool) {
	c := &consumer{got: make(chan struct{}, 1)}
	wait := &broker.Wait{Target: w.sub, Max: n, Lease: time.Hour, Sink: c}
	w.s.Receive(wait)
	<-c.got
	if wait.Err != nil {
		w.t.Errorf("receive: %v", wait.Err)
		return
	}
	got := wait.Got[:min(settle, len(wait.Got))]
	if upTo && len(got) > 0 {
		last := broker.Offset{Partition: got[0].Partition, Offset: got[0].Offset}
		var all []broker.Offset
		for o := range last.Offset + 1 {
			all = append(all, broker.Offset{Partition: last.Partition, Offset: o})
		}
		w.note(w.facts.settling, all...)
		w.settle([]broker.Offset{last}, func(b *broker.Batch, _ int) { b.SettleUpTo(w.sub, last, broker.ReasonAcked) })
		w.note(w.facts.settled, all...)
		return
	}
	var offsets []broker.Offset
	for _, d := range got {
		offsets = append(offsets, broker.Offset{Partition: d.Partition, Offset: d.Offset})
	}
	w.settle(offsets, func(b *broker.Batch, i int) { b.Settle(got[i].Ref, broker.ReasonAcked) })
}

func subscriptionOf(t testing.TB, s *local.Store, st broker.Target) broker.Target {
	t.Helper()
	sub, err := s.Define(context.Background(), broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: st})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func TestAPowerCutAnywhereKeepsWhatASubscriptionSettled(t *testing.T) {
	crashRounds(t, 1, func(seed uint64) int { return subscriptionRound(t, journaltest.NewSectorFS(), seed) })
}

// subscriptionRound works at random, and cuts the power after each operation
// that changes the disk. It returns how often.
func subscriptionRound(t *testing.T, disk journaltest.Crashable, seed uint64) (cuts int) {
	t.Helper()
	w := &subWork{t: t, rng: rand.New(rand.NewPCG(seed, 11))}
	w.facts = subFacts{settling: map[broker.Offset]bool{}, settled: map[broker.Offset]bool{}}
	var mu sync.Mutex // of rng and cuts
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
			keep = []int{0, 50, 90, 100}[w.rng.IntN(4)]
		}
		cuts++
		must := w.snapshot()
		after := disk.Crash(keep, w.rng)
		verifySubscription(t, after, must, w.snapshot(), fmt.Sprintf("seed %d, cut %d after %s of %s, %d %% kept", seed, cuts, op.Kind, op.Name, keep))
		return err
	})
	w.s = open(t, crashOptions(fs))
	w.s.Bind(noEvents{})
	w.st = streamOf(t, w.s)
	w.sub = subscriptionOf(t, w.s, w.st)
	mu.Lock()
	armed = true
	mu.Unlock()
	for range 60 {
		mu.Lock()
		part, n, fill, take := w.rng.IntN(2), 1+w.rng.IntN(20), w.rng.IntN(800), 1+w.rng.IntN(20)
		settled, upTo, copied := w.rng.IntN(20), w.rng.IntN(6) == 0, w.rng.IntN(6) == 0
		mu.Unlock()
		w.publish(t, w.s, w.st, part, n, fill)
		w.step(take, settled, upTo)
		if copied {
			if _, err := w.s.CopyStreams(); err != nil {
				t.Fatalf("copy: %v", err)
			}
		}
		if t.Failed() {
			break
		}
	}
	mu.Lock()
	armed = false
	mu.Unlock()
	checkSubscription(t, w.s, w.st, w.sub, w.snapshot(), w.snapshot(), "at the end")
	shut(t, w.s)
	return cuts
}

// verifySubscription opens the disk after a power cut.
func verifySubscription(t *testing.T, disk journaltest.Crashable, must, may subFacts, where string) {
	t.Helper()
	s, err := local.Open(crashOptions(disk))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	s.Bind(noEvents{})
	st := streamOf(t, s)
	checkSubscription(t, s, st, subscriptionOf(t, s, st), must, may, where)
	if err := s.Check(); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	shut(t, s)
}

// checkSubscription compares what a subscription still has with the facts.
func checkSubscription(t *testing.T, s *local.Store, st, sub broker.Target, must, may subFacts, where string) {
	t.Helper()
	ds, err := s.Read(context.Background(), sub, broker.Pos{States: broker.Ready | broker.Leased | broker.Delayed}, 1<<20, nil)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	there := map[broker.Offset]bool{}
	for _, d := range ds {
		o := broker.Offset{Partition: d.Partition, Offset: d.Offset}
		if there[o] = true; must.settled[o] {
			t.Errorf("%s: %v was settled and is there again", where, o)
		}
	}
	in, err := s.Info(context.Background(), st)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	for p, at := range in.Partitions {
		for n := at.First; n < uint64(must.answered[p]); n++ {
			if o := (broker.Offset{Partition: uint32(p), Offset: n}); !there[o] && !may.settling[o] {
				t.Errorf("%s: %v is gone, and nobody settled it", where, o)
			}
		}
	}
}
