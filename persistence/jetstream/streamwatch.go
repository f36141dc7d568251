package jetstream

import (
	"context"
	"slices"
	"time"

	"millrace/broker"
)

// JetStream does not say what retention took. The node asks when the oldest
// message is over, while somebody has to know: the subscriptions.

// overFor is how long after its time a message is looked for, and again if the
// servers still have it.
const overFor = time.Second

// state asks what a partition holds, and has the subscriptions know it.
func (p *partition) state(ctx context.Context) (streamState, error) {
	at, err := p.of.s.state(ctx, p.stream)
	if err == nil {
		p.learn(&at)
	}
	return at, err
}

// learn notes what a partition holds.
func (p *partition) learn(at *streamState) {
	t := p.of
	t.mu.Lock()
	first := at.firstOffset()
	cut, more := first > p.first, at.Last > p.next
	if first >= p.first {
		p.first, p.born = first, at.Since
	}
	p.next = max(p.next, at.Last)
	subs := t.subs
	t.mu.Unlock()
	for _, b := range subs {
		if cut {
			b.cutTo(broker.Offset{Partition: p.number, Offset: first})
		}
		if more {
			b.arrived()
		}
	}
}

// limits returns the first offset of a partition and the one after the last.
func (p *partition) limits() (first, next uint64) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	return p.first, p.next
}

// width is how many partitions there are.
func (t *stream) width() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.parts)
}

// watchOut has the partitions looked at when the oldest message that is known is
// over. The lock is held.
func (t *stream) watchOut() {
	if t.watch != nil || t.dropped || len(t.subs) == 0 || t.def.Retention <= 0 {
		return
	}
	t.watch = time.AfterFunc(t.oldestIsOver(), t.look)
}

// oldestIsOver is in how long that is. A message that is not known yet came no
// earlier than now.
func (t *stream) oldestIsOver() time.Duration {
	d := t.def.Retention
	for _, p := range t.parts {
		if p.first < p.next && !p.born.IsZero() {
			d = min(d, t.def.Retention-t.s.Now().Sub(p.born))
		}
	}
	return max(d, 0) + overFor
}

// look asks the partitions what they hold, and again when more is over.
func (t *stream) look() {
	t.s.spawn(func() {
		t.mu.Lock()
		parts := slices.Clone(t.parts)
		t.mu.Unlock()
		for _, p := range parts {
			if _, err := p.state(t.s.ctx); err != nil {
				t.s.log.Debug().Err(err).Str("stream", t.name()).Msg("what retention took is not known yet")
			}
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.watch = nil
		for _, p := range t.parts {
			if p.first < p.next {
				t.watchOut()
				return
			}
		}
	})
}

// subscribe adds a subscription to those that hear of the stream.
func (t *stream) subscribe(b *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = append(slices.Clone(t.subs), b) // the list is read without the lock
	t.watchOut()
}

// unsubscribe takes one out.
func (t *stream) unsubscribe(b *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs = slices.DeleteFunc(slices.Clone(t.subs), func(other *subscription) bool { return other == b })
}

// subscriptions are those of the stream.
func (t *stream) subscriptions() []*subscription {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.subs
}
