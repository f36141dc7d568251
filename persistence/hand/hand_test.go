package hand_test

import (
	"testing"

	"millrace/broker"
	"millrace/persistence/hand"
)

// oneWait is a store of one Wait, whose sink asks for more the first time.
type oneWait struct {
	hand.Waits
	waits     bool // it is in line
	delivered int
	before    func() // it is in line
	after     func()
}

func (s *oneWait) Deliver(w *broker.Wait) {
	if s.delivered++; s.delivered == 1 {
		s.Receive(w)
	}
}

func (s *oneWait) Receive(w *broker.Wait) {
	if s.Again(w) {
		return
	}
	s.before()
	s.waits = true
	s.after()
}

func (s *oneWait) Cancel(w *broker.Wait) bool { return s.NotAgain(w) || s.withdraw(w) }

func (s *oneWait) withdraw(*broker.Wait) (did bool) {
	did, s.waits = s.waits, false
	return did
}

// TestACancelThatComesWhileAWaitIsAskedForAgain either withdraws it, or it is delivered:
// who cancels waits for one or the other.
func TestACancelThatComesWhileAWaitIsAskedForAgain(t *testing.T) {
	for _, early := range []bool{false, true} {
		w := &broker.Wait{}
		s := &oneWait{before: func() {}, after: func() {}}
		cancelled := false
		cancel := func() { cancelled = s.Cancel(w) }
		if early {
			s.before = cancel
		} else {
			s.after = cancel
		}
		w.Sink = s
		s.Waits.Deliver(w, s.Receive, s.withdraw)
		want := 2
		if cancelled {
			want = 1
		}
		if cancelled == early || s.delivered != want || s.waits {
			t.Errorf("cancelled before it is in line: %v; withdrawn: %v; delivered %d times, want %d; waits: %v", early, cancelled, s.delivered, want, s.waits)
		}
	}
}
