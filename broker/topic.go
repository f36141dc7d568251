package broker

import (
	"time"

	"millrace/router"
)

// CheckTopic reports an *Error (Invalid, TopicSubject) when topic breaks the
// grammar of MQTT 5 section 4.7, a limit, or is reserved and so not open to
// publishers.
func (b *Broker) CheckTopic(topic string) error {
	if err := b.limits.ValidTopic(topic); err != nil {
		return grammarError(TopicSubject, err)
	}
	if topic[0] == '$' && router.Reserved(topic) {
		return errorf(Invalid, TopicSubject,
			"topic %q is reserved: clients do not publish below $SYS, $events, $queue, $stream, $q, $share or $delayed", topic)
	}
	return nil
}

// CheckPublishTopic is CheckTopic for a name as publishers may write it: with
// "$delayed/SECONDS/" before the topic, too.
func (b *Broker) CheckPublishTopic(name string) error {
	if router.SpaceOf(name) != router.SpaceDelayed {
		return b.CheckTopic(name)
	}
	delay, topic, err := splitDelayed(name)
	switch {
	case err != nil:
		return err
	case delay > MaxDelay:
		return errorf(Invalid, TopicSubject, "topic %q delays by more than %d seconds, which is the limit", name, MaxDelay/time.Second)
	}
	return b.CheckTopic(topic)
}

// CheckFilter reports an *Error (Invalid, FilterSubject) when filter breaks the
// grammar of MQTT 5 section 4.7, or a limit.
func (b *Broker) CheckFilter(filter string) error {
	if err := b.limits.ValidFilter(filter); err != nil {
		return grammarError(FilterSubject, err)
	}
	return nil
}

func grammarError(s Subject, err error) error {
	return &Error{Kind: Invalid, Subject: s, Message: err.Error()}
}
