package broker

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"millrace/broker/auth"
	"millrace/router"
)

// retained is the newest retained message of each topic, MQTT 5 section
// 3.3.1.3. The messages live in the store, each written in the commit of the
// publish that set it; here is only the index by topic, and when those end
// that have an expiry.
type retained struct {
	b       *Broker
	changes atomic.Uint64 // since the start
	most    atomic.Int64  // topics at once, since the start
	// topics are those of clients, with the number of the change that set each, 0
	// if it is older than the process.
	topics router.Names[uint64]
	told   told // those of the server
	sweep  sweep
}

// now is the time that expiries count in: that of messages.
func (r *retained) now() int64 { return r.b.Now().UnixMilli() }

// load reads which topics have a retained message, and when it ends.
func (r *retained) load(ctx context.Context) error {
	r.sweep.init()
	return r.b.store.List(ctx, SpaceRetained, "", func(e Entry) bool {
		r.set(e.Key, 0, endOf(e.Value))
		return true
	})
}

// len is how many topics have a message that a client set.
func (r *retained) len() int { return r.topics.Len() }

// below are the topics that a filter is about: those below $SYS, which no
// wildcard finds, are the server's.
func (r *retained) below(filter string) *router.Names[uint64] {
	if router.SpaceOf(filter) == router.SpaceSys {
		return &r.told.topics
	}
	return &r.topics
}

// endOf is when a recorded message ends. If it cannot be read, its readers are told.
func endOf(value []byte) int64 {
	var m Message
	if DecodeMessage(value, &m) != nil {
		return 0
	}
	return m.Expires
}

// follow goes by what was recorded of a topic, on this node or another.
func (r *retained) follow(e Entry) {
	if e.Value == nil {
		r.forget(e.Key)
		return
	}
	r.set(e.Key, r.changes.Add(1), endOf(e.Value))
}

// set puts a topic into the index.
func (r *retained) set(topic string, change uint64, end int64) {
	r.topics.Set(topic, change)
	r.sweep.set(topic, end)
	for n, most := int64(r.topics.Len()), r.most.Load(); n > most && !r.most.CompareAndSwap(most, n); {
		most = r.most.Load()
	}
}

// record appends the change that m makes to the unit of its publish: an empty
// payload clears, anything else replaces.
func (r *retained) record(b *Batch, m *Message) {
	var value []byte
	if len(m.Payload) > 0 {
		value = AppendMessage(make([]byte, 0, SizeBound(m)), m)
	}
	b.Put(SpaceRetained, m.Topic, value, 0)
}

// committed brings the index up to date; it comes before the producer's answer.
// In a shared store follow has done that, in the order of all nodes.
func (r *retained) committed(m *Message) {
	switch {
	case r.b.cluster != nil:
	case len(m.Payload) == 0:
		r.forget(m.Topic)
	default:
		r.set(m.Topic, r.changes.Add(1), m.Expires)
	}
}

// forget takes a topic out of the index: the store has nothing for it.
func (r *retained) forget(topic string) {
	r.topics.Delete(topic)
	r.sweep.set(topic, 0)
}

// get returns the retained message of a topic, if it has one that has not expired.
func (r *retained) get(ctx context.Context, topic string, now int64) (*Message, error) {
	if router.SpaceOf(topic) == router.SpaceSys {
		if m := r.told.get(topic); m != nil {
			return m, nil
		}
		return nil, ErrNotFound
	}
	m, _, err := r.read(ctx, topic)
	if err != nil {
		return nil, err
	}
	if m.Expires != 0 && m.Expires <= now {
		r.sweep.set(topic, m.Expires)
		return nil, ErrNotFound
	}
	return m, nil
}

// read reads what the store has for a topic, with its revision.
func (r *retained) read(ctx context.Context, topic string) (*Message, uint64, error) {
	e, err := r.b.store.Get(ctx, SpaceRetained, topic)
	if err != nil {
		return nil, 0, err
	}
	m := new(Message)
	if err := DecodeMessage(e.Value, m); err != nil {
		return nil, 0, fmt.Errorf("retained message of %q: %w", topic, err)
	}
	return m, e.Rev, nil
}

// RetainedMark is the present for RetainedAt. A subscriber that asks for it
// after Subscribe gets live whatever is set later.
func (b *Broker) RetainedMark() uint64 { return b.retained.changes.Load() }

// Retained calls f with the retained message of every topic that filter
// matches and p may subscribe to, until f returns false. The cost follows the
// matches, not the number of retained messages. Messages set or cleared
// meanwhile may be seen or not.
func (b *Broker) Retained(ctx context.Context, p *auth.Principal, filter string, f func(*Message) bool) error {
	return b.RetainedAt(ctx, p, filter, math.MaxUint64, f)
}

// RetainedAt is Retained for a reader that takes its time: topics that were
// set after mark are left out. Each message is read when its turn comes.
func (b *Broker) RetainedAt(ctx context.Context, p *auth.Principal, filter string, mark uint64, f func(*Message) bool) error {
	if err := b.CheckFilter(filter); err != nil {
		return err
	}
	topics := b.retained.below(filter)
	for topic := range topics.Match(filter) {
		if !b.auth.Allow(p, auth.Subscribe, auth.TopicResource(topic)) {
			continue
		}
		m, err := b.retained.get(ctx, topic, b.Now().UnixMilli())
		if err != nil {
			if isGone(err) {
				continue
			}
			return storeError(err)
		}
		if set, _ := topics.Get(topic); set > mark {
			continue
		}
		if !f(m) {
			return nil
		}
	}
	return nil
}
