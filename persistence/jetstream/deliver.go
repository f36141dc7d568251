package jetstream

import (
	"sync/atomic"

	"millrace/broker"
)

// delivering is a Wait in the hands of its sink. Asked for more meanwhile, by
// whomever, it is asked again once the sink is done with what it has.
type delivering struct{ phase atomic.Int32 }

const (
	inHand int32 = iota
	askAgain
	over
)

// deliver ends a wait, on a goroutine of its own: the caller may hold locks.
func (s *Store) deliver(w *broker.Wait) { go s.deliverNow(w) }

// deliverNow ends a wait, and goes on with it if it is to.
func (s *Store) deliverNow(w *broker.Wait) {
	d := &delivering{}
	s.waits.Store(w, d)
	w.Sink.Deliver(w)
	more := d.phase.Swap(over) == askAgain
	s.waits.CompareAndDelete(w, d)
	if more {
		s.Receive(w)
	}
}

// again reports whether w is being delivered, and has it asked for after that.
func (s *Store) again(w *broker.Wait) bool {
	d, ok := s.waits.Load(w)
	if !ok {
		return false
	}
	phase := &d.(*delivering).phase
	return phase.CompareAndSwap(inHand, askAgain)
}

// notAgain takes that back; it reports whether there was anything.
func (s *Store) notAgain(w *broker.Wait) bool {
	d, ok := s.waits.Load(w)
	return ok && d.(*delivering).phase.CompareAndSwap(askAgain, inHand)
}
