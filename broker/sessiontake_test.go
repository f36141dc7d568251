package broker_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"millrace/broker"
)

// TestASessionIsTakenFromANodeThatDoesNotAnswer and cannot be written there any
// more.
func TestASessionIsTakenFromANodeThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		first := s.Join("a")
		a := newEdge(s.open(first))
		b := newEdge(s.start("b"))
		old, _ := a.connect("x")
		a.subscribe(old, "t", 1)
		a.stuck = true
		first.SetDeaf(true)
		now, present := b.connect("x")
		if !present || !now.Moved() {
			t.Error("the session was not taken over")
		}
		synctest.Wait()
		wantList(t, "the edge that lost it was told", a.asked(), "x0")
		old.Remember("late", broker.SubscriptionOptions{QoS: 1})
		wantKind(t, old.Commit(a.ctx), broker.Conflict, broker.ClientSubject)
		old.Close(a.ctx, false)
		a.asked()
		a.stuck = false
		b.subscribe(now, "u", 1)
		wantList(t, "subscriptions", a.filters("x"), "t:1:0", "u:1:0")
		wantList(t, "subscriptions", b.filters("x"), "t:1:0", "u:1:0")
		first.SetDeaf(false)
		if _, present := a.connect("x"); !present {
			t.Error("the session did not come back")
		}
	})
}

// TestAClientThatLeftWhileItsSessionCameTakesNothing: it is connected to a third node
// by the time that its session is free.
func TestAClientThatLeftWhileItsSessionCameTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b, c := newEdge(s.start("a")), newEdge(s.start("b")), newEdge(s.start("c"))
		old, _ := a.connect("x")
		var left atomic.Bool
		var now *broker.Session
		a.OnRelease(func(ctx context.Context, _ string, _ broker.Parting) {
			if !left.Swap(true) {
				old.Close(ctx, false)
				now, _ = c.connect("x")
			}
		}, func(broker.Elsewhere) {})
		for range 2 {
			_, _, err := b.OpenSession(b.ctx, broker.SessionOptions{ClientID: "x", Principal: nobody, Expiry: 3600, Here: func() bool { return !left.Load() }})
			wantKind(t, err, broker.Unavailable, broker.ClientSubject)
			synctest.Wait()
			wantList(t, "the third node was asked", c.asked())
			c.subscribe(now, "t", 1)
		}
	})
}

// TestOfTwoNodesThatTakeASessionAtOnceOneHasIt however often they do.
func TestOfNodesThatTakeASessionAtOnceOneHasIt(t *testing.T) {
	s := share(t, t.TempDir())
	edges := []*edge{newEdge(s.start("a")), newEdge(s.start("b")), newEdge(s.start("c"))}
	var wg sync.WaitGroup
	for i, e := range edges {
		wg.Go(func() {
			for range 30 {
				got, _, err := e.OpenSession(e.ctx, broker.SessionOptions{ClientID: "x", Principal: nobody, Expiry: 3600})
				if err != nil {
					if broker.KindOf(err) != broker.Unavailable { // Conflict is of another identity
						t.Error(err)
					}
					continue
				}
				e.mu.Lock()
				e.sessions["x"] = got
				e.mu.Unlock()
				got.Remember(fmt.Sprint("$queue/", i), broker.SubscriptionOptions{QoS: 1})
				if err := got.Commit(e.ctx); err != nil && broker.KindOf(err) != broker.Conflict {
					t.Error(err)
				}
				e.mu.Lock()
				mine := e.sessions["x"] == got
				delete(e.sessions, "x")
				e.mu.Unlock()
				if mine {
					got.Close(e.ctx, false)
				}
			}
		})
	}
	wg.Wait()
	want := edges[0].filters("x")
	for _, e := range edges {
		wantList(t, "subscriptions", e.filters("x"), want...)
		if _, i, err := e.Session(e.ctx, "x"); err != nil || i.Connected {
			t.Errorf("a node shows %+v, %v", i, err)
		}
	}
}
