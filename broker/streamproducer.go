package broker

import (
	"context"
	"slices"

	"millrace/broker/auth"
)

// StreamProducer publishes to a stream by its name. What it publishes goes
// through the router like any publish, and into that stream in any case.
type StreamProducer struct {
	b     *Broker
	s     *stream
	topic string
}

// StreamMessage is a message for one stream. Its topic is the producer's.
type StreamMessage struct {
	*Message

	// Partition is where it goes; AnyPartition leaves the choice to its key,
	// then to the turn.
	Partition int
}

// AnyPartition is no choice of a partition.
const AnyPartition = -1

// Placed is the end of one StreamMessage.
type Placed struct {
	Published

	Partition uint32
	Offset    uint64
	// Known says that Partition and Offset are where the message is. A duplicate
	// of a message that retention took has no place.
	Known bool
	Err   error // of the kinds of Publish; Invalid also for a partition that is not there
}

// NewStreamProducer returns a producer for the stream c.Name whose messages have
// the topic c.Filter. A stream that is not there is made as c says if create is
// set, by whoever may publish: it is that topic kept, and nothing more.
//
// Errors: Invalid, Forbidden, NotFound.
func (b *Broker) NewStreamProducer(ctx context.Context, c StreamConfig, create bool) (*StreamProducer, error) {
	if err := b.CheckTopic(c.Filter); err != nil {
		return nil, err
	}
	if err := b.may(ctx, auth.Publish, auth.TopicResource(c.Filter)); err != nil {
		return nil, err
	}
	s := b.streamNamed(c.Name)
	if s == nil && create {
		if b.closed.Load() {
			return nil, errClosed
		}
		if err := b.validateStream(&c); err != nil {
			return nil, err
		}
		b.defining.Lock()
		defer b.defining.Unlock()
		if s = b.streamNamed(c.Name); s == nil {
			var err error
			if s, err = b.defineStream(ctx, &c); err != nil {
				return nil, err
			}
		}
	}
	if s == nil {
		return nil, noStream(c.Name)
	}
	if s.config().Filter != c.Filter { // it is more than the topic kept
		if err := b.may(ctx, auth.Publish, auth.StreamResource(c.Name)); err != nil {
			return nil, err
		}
	}
	return &StreamProducer{b, s, c.Filter}, nil
}

// Partitions is how many the stream has.
func (p *StreamProducer) Partitions() int { return p.s.config().Partitions }

// Incarnation tells this stream from others that had or will have its name.
func (p *StreamProducer) Incarnation() uint64 { return uint64(p.s.target) }

// Publish publishes each of ms for itself, in order, with one wait for all. The
// outcomes of those that failed have an error. When ctx ends first, the error
// is Unknown. Over the rates of who asks none is published, and the error is
// Full. The messages and their bytes must not change any more.
func (p *StreamProducer) Publish(ctx context.Context, ms []StreamMessage) ([]Placed, error) {
	principal := auth.From(ctx)
	all := make([]*Message, len(ms))
	for i := range ms {
		all[i] = ms[i].Message
	}
	if err := p.b.spend(ctx, principal, all); err != nil {
		p.b.stats.refused.Add(uint64(len(ms)))
		return nil, err
	}
	trace(ctx, all)
	w := &waitingPublish{done: make(chan struct{}), outcomes: make([]Outcome, 0, len(ms))}
	c := p.b.newPending(w)
	c.every = true
	for i := range ms {
		m := &ms[i]
		m.Topic = p.topic
		if err := c.addTo(p.s, m.Partition, principal, m.Message, uint64(i)); err != nil {
			c.refuse(m.Message, uint64(i), err)
		}
		c.closeUnit()
	}
	if len(c.batch.Ops) == 0 {
		c.Done(&c.batch)
	} else {
		c.submit()
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return nil, storeError(ErrUnknown)
	}
	placed := make([]Placed, len(ms))
	for i := range placed {
		at, o := &placed[i], &w.outcomes[i]
		at.Published, at.Err = o.Published, o.Err
		switch u := &c.batch.Units[c.publishes[i].unit]; {
		case o.Err != nil:
		case o.Duplicate:
			p.find(ctx, ms[i].Partition, ms[i].Message, at)
		default:
			at.Partition, at.Offset, at.Known = c.batch.Ops[u.First].Routes[0].Partition, u.Result.Seq, true
		}
	}
	return placed, nil
}

// addTo is add with s as the first route of m, whatever its topic matches.
func (c *pending) addTo(s *stream, partition int, p *auth.Principal, m *Message, tag uint64) error {
	if n := s.config().Partitions; partition >= n {
		return fieldError("partition", "is %d; stream %q has %d, counted from 0", partition, s.config().Name, n)
	}
	if err := c.b.admit(p, m, c.b.Now()); err != nil {
		return err
	}
	first := len(c.subs)
	var r matches
	r, c.found, c.routes, c.subs = c.b.match(p, m, c.found, c.routes[:0], c.subs)
	i := slices.IndexFunc(c.routes, func(r Route) bool { return r.Target == s.target })
	if i < 0 {
		i = len(c.routes)
		c.routes = append(c.routes, Route{Target: s.target, Partition: c.b.partition(s, p, m)})
		r.Streams++
		r.durability = c.b.durability
	}
	c.routes[0], c.routes[i] = c.routes[i], c.routes[0]
	if partition >= 0 {
		c.routes[0].Partition = uint32(partition)
	}
	if m.NotBefore > m.Published {
		c.routes, c.subs = append(c.routes, Route{Target: c.b.delayed.target}), c.subs[:first]
	}
	c.append(m, tag, r, c.routes, first)
	return nil
}

// find looks for the place of the message that m repeats: among the entries of
// about the time at which that one was published.
func (p *StreamProducer) find(ctx context.Context, partition int, m *Message, at *Placed) {
	const page, pages = 100, 10
	first, last := uint32(0), uint32(p.Partitions()-1)
	switch {
	case partition >= 0:
		first, last = uint32(partition), uint32(partition)
	case m.Key != "":
		first = murmur2(m.Key) % uint32(p.Partitions())
		last = first
	}
	var ds []Delivery
	for n := first; n <= last; n++ {
		from := Pos{Partition: n, Time: Time(int64(at.ID.Time()))}
		for range pages {
			var err error
			if ds, err = p.b.store.Read(ctx, p.s.target, from, page, ds[:0]); err != nil || len(ds) == 0 {
				break
			}
			for i := range ds {
				if ds[i].ID == at.ID {
					at.Partition, at.Offset, at.Known = n, ds[i].Seq, true
					return
				}
			}
			from = Pos{Partition: n, Seq: ds[len(ds)-1].Seq + 1}
		}
	}
}
