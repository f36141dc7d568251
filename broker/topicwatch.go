package broker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MaxWatchedTopics bounds the topics whose messages are counted apart.
const MaxWatchedTopics = 512

// watchPrefix begins the keys of watched topics; the value is when it began.
const watchPrefix = "topic-watch/"

// TopicCounts are messages of one topic.
type TopicCounts struct {
	In, Out [3]int64 // taken from publishers, and sent to MQTT clients, by QoS
	Dropped int64    // of those taken: nobody was there for it
}

func (c *TopicCounts) minus(o *TopicCounts) (d TopicCounts) {
	for qos := range c.In {
		d.In[qos], d.Out[qos] = c.In[qos]-o.In[qos], c.Out[qos]-o.Out[qos]
	}
	d.Dropped = c.Dropped - o.Dropped
	return d
}

// WatchedTopic is a topic that is watched, and what was counted since then, or
// since the last reset, and in the last second.
type WatchedTopic struct {
	Topic            string
	Created, Reset   time.Time // Reset is zero until there was one
	Total, PerSecond TopicCounts
}

// topicWatch counts the messages of one topic.
type topicWatch struct {
	in, out [3]atomic.Int64
	dropped atomic.Int64

	created time.Time

	// Guarded by watches.mu.
	reset              time.Time
	base, last, recent TopicCounts // at the reset, a second ago, and within that second
}

func (w *topicWatch) counts() (c TopicCounts) {
	for qos := range w.in {
		c.In[qos], c.Out[qos] = w.in[qos].Load(), w.out[qos].Load()
	}
	c.Dropped = w.dropped.Load()
	return c
}

// watches are all of them. Publishers and deliveries read the map without a
// lock; there is none as long as nothing is watched. Broker.defining orders who
// changes it, or the events of a Cluster do.
type watches struct {
	byTopic atomic.Pointer[map[string]*topicWatch]
	mu      sync.Mutex // protects fields of the topicWatches
}

func (ws *watches) of(topic string) *topicWatch {
	all := ws.byTopic.Load()
	if all == nil {
		return nil
	}
	return (*all)[topic]
}

// all returns a copy.
func (ws *watches) all() map[string]*topicWatch {
	if p := ws.byTopic.Load(); p != nil {
		return maps.Clone(*p)
	}
	return map[string]*topicWatch{}
}

// set puts another map in force.
func (ws *watches) set(all map[string]*topicWatch) {
	if len(all) == 0 {
		ws.byTopic.Store(nil)
		return
	}
	ws.byTopic.Store(&all)
}

func (ws *watches) load(ctx context.Context, keys *Keys) error {
	kept, err := keys.List(ctx, watchPrefix)
	if err != nil {
		return err
	}
	for key, value := range kept {
		if err := ws.follow(strings.TrimPrefix(key, watchPrefix), value); err != nil {
			return fmt.Errorf("key %s: %w", key, err)
		}
	}
	return nil
}

// follow goes by what is recorded of a topic; nil = nothing.
func (ws *watches) follow(topic string, value []byte) error {
	all := ws.all()
	switch {
	case value == nil:
		delete(all, topic)
	case all[topic] == nil:
		w := &topicWatch{}
		if err := w.created.UnmarshalText(value); err != nil {
			return err
		}
		all[topic] = w
	}
	ws.set(all)
	return nil
}

// watch records whether a topic is watched, and goes by it.
func (b *Broker) watch(ctx context.Context, topic string, value []byte) error {
	if err := NewKeys(b.store, SpaceSystem).write(ctx, watchPrefix+topic, value); err != nil {
		return err
	}
	if b.cluster != nil {
		return nil // told to all nodes
	}
	return b.watches.follow(topic, value)
}

// countIn counts a message that was taken.
func (b *Broker) countIn(m *Message, to Matched) {
	if w := b.watches.of(m.Topic); w != nil {
		w.in[m.QoS].Add(1)
		if to == (Matched{}) {
			w.dropped.Add(1)
		}
	}
}

// CountOut counts a message of topic that was sent to an MQTT client.
func (b *Broker) CountOut(topic string, qos byte) {
	if w := b.watches.of(topic); w != nil {
		w.out[qos].Add(1)
	}
}

// WatchTopic has the messages of a topic counted apart. It returns nil when the
// topic would be watched after a restart as well, where counting begins anew; it
// is a Conflict where it is watched already, and Full where MaxWatchedTopics are.
func (b *Broker) WatchTopic(ctx context.Context, topic string) error {
	if err := b.CheckTopic(topic); err != nil {
		return err
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	all := b.watches.all()
	switch {
	case all[topic] != nil:
		return errorf(Conflict, TopicSubject, "topic %q is watched already", topic)
	case len(all) >= MaxWatchedTopics:
		return errorf(Full, TopicSubject, "%d topics are watched, which is the limit: end one first", MaxWatchedTopics)
	}
	value, err := b.Now().UTC().MarshalText()
	if err != nil {
		return err
	}
	return b.watch(ctx, topic, value)
}

// UnwatchTopic ends that. It is NotFound where the topic was not watched.
func (b *Broker) UnwatchTopic(ctx context.Context, topic string) error {
	b.defining.Lock()
	defer b.defining.Unlock()
	if b.watches.of(topic) == nil {
		return notWatched(topic)
	}
	return b.watch(ctx, topic, nil)
}

func notWatched(topic string) error {
	return errorf(NotFound, TopicSubject, "topic %q is not watched", topic)
}

// ResetTopic begins to count anew, for all topics where topic is "".
func (b *Broker) ResetTopic(topic string) error {
	b.watches.mu.Lock()
	defer b.watches.mu.Unlock()
	all := b.watches.all()
	if topic != "" && all[topic] == nil {
		return notWatched(topic)
	}
	now := b.Now().UTC()
	for name, w := range all {
		if topic == "" || topic == name {
			w.reset, w.base = now, w.counts()
		}
	}
	return nil
}

// WatchedTopics lists the topics that are watched, by name.
func (b *Broker) WatchedTopics() []WatchedTopic {
	b.watches.mu.Lock()
	defer b.watches.mu.Unlock()
	list := []WatchedTopic{}
	for topic, w := range b.watches.all() {
		now := w.counts()
		list = append(list, WatchedTopic{
			Topic: topic, Created: w.created, Reset: w.reset, Total: now.minus(&w.base), PerSecond: w.recent,
		})
	}
	slices.SortFunc(list, func(x, y WatchedTopic) int { return cmp.Compare(x.Topic, y.Topic) })
	return list
}

// SampleTopics notes what was counted since it was called last; whoever keeps
// the history calls it each second.
func (b *Broker) SampleTopics() {
	b.watches.mu.Lock()
	defer b.watches.mu.Unlock()
	for _, w := range b.watches.all() {
		now := w.counts()
		w.recent, w.last = now.minus(&w.last), now
	}
}
