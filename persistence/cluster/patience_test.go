package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/persistence/clock"
)

// lone is a node that has lost its leader just now, and can be told things.
func lone(t *testing.T) *Store {
	t.Helper()
	s := &Store{hold: defaultHold, born: time.Now(), clock: clock.New(nil)}
	s.ctx, s.stop = context.WithCancel(t.Context())
	return s
}

// TestWhoComesWaitsForALeaderThatIsOpeningItsStore, for as long as clients do, and not
// for one of which there is no sign.
func TestWhoComesWaitsForALeaderThatIsOpeningItsStore(t *testing.T) {
	for _, x := range []struct {
		name    string
		signs   time.Duration // a node shows for so long that it is about to lead
		leads   time.Duration // after that one leads, 0 = never
		refused time.Duration // so late, 0 = not at all
	}{
		{"nobody", 0, 0, forLeader},
		{"a leader at once", 0, time.Second, 0},
		{"a leader that opens slowly", 18 * time.Second, 18 * time.Second, 0},
		{"one that died while it opened", 9 * time.Second, 0, 8*time.Second + defaultHold},
		{"one that does not end", time.Hour, 0, forOpening},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := lone(t)
				var others sync.WaitGroup
				defer others.Wait()
				defer s.stop()
				every := func(d time.Duration, f func()) {
					others.Go(func() {
						for tick := time.NewTicker(d); ; {
							f()
							select {
							case <-tick.C:
							case <-s.ctx.Done():
								return
							}
						}
					})
				}
				if x.signs > 0 {
					end := time.Now().Add(x.signs)
					every(time.Second, func() {
						if time.Now().Before(end) {
							s.opens()
						}
					})
				}
				if x.leads > 0 {
					time.AfterFunc(x.leads, func() { s.certain(time.Now()); s.caught.Store(true) })
				}
				var sent error
				begun, done := time.Now(), make(chan time.Duration, 1)
				s.start(&op{kind: kindInfo, body: func() []byte { return nil }, done: func(_ []byte, _ bool, err error) {
					sent = err
					done <- time.Since(begun)
				}})
				every(seekEvery, s.expire)
				waited, err := s.Current()
				took := time.Since(begun)
				if !waited || (err == nil) != (x.refused == 0) {
					t.Fatalf("after %s: waited %v, %v", took, waited, err)
				}
				if x.refused == 0 {
					return
				}
				if took < x.refused || took > x.refused+2*time.Second {
					t.Errorf("refused after %s, want %s", took, x.refused)
				}
				if took := <-done; !errors.Is(sent, errNobody) || took < x.refused || took > x.refused+2*time.Second {
					t.Errorf("an operation ends after %s with %v, want %s", took, sent, x.refused)
				}
			})
		})
	}
}
