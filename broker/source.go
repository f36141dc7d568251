package broker

import (
	"context"
	"time"

	"millrace/broker/auth"
)

// Source is what hands out messages and takes their settlements: a queue, or a
// subscription on a stream. Whoever holds one was asked for the right to consume.
type Source struct {
	b      *Broker
	q      *queue
	filter string // of topics; "" = all
}

// FromQueue returns a queue as a Source. Errors: Forbidden, NotFound.
func (b *Broker) FromQueue(ctx context.Context, queue string) (Source, error) {
	q, err := b.lookup(ctx, auth.Consume, queue)
	return Source{b: b, q: q}, err
}

// FromSubscription returns a subscription as a Source. Errors: Forbidden,
// NotFound of the stream or the subscription.
func (b *Broker) FromSubscription(ctx context.Context, stream, name string) (Source, error) {
	q, err := b.lookupSubscription(ctx, stream, name)
	return Source{b: b, q: q}, err
}

// Part returns the part of a queue whose messages were published to topics that
// match filter. Receive and Consume take nothing else from it, at no cost for
// what is in between, and leave that to others. Errors: Invalid when the filter
// is none, or when a part cannot be taken from this source or in this store.
func (s Source) Part(filter string) (Source, error) {
	if err := s.b.CheckFilter(filter); err != nil {
		return s, err
	}
	if s.q.stream != nil || !s.b.store.State().Selective {
		return s, errorf(Invalid, NoSubject, "a part of %s cannot be taken here; receive all of it", s.q)
	}
	s.filter = filter
	return s, nil
}

// Durability is what a positive answer about the source means.
func (s Source) Durability() Durability { return s.b.promise(s.q) }

// Receive is FromQueue and Source.Receive.
func (b *Broker) Receive(ctx context.Context, queue string, o ReceiveOptions) ([]Received, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	return s.Receive(ctx, o)
}

// ReceiveAttempt is FromQueue and Source.ReceiveAttempt.
func (b *Broker) ReceiveAttempt(ctx context.Context, queue, id string, o ReceiveOptions) ([]Received, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	return s.ReceiveAttempt(ctx, id, o)
}

// Ack is FromQueue and Source.Ack.
func (b *Broker) Ack(ctx context.Context, queue string, id ID, receipt string) (AckState, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return "", err
	}
	return s.Ack(ctx, id, receipt)
}

// AckBatch is FromQueue and Source.AckBatch.
func (b *Broker) AckBatch(ctx context.Context, queue string, ss []Settlement) ([]AckResult, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	return s.AckBatch(ctx, ss)
}

// Nack is FromQueue and Source.Nack.
func (b *Broker) Nack(ctx context.Context, queue string, id ID, receipt string, delay time.Duration) (time.Duration, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return 0, err
	}
	return s.Nack(ctx, id, receipt, delay)
}

// Extend is FromQueue and Source.Extend.
func (b *Broker) Extend(ctx context.Context, queue string, id ID, receipt string, d time.Duration) (time.Time, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return time.Time{}, err
	}
	return s.Extend(ctx, id, receipt, d)
}

// Browse is FromQueue and Source.Browse.
func (b *Broker) Browse(ctx context.Context, queue string, states EntryState, skip, limit int) ([]Delivery, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	return s.Browse(ctx, states, skip, limit)
}

// Consume is FromQueue and Source.Consume.
func (b *Broker) Consume(ctx context.Context, queue string, sink ConsumerSink) (*Consumer, error) {
	s, err := b.FromQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	return s.Consume(sink)
}
