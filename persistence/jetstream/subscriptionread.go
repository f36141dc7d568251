package jetstream

import (
	"context"

	"millrace/broker"
	"millrace/persistence/ref"
)

// browse lists what read shows: partition by partition, and in each what was handed
// out before what was not.
func (b *subscription) browse(p broker.Pos, limit int) (picks []pick) {
	b.mu.Lock()
	defer b.mu.Unlock()
	skip := uint64(p.Skip)
	show := func(e *pending, st broker.EntryState) {
		k := pick{e: &pending{seq: e.seq}}
		b.address(&k.d, e)
		k.d.State = st
		if st == broker.Dead {
			k.d.Reason = e.why
		}
		picks = append(picks, k)
	}
	for n := range uint32(b.of.width()) {
		ln := b.lane(n)
		ln.open.Scan(func(_ uint64, e *pending) bool {
			st := e.state.shown()
			switch {
			case st&p.States == 0:
			case skip > 0:
				skip--
			case len(picks) < limit:
				show(e, st)
			}
			return len(picks) < limit
		})
		if p.States&broker.Ready == 0 {
			continue
		}
		first, end := ln.p.limits()
		next := max(ln.next, first)
		passed := min(skip, end-min(next, end))
		skip -= passed
		for o := next + passed; o < end && len(picks) < limit; o++ {
			show(&pending{seq: ref.Sequence(broker.Offset{Partition: n, Offset: o})}, broker.Ready)
		}
	}
	return picks
}

// read implements target. It leases nothing.
func (b *subscription) read(ctx context.Context, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	picks := b.browse(p, limit)
	found := make([]broker.Delivery, len(picks))
	for i := range picks {
		found[i] = picks[i].d
	}
	if err := b.fetch(ctx, picks, 0); err != nil {
		return dst, err
	}
	for i := range picks {
		k := &picks[i]
		if k.fate == lost {
			continue
		}
		d := &found[i]
		d.Message, d.Queued = k.d.Message, k.d.Queued
		dst = append(dst, *d)
	}
	return dst, nil
}
