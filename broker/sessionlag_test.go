package broker_test

import (
	"testing"
	"testing/synctest"
)

// TestWhatWasReadAlreadyEndsNoSession: a node that has just joined a new leader may
// take a session by what it reads, and hear only then of what was before that.
func TestWhatWasReadAlreadyEndsNoSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a := newEdge(s.start("a"))
		second := s.Join("b")
		b := newEdge(s.open(second))
		old, _ := a.connect("x")
		a.subscribe(old, "t", 1)
		second.Lag()
		old.Close(a.ctx, false)
		now, present := b.connect("x")
		if !present {
			t.Error("the session was not taken over")
		}
		second.CatchUp()
		synctest.Wait()
		wantList(t, "the edge was told", b.asked())
		b.subscribe(now, "u", 1)
		wantList(t, "subscriptions", a.filters("x"), "t:1:0", "u:1:0")
	})
}
