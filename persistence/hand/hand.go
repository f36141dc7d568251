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
	asking    // on its way into the line
	withdrawn // it is not to stay there: a cancel came before it was
	over
)

// Deliver gives w to its sink, and asks receive for more if it is to; withdraw takes w
// out of its line and reports whether it was there. Whoever could not cancel w because
// it was just being asked for again has it delivered, if need be with nothing.
func (h *Waits) Deliver(w *broker.Wait, receive func(*broker.Wait), withdraw func(*broker.Wait) bool) {
	for missed := true; missed; missed = missed && withdraw(w) {
		d := &delivering{}
		h.of.Store(w, d)
		w.Sink.Deliver(w)
		missed = d.goOn(w, receive)
		h.of.CompareAndDelete(w, d)
	}
}

// goOn ends a delivery of w, and asks receive for another if there is to be one. It
// reports whether a cancel came meanwhile.
func (d *delivering) goOn(w *broker.Wait, receive func(*broker.Wait)) bool {
	for !d.phase.CompareAndSwap(inHand, over) {
		if d.phase.CompareAndSwap(askAgain, asking) {
			receive(w)
			return d.phase.Swap(over) == withdrawn
		}
	}
	return false
}

// Again reports whether w is in the hands of its sink, and has it asked for after that.
func (h *Waits) Again(w *broker.Wait) bool {
	d, ok := h.of.Load(w)
	return ok && d.(*delivering).phase.CompareAndSwap(inHand, askAgain)
}

// NotAgain takes that back; it reports whether there was anything. One that is on its
// way into the line by then is not to stay there.
func (h *Waits) NotAgain(w *broker.Wait) bool {
	d, ok := h.of.Load(w)
	if !ok {
		return false
	}
	phase := &d.(*delivering).phase
	if phase.CompareAndSwap(askAgain, inHand) {
		return true
	}
	phase.CompareAndSwap(asking, withdrawn)
	return false
}
