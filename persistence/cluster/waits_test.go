package cluster_test

import (
	"errors"
	"testing"
	"time"

	"millrace/broker"
)

// cancel cancels a wait that the leader has, and returns how it ended.
func (n *node) cancel(tb testing.TB, w *broker.Wait) *broker.Wait {
	tb.Helper()
	if n.Cancel(w) {
		tb.Fatal("a wait that the leader may be serving was said to be withdrawn")
	}
	select {
	case w := <-w.Sink.(got):
		return w
	case <-time.After(time.Minute):
		tb.Fatal("a wait that was cancelled is not delivered")
		return nil
	}
}

// TestACancelledWaitIsOverWhenItsLeaderSaysSo: what it serves at that time is not
// somebody else's by then.
func TestACancelledWaitIsOverWhenItsLeaderSaysSo(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	q := a.queue(t, "q")
	w := b.wait(q, time.Hour)
	b.Receive(w)
	if w := b.cancel(t, w); w.Err != nil || len(w.Got) > 0 {
		t.Errorf("a wait that nothing came for got %q, %v", texts(w), w.Err)
	}
	b.Receive(w)
	if _, err := b.Info(t.Context(), q); err != nil { // the leader has taken what was sent before
		t.Fatal(err)
	}
	b.way.Stall()
	if err := a.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, b.way.Mend)
	if w := b.cancel(t, w); w.Err != nil || texts(w) != "m" {
		t.Errorf("what was on its way came as %q, %v", texts(w), w.Err)
	}
	if b.Cancel(w) {
		t.Error("a wait that is over was said to be withdrawn")
	}
	b.settle(t, w)
}

// TestACancelledWaitEndsWithItsLeader when that does not say that it is over.
func TestACancelledWaitEndsWithItsLeader(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", brief), startNode(t, c, "b", brief)
	q := a.queue(t, "q")
	w := b.wait(q, time.Hour)
	b.Receive(w)
	if _, err := b.Info(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	b.way.Stall()
	if w := b.cancel(t, w); w.Err != nil || len(w.Got) > 0 {
		t.Errorf("it got %q, %v", texts(w), w.Err)
	}
}

// TestAWaitThatIsCertainEndsWhereItsAnswerMayBeLost; others go on.
func TestAWaitThatIsCertainEndsWhereItsAnswerMayBeLost(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	q, other := a.queue(t, "q"), a.queue(t, "other")
	w := b.wait(q, time.Hour)
	w.Certain, w.Lease = true, time.Hour
	b.Receive(w)
	goesOn := b.receive(other, time.Hour)
	if _, err := b.Info(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	b.way.Stall()
	if err := a.send(q, "m"); err != nil {
		t.Fatal(err)
	}
	b.way.Cut()
	b.way.Mend()
	if w := <-w.Sink.(got); !errors.Is(w.Err, broker.ErrUnknown) || len(w.Got) > 0 {
		t.Errorf("it got %q, %v", texts(w), w.Err)
	}
	if ds, err := b.Read(t.Context(), q, broker.Pos{States: broker.Leased}, 10, nil); err != nil || len(ds) != 1 {
		t.Errorf("%d messages are leased, %v; want the one that was lost", len(ds), err)
	}
	if err := a.send(other, "n"); err != nil {
		t.Fatal(err)
	}
	if w := <-goesOn; w.Err != nil || texts(w) != "n" {
		t.Errorf("the other got %q, %v", texts(w), w.Err)
	}
}

// TestNothingOfASourceIsDoneBehindWhatIsUnknown while its order counts: not even what
// no leader was told of.
func TestNothingOfASourceIsDoneBehindWhatIsUnknown(t *testing.T) {
	c := servers(t)
	const hold = 2 * brief // so that the leader is lost for a while before the other one leads
	a, b := startNode(t, c, "a", hold), startNode(t, c, "b", hold)
	q := a.queue(t, "q")
	submit := func(source any, text string) done {
		batch, d := &broker.Batch{Source: source}, make(done, 1)
		batch.Publish(&broker.Message{Topic: "a", Payload: []byte(text), ID: broker.ID{0: 1, 15: text[0]}}, broker.Route{Target: q})
		batch.End()
		b.Submit(batch, broker.Durable, d)
		return d
	}
	a.way.Stall()
	source := new(int)
	first := submit(source, "1")
	eventually(t, "the leader is lost", func() bool { return b.log.has("the leader of the cluster is not there") })
	second, other := submit(source, "2"), submit(new(int), "3")
	for i, d := range []done{first, second} {
		if err := (<-d).Units[0].Result.Err; !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("publish %d answers %v", i+1, err)
		}
	}
	if err := (<-other).Units[0].Result.Err; err != nil {
		t.Error(err)
	}
	if w := <-b.receive(q, 0); texts(w) != "3" {
		t.Errorf("the queue has %q, want 3", texts(w))
	}
	if d := submit(source, "4"); (<-d).Units[0].Result.Err != nil {
		t.Error("it takes nothing more of the source")
	}
}
