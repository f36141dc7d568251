package cluster_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream/jetstreamtest"
)

// cuts are the ways in which a node reaches nobody.
var cuts = map[string]func(jetstreamtest.Way){"cut": jetstreamtest.Way.Cut, "stalled": jetstreamtest.Way.Stall}

// TestANodeThatIsCutOffAnswersNothingByWhatItKnew: by the time that a definition is
// answered without it, it says that it may not know, and when it is back it knows.
func TestANodeThatIsCutOffAnswersNothingByWhatItKnew(t *testing.T) {
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			c := servers(t)
			a, b := startNode(t, c, "a", brief), startNode(t, c, "b", brief)
			for _, n := range []*node{a, b} {
				eventually(t, n.Self()+" answers by what it knows", func() bool { waited, err := n.Current(); return !waited && err == nil })
			}
			cut(b.way)
			a.queue(t, "later")
			if _, err := b.Current(); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("a node that was given up: %v", err)
			}
			b.way.Mend()
			eventually(t, "it is one of the cluster again", func() bool { _, err := b.Current(); return err == nil })
			if !b.heard.has("defined later") {
				t.Error("it answers, and does not know what it missed", b.heard.all())
			}
		})
	}
}

// TestTheLeaderThatIsCutOffAnswersNothing by the time that another leads.
func TestTheLeaderThatIsCutOffAnswersNothing(t *testing.T) {
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			c := servers(t)
			a, b := startNode(t, c, "a", brief), startNode(t, c, "b", brief)
			cut(a.way)
			b.queue(t, "later")
			if _, err := a.Current(); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("a leader that was given up: %v", err)
			}
			if _, err := b.Current(); err != nil {
				t.Errorf("who leads in its place: %v", err)
			}
		})
	}
}

// TestNodesStayWhenTheirLeaderDies: none of them counts as gone while they elect, so
// that their clients stay.
func TestNodesStayWhenTheirLeaderDies(t *testing.T) {
	const hold = 3 * brief // so that none is late enough by itself
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits more than it works
			c := servers(t)
			a, b, x := startNode(t, c, "a", hold), startNode(t, c, "b", hold), startNode(t, c, "x", hold)
			cut(a.way)
			eventually(t, "another leads", func() bool { return b.Leads() || x.Leads() })
			if err := b.put("k", "v"); err != nil {
				t.Error(err)
			}
			if err := x.put("k", "v"); err != nil {
				t.Error(err)
			}
			for _, n := range []*node{b, x} {
				if n.heard.has("alone true") {
					t.Errorf("node %s heard %q", n.Self(), n.heard.all())
				}
			}
		})
	}
}

// TestWhenTheServersAreAwayTheLeaderStays: nobody could have seen it renew its hold.
func TestWhenTheServersAreAwayTheLeaderStays(t *testing.T) {
	c := servers(t)
	nodes := []*node{startNode(t, c, "a", brief), startNode(t, c, "b", brief), startNode(t, c, "x", brief)}
	for _, n := range nodes {
		n.way.Cut()
	}
	for _, n := range nodes {
		eventually(t, "it knows that it is alone", func() bool { return n.heard.has("alone true") })
		if _, err := n.Current(); broker.KindOf(err) != broker.Unavailable {
			t.Errorf("%s without servers: %v", n.Self(), err)
		}
	}
	<-time.After(brief) // long enough for others to give it up, had they seen it silent
	for i := range nodes {
		nodes[len(nodes)-1-i].way.Mend() // the leader is back last
	}
	for _, n := range nodes {
		eventually(t, "it is back", func() bool { return n.heard.has("alone false") })
		if err := n.put("k", n.Self()); err != nil {
			t.Errorf("%s: %v", n.Self(), err)
		}
	}
	if !nodes[0].Leads() {
		t.Error("another node leads")
	}
	select {
	case err := <-nodes[0].failed:
		t.Errorf("the leader ends: %v", err)
	default:
	}
}

// TestWhatALeaderSentBeforeItWasGivenUpUndoesNothing: it was on its way while another
// one led, and arrives late.
func TestWhatALeaderSentBeforeItWasGivenUpUndoesNothing(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", brief), startNode(t, c, "b", brief)
	for _, key := range []string{"kept", "made", "gone"} {
		if key == "made" {
			continue
		}
		if err := a.put(key, "first"); err != nil {
			t.Fatal(err)
		}
	}
	a.way.Stall()
	late := make(chan error, 3)
	for _, key := range []string{"kept", "made"} {
		go func() { late <- a.put(key, "old") }()
	}
	go func() { late <- a.forget("gone") }()
	eventually(t, "another leads", b.Leads)
	for _, key := range []string{"kept", "made", "gone"} {
		if err := b.put(key, "new"); err != nil {
			t.Fatal(err)
		}
	}
	a.way.Mend()
	<-a.failed
	for range 3 {
		if err := <-late; err == nil {
			t.Error("a leader that was given up wrote a key")
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := startNode(t, c, "x", brief)
	for _, key := range []string{"kept", "made", "gone"} {
		if e, err := x.Get(t.Context(), broker.SpaceAuth, key); err != nil || string(e.Value) != "new" {
			t.Errorf("the key %s is %q, %v", key, e.Value, err)
		}
	}
}

// TestWhatWasDoneIsNotDoneAgain for a node whose answer was lost, and that was given
// up before it came back.
func TestWhatWasDoneIsNotDoneAgain(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", brief), startNode(t, c, "b", brief)
	hold := make(chan struct{})
	a.heard.mu.Lock()
	a.heard.hold = hold
	a.heard.mu.Unlock()
	end := make(chan error, 1)
	go func() { end <- b.put("k", "v") }()
	eventually(t, "the key is written", func() bool { return a.heard.has("recorded k=v") })
	b.way.Cut()
	eventually(t, "it knows that it is alone", func() bool { return b.heard.has("alone true") })
	close(hold)
	eventually(t, "it is given up", func() bool { return a.heard.has("left b") })
	before, err := a.Get(t.Context(), broker.SpaceAuth, "k")
	if err != nil {
		t.Fatal(err)
	}
	b.way.Mend()
	if err := <-end; !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("the write ends with %v", err)
	}
	if e, err := a.Get(t.Context(), broker.SpaceAuth, "k"); err != nil || e.Rev != before.Rev {
		t.Errorf("the key is of revision %d, and was of %d: %v", e.Rev, before.Rev, err)
	}
}

// TestARequestEndsWithTheNodeThatWasAsked: on a network that loses everything nothing
// else ends it.
func TestARequestEndsWithTheNodeThatWasAsked(t *testing.T) {
	c := servers(t)
	a, b, x := startNode(t, c, "a", brief), startNode(t, c, "b", brief), startNode(t, c, "x", brief)
	b.way.Stall()
	var asked sync.WaitGroup
	for _, n := range []*node{a, x} {
		asked.Go(func() {
			if _, err := n.Ask(t.Context(), "b", "anything", nil); broker.KindOf(err) != broker.Unknown {
				t.Errorf("node %s asked a node that left meanwhile: %v", n.Self(), err)
			}
			if _, err := n.Ask(t.Context(), "b", "anything", nil); broker.KindOf(err) != broker.Unavailable {
				t.Errorf("node %s asked a node that has left: %v", n.Self(), err)
			}
		})
	}
	asked.Wait()
}
