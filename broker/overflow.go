package broker

import (
	"sync/atomic"
	"time"
)

// overflowAlarm is how long an alarm stands after messages were dropped.
const overflowAlarm = time.Minute

// second tells the first call of each second from those that follow it.
type second struct{ last atomic.Int64 }

func (s *second) first() bool {
	now := time.Now().Unix()
	last := s.last.Load()
	return last != now && s.last.CompareAndSwap(last, now)
}

// overflow raises the alarm of a queue that dropped messages.
func (b *Broker) overflow(q *queue) {
	if !q.overflowed.first() {
		return
	}
	name := q.config().Name
	b.opts.Alarms.RaiseFor(overflowAlarm, "queue_overflow:"+name,
		"the queue is full and drops its oldest messages: consume from it, or raise its limits", map[string]any{"queue": name})
}

// overflow raises the alarm of sessions that dropped messages.
func (ss *sessions) overflow() {
	if !ss.overflowed.first() {
		return
	}
	ss.b.opts.Alarms.RaiseFor(overflowAlarm, "session_overflow",
		"sessions of clients that are away or slow are full, and messages are dropped: look at mqueue_len of the clients, or raise mqtt.max_session_queue", nil)
}
