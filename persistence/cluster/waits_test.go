package cluster_test

import (
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
	w := &broker.Wait{Target: q, Max: 10, Lease: time.Minute, Until: b.Now().Add(time.Hour), Sink: make(got, 1)}
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
	w := &broker.Wait{Target: q, Max: 10, Lease: time.Minute, Until: b.Now().Add(time.Hour), Sink: make(got, 1)}
	b.Receive(w)
	if _, err := b.Info(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	b.way.Stall()
	if w := b.cancel(t, w); w.Err != nil || len(w.Got) > 0 {
		t.Errorf("it got %q, %v", texts(w), w.Err)
	}
}
