package broker

import (
	"context"
	"iter"
	"slices"

	"millrace/broker/auth"
	"millrace/router"
)

// RetainedCount is how many topics have a retained message that a client set.
func (b *Broker) RetainedCount() int { return b.retained.len() }

// RetainedMost is how many there were at once, at most, since the start.
func (b *Broker) RetainedMost() int { return int(b.retained.most.Load()) }

// RetainedPage returns up to limit retained messages of topics that filter
// matches, in order of topic, behind the first skip of them, and whether there
// are more. It asks for the right to view the server. Topics are compared in
// memory; only the messages of the page are read. A message that ends or goes
// meanwhile is missing from the page.
func (b *Broker) RetainedPage(ctx context.Context, filter string, skip, limit int) (ms []*Message, more bool, err error) {
	if err := b.may(ctx, auth.View, auth.Server); err != nil {
		return nil, false, err
	}
	if err := b.CheckFilter(filter); err != nil {
		return nil, false, err
	}
	return b.retainedPage(ctx, b.retained.below(filter).Match(filter), skip, limit)
}

// AllRetained is RetainedPage of all topics that RetainedCount counts.
func (b *Broker) AllRetained(ctx context.Context, skip, limit int) (ms []*Message, more bool, err error) {
	if err := b.may(ctx, auth.View, auth.Server); err != nil {
		return nil, false, err
	}
	return b.retainedPage(ctx, b.retained.topics.All(), skip, limit)
}

func (b *Broker) retainedPage(ctx context.Context, found iter.Seq2[string, uint64], skip, limit int) (ms []*Message, more bool, err error) {
	topics := topicsOf(found)
	slices.Sort(topics)
	topics = topics[min(skip, len(topics)):]
	if more = len(topics) > limit; more {
		topics = topics[:limit]
	}
	now := b.Now().UnixMilli()
	for _, topic := range topics {
		m, err := b.retained.get(ctx, topic, now)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, false, storeError(err)
		}
		ms = append(ms, m)
	}
	return ms, more, nil
}

func topicsOf(found iter.Seq2[string, uint64]) (topics []string) {
	for topic := range found {
		topics = append(topics, topic)
	}
	return topics
}

// ClearRetained removes the retained messages of all topics that filter
// matches, and returns how many. Nothing is published. It asks for the right to
// manage the server.
func (b *Broker) ClearRetained(ctx context.Context, filter string) (int, error) {
	if err := b.may(ctx, auth.Manage, auth.Server); err != nil {
		return 0, err
	}
	if err := b.CheckFilter(filter); err != nil {
		return 0, err
	}
	if router.SpaceOf(filter) == router.SpaceSys {
		return 0, errorf(Invalid, FilterSubject, "what is retained below $SYS is the server's own, and %q clears none of it", filter)
	}
	return b.clearRetained(ctx, b.retained.topics.Match(filter))
}

// ClearAllRetained is ClearRetained of all topics that RetainedCount counts.
func (b *Broker) ClearAllRetained(ctx context.Context) error {
	if err := b.may(ctx, auth.Manage, auth.Server); err != nil {
		return err
	}
	_, err := b.clearRetained(ctx, b.retained.topics.All())
	return err
}

func (b *Broker) clearRetained(ctx context.Context, found iter.Seq2[string, uint64]) (int, error) {
	topics := topicsOf(found)
	for page := range slices.Chunk(topics, removalPage) {
		x := newRemovals(&b.retained, len(page))
		for _, topic := range page {
			x.add(topic, 0)
		}
		x.submit(Durable)
		select {
		case <-x.done:
		case <-ctx.Done():
			return 0, storeError(ErrUnknown)
		}
		for i := range x.list {
			if err := x.list[i].Units[0].Result.Err; err != nil {
				return 0, storeError(err)
			}
		}
	}
	return len(topics), nil
}
