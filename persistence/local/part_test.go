package local_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// TestAMessageThatIsNotCommittedYetIsForWhoBeginsToWait has the wait for a part of
// a queue come when its message is appended, and can be had a little later.
func TestAMessageThatIsNotCommittedYetIsForWhoBeginsToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := journaltest.NewGateFS(journaltest.NewSectorFS())
		s := open(t, crashOptions(gate))
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		wait := func() *broker.Wait {
			w := &broker.Wait{Target: q, Filter: "1", Max: 1, Lease: time.Hour, Until: time.Now().Add(time.Minute), Sink: make(collect, 1)}
			s.Receive(w)
			return w
		}
		end := func(w *broker.Wait) {
			t.Helper()
			begin := time.Now()
			<-w.Sink.(collect)
			if took := time.Since(begin); len(w.Got) != 1 || w.Err != nil || took > time.Second {
				t.Errorf("got %d messages after %v, %v", len(w.Got), took, w.Err)
			}
		}
		first := wait() // the part is there from now on
		if err := outcome(publishTo(s, q)); err != nil {
			t.Fatal(err)
		}
		end(first)

		gate.Hold()
		held := publishTo(s, q)
		synctest.Wait()
		w := wait()
		gate.Release()
		if err := outcome(held); err != nil {
			t.Fatal(err)
		}
		end(w)

		queueOn(t, s, broker.Def{Name: "q", Paused: true})
		if err := outcome(publishTo(s, q)); err != nil {
			t.Fatal(err)
		}
		w = wait()
		queueOn(t, s, broker.Def{Name: "q"})
		end(w)
		shut(t, s)
	})
}

// TestPartsThatNobodyAsksForGo bounds what filters that come and go leave.
func TestPartsThatNobodyAsksForGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := local.Open(local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close(context.Background()) }()
		s.Bind(noEvents{})
		q, err := s.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(filter string, wait time.Duration) {
			r := newTaker(s, q, filter)
			r.w.Until = time.Now().Add(wait)
			s.Receive(&r.w)
		}
		for i := range 2000 {
			ask(fmt.Sprint("waits/", i), time.Hour)
		}
		for i := range 10_000 {
			ask(fmt.Sprint("passes/", i), 0)
		}
		if n, _ := s.Parts(q); n < 2000 || n > 2000+2000+local.PartSpare {
			t.Errorf("%d parts, want 2000 that are waited for and no more than as many and %d others", n, local.PartSpare)
		}
		<-time.After(11 * time.Minute)
		if n, _ := s.Parts(q); n != 2000 {
			t.Errorf("%d parts after a while, want the 2000 that are waited for", n)
		}
		<-time.After(time.Hour)
		if n, topics := s.Parts(q); n+topics != 0 {
			t.Errorf("%d parts and %d topics when nobody waits", n, topics)
		}
	})
}
