package broker

import (
	"context"

	"millrace/broker/auth"
)

// waitingPublish is a pending whose caller waits for it.
type waitingPublish struct {
	pending

	done chan struct{}
}

// newWaitingPublish returns one that was used before, with the memory it has,
// or a new one. Release it after the outcomes were read.
func (b *Broker) newWaitingPublish() *waitingPublish {
	w, _ := b.publishes.Get().(*waitingPublish)
	if w == nil {
		w = &waitingPublish{}
		w.pending = pending{b: b, owner: w, lazy: true, every: true, stats: &b.stats}
	}
	w.done = make(chan struct{}, 1) // of the bubble of fake time it is used in
	return w
}

// finished implements pendingOwner: the outcomes stay where they are.
func (*waitingPublish) finished(*pending, []Outcome) {}

// fannedOut implements pendingOwner.
func (w *waitingPublish) fannedOut(*pending) { w.done <- struct{}{} }

// commit hands over what was added and waits for its end. When ctx ends first w
// is left to the store, must not be touched again, and the outcome is unknown.
func (w *waitingPublish) commit(ctx context.Context) error {
	if len(w.batch.Ops) == 0 {
		w.Done(&w.batch)
	} else {
		w.submit()
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return storeError(ErrUnknown)
	}
}

// release keeps w for its next use, unless it has grown large.
func (w *waitingPublish) release() {
	if len(w.publishes) > producerMessages {
		return
	}
	w.reset()
	w.b.publishes.Put(w)
}

// book spends what a number of messages cost at the rates of p, or refuses them
// all.
func (b *Broker) book(ctx context.Context, p *auth.Principal, messages, bytes int) error {
	err := b.auth.Spend(ctx, p, auth.Usage{Messages: messages, Bytes: bytes})
	if err == nil {
		return nil
	}
	b.stats.refused.Add(uint64(messages))
	return &Error{Kind: Full, Subject: RateSubject, Message: "nothing was stored", Err: err}
}
