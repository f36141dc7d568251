// Package hand delivers Waits to their sinks, one delivery of a Wait after the
// other: a sink that asks for more from within its delivery, or somebody else who
// does meanwhile, costs no stack and is served once the sink is done. And it answers
// Submits, those of one Completion in their order.
package hand

import (
	"sync"
	"sync/atomic"

	"millrace/broker"
)

// Waits are those in the hands of their sinks. The zero value is ready to use.
type Waits struct{ of sync.Map } // *broker.Wait to *delivering

// delivering is a Wait in the hands of its sink. Asked for more meanwhile, by
// whomever, it is asked again once the sink is done with what it has.
type delivering struct{ phase atomic.Int32 }

const (
	inHand int32 = iota
	askAgain
	over
)

// Deliver gives w to its sink, and asks receive for more if it is to.
func (h *Waits) Deliver(w *broker.Wait, receive func(*broker.Wait)) {
	d := &delivering{}
	h.of.Store(w, d)
	w.Sink.Deliver(w)
	more := d.phase.Swap(over) == askAgain
	h.of.CompareAndDelete(w, d)
	if more {
		receive(w)
	}
}

// Again reports whether w is in the hands of its sink, and has it asked for after that.
func (h *Waits) Again(w *broker.Wait) bool {
	d, ok := h.of.Load(w)
	return ok && d.(*delivering).phase.CompareAndSwap(inHand, askAgain)
}

// NotAgain takes that back; it reports whether there was anything.
func (h *Waits) NotAgain(w *broker.Wait) bool {
	d, ok := h.of.Load(w)
	return ok && d.(*delivering).phase.CompareAndSwap(askAgain, inHand)
}
