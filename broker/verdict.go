package broker

import (
	"sync/atomic"

	"millrace/broker/auth"
)

// verdicts keeps what was decided about the last topics of a subscription, so
// that a fan-out under rules costs what one without costs. Each holds until
// users, keys or rules change.
type verdicts [8]atomic.Pointer[verdict]

type verdict struct {
	topic      string
	generation uint64
	allowed    bool
}

// verdictsFor returns room for verdicts, nil where none is needed.
func verdictsFor(ask bool) *verdicts {
	if ask {
		return new(verdicts)
	}
	return nil
}

// allow is auth.Allow for a delivery of topic to p; nil allows all. A principal
// that ends by itself is asked about each time.
func (vs *verdicts) allow(a *auth.Auth, p *auth.Principal, topic string) bool {
	switch {
	case vs == nil:
		return true
	case p == nil || !p.Expires().IsZero():
		return a.Allow(p, auth.Subscribe, auth.TopicResource(topic))
	}
	generation := a.Generation() // before asking: a change meanwhile ends the verdict
	slot := &vs[slotOf(topic)]
	if v := slot.Load(); v != nil && v.generation == generation && v.topic == topic {
		return v.allowed
	}
	allowed := a.Allow(p, auth.Subscribe, auth.TopicResource(topic))
	slot.Store(&verdict{topic, generation, allowed})
	return allowed
}

// slotOf spreads topics by their end, where those of one filter differ most.
func slotOf(topic string) uint {
	h := uint(len(topic))
	for i := max(0, len(topic)-8); i < len(topic); i++ {
		h = h*31 + uint(topic[i])
	}
	return h % uint(len(verdicts{}))
}
