package broker

// total is a limit of how much there may be in all.
type total uint8

const (
	queuesTotal total = iota
	streamsTotal
	retainedTotal
	storedTotal
	totals // how many there are
)

// Total is one limit of how much there may be in all, and how far it is reached.
type Total struct {
	Name    string // of the setting, behind "limits."
	Now     int64
	Most    int64  // 0 = no limit
	Refused uint64 // for it, since the start
}

// Totals are the limits of how much there may be in all.
func (b *Broker) Totals() []Total {
	b.mu.RLock()
	queues, streams := len(b.queues), len(b.streams)
	b.mu.RUnlock()
	l := b.tuned.Load()
	list := []Total{
		queuesTotal:   {Name: "queues", Now: int64(queues), Most: int64(l.Queues)},
		streamsTotal:  {Name: "streams", Now: int64(streams), Most: int64(l.Streams)},
		retainedTotal: {Name: "retained", Now: int64(b.retained.len()), Most: int64(l.Retained)},
		storedTotal:   {Name: "stored", Now: b.store.Stored(), Most: l.Stored},
	}
	for i := range list {
		list[i].Refused = b.refusals[i].Load()
	}
	return list
}

// full counts a refusal and words it.
func (b *Broker) full(t total, format string, args ...any) error {
	b.refusals[t].Add(1)
	return errorf(Full, LimitSubject, format, args...)
}

// roomForQueue refuses one queue more than there may be, those that are being made among
// them. defining is held.
func (b *Broker) roomForQueue() error {
	b.mu.RLock()
	n := len(b.queues)
	for name := range b.making {
		if b.queues[name] == nil {
			n++
		}
	}
	b.mu.RUnlock()
	most := b.tuned.Load().Queues
	if most == 0 || n < most {
		return nil
	}
	return b.full(queuesTotal, "%d queues are there, and limits.queues allows %d; nothing was made: delete queues, or raise it", n, most)
}

// roomForStream refuses one stream more than there may be. defining is held.
func (b *Broker) roomForStream() error {
	b.mu.RLock()
	n := len(b.streams)
	b.mu.RUnlock()
	most := b.tuned.Load().Streams
	if most == 0 || n < most {
		return nil
	}
	return b.full(streamsTotal, "%d streams are there, and limits.streams allows %d; nothing was made: delete streams, or raise it", n, most)
}

// roomToRetain refuses m if it would be retained for one topic more than there may be.
func (b *Broker) roomToRetain(m *Message) error {
	most := b.tuned.Load().Retained
	if most == 0 || !m.Retain || len(m.Payload) == 0 || b.retained.len() < most {
		return nil
	}
	if _, ok := b.retained.topics.Get(m.Topic); ok {
		return nil
	}
	return b.full(retainedTotal, "%d topics have a retained message, which is the limit, and %q has none; nothing was stored: clear retained messages, or raise limits.retained", most, m.Topic)
}

// roomInStore refuses what would be stored once there is as much as there may be.
// Messages that are there move on all the same: they are delivered, acknowledged,
// dead-lettered and redriven. A queue that drops its oldest is refused, too: the
// room that it would make is not where the room is missing.
func (b *Broker) roomInStore() error {
	most := b.tuned.Load().Stored
	if most == 0 {
		return nil
	}
	if n := b.store.Stored(); n >= most {
		return b.full(storedTotal, "%d bytes are stored, and limits.stored allows %d; nothing more was: consume what waits, purge, delete queues or streams, or raise it", n, most)
	}
	return nil
}
