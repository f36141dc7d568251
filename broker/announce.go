package broker

import (
	"sync"

	"millrace/broker/auth"
	"millrace/router"
)

// Announcer publishes what the server tells about itself: below $SYS, which
// only live subscribers get, and $events, which goes into queues and streams as
// well. It is used by one goroutine, and does not wait for the disk.
type Announcer struct {
	p     *Producer
	found []destination
}

// NewAnnouncer returns an Announcer. failed is told of messages of QoS 1 that
// could not be stored; it must not block.
func (b *Broker) NewAnnouncer(failed func(error)) *Announcer {
	system := &auth.Principal{Kind: auth.System, Name: "server"}
	p := b.NewProducer(system, func(os []Outcome) {
		for i := range os {
			if os[i].Err != nil {
				failed(os[i].Err)
			}
		}
	})
	p.stats = new(counters) // no producer offered it
	return &Announcer{p: p}
}

// Heard reports whether anybody subscribes to a topic, or a queue or stream takes
// it: if not, there is no need to say anything.
func (a *Announcer) Heard(topic string) bool {
	a.found = a.p.b.tree.Match(topic, a.found[:0])
	return len(a.found) > 0
}

// Announce takes m, which must not change any more. One with Retain set, of
// $SYS, is kept in memory until the next of its topic, for new subscribers; one
// without a payload takes that away.
func (a *Announcer) Announce(m *Message) {
	c := a.p.open()
	if err := c.announce(a.p.principal, m); err != nil {
		c.refuse(m, 0, err)
	}
	a.p.gathered()
}

// Flush hands over what was announced. It blocks only for back-pressure.
func (a *Announcer) Flush() { a.p.Flush() }

// announce is add without the questions that clients are asked.
func (c *pending) announce(p *auth.Principal, m *Message) error {
	if err := c.b.limits.ValidTopic(m.Topic); err != nil {
		return grammarError(TopicSubject, err)
	}
	space := router.SpaceOf(m.Topic)
	if space != router.SpaceSys && space != router.SpaceEvents {
		return errorf(Invalid, TopicSubject, "topic %q is not the server's own", m.Topic)
	}
	if err := c.b.stamp(p, m, c.b.Now()); err != nil {
		return err
	}
	if m.Retain && space == router.SpaceSys {
		c.b.retained.tell(m)
	}
	live := *m
	live.Retain = false
	r, first, err := c.fit(p, &live)
	if err == nil {
		c.enter(&live, 0, r, first)
	}
	return err
}

// told are retained messages of the server itself, in memory.
type told struct {
	topics router.Names[uint64] // like retained.topics
	mu     sync.RWMutex
	by     map[string]*Message
}

// tell keeps m for new subscribers, or nothing if it has no payload.
func (r *retained) tell(m *Message) {
	if len(m.Payload) == 0 {
		r.told.topics.Delete(m.Topic)
		r.told.forget(m.Topic)
		return
	}
	r.told.mu.Lock()
	if r.told.by == nil {
		r.told.by = map[string]*Message{}
	}
	r.told.by[m.Topic] = m
	r.told.mu.Unlock()
	r.told.topics.Set(m.Topic, r.changes.Add(1))
}

func (t *told) get(topic string) *Message {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.by[topic]
}

func (t *told) forget(topic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, topic)
}
