package broker

import (
	"context"
	"slices"

	"millrace/broker/auth"
)

// StreamProducer publishes to a stream by its name, for the principal that asked
// for it. What it publishes goes through the router like any publish, and into
// that stream in any case. Whether it may is asked when it is made, so that it
// is good for one request and not to be kept.
type StreamProducer struct {
	b         *Broker
	s         *stream
	principal *auth.Principal
	topic     string
}

// StreamMessage is a message for one stream, and what became of it. Its topic is
// the producer's.
type StreamMessage struct {
	*Message

	// Partition is where it goes; AnyPartition leaves the choice to its key,
	// then to the turn.
	Partition int
	// Placed is filled in by Publish.
	Placed Placed
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
// Errors: Invalid, Forbidden, NotFound, Full when there are as many streams as
// there may be.
func (b *Broker) NewStreamProducer(ctx context.Context, c StreamConfig, create bool) (StreamProducer, error) {
	p := StreamProducer{b: b, s: b.streamNamed(c.Name), principal: auth.From(ctx), topic: c.Filter}
	if err := b.CheckTopic(c.Filter); err != nil {
		return p, err
	}
	if err := b.permit(p.principal, auth.Publish, auth.TopicResource(c.Filter)); err != nil {
		return p, err
	}
	if p.s == nil && create {
		var err error
		if p.s, err = b.keepTopic(ctx, c); err != nil {
			return p, err
		}
	}
	if p.s == nil {
		return p, noStream(c.Name)
	}
	if p.s.config().Filter != c.Filter { // it is more than the topic kept
		return p, b.permit(p.principal, auth.Publish, auth.StreamResource(c.Name))
	}
	return p, nil
}

// keepTopic makes the stream that a producer asks for, unless it is there.
func (b *Broker) keepTopic(ctx context.Context, c StreamConfig) (*stream, error) {
	if b.closed.Load() {
		return nil, errClosed
	}
	if err := b.validateStream(&c); err != nil {
		return nil, err
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	if s := b.streamNamed(c.Name); s != nil {
		return s, nil
	}
	return b.defineStream(ctx, &c)
}

// Partitions is how many the stream has.
func (p *StreamProducer) Partitions() int { return p.s.config().Partitions }

// Incarnation tells this stream from others that had or will have its name.
func (p *StreamProducer) Incarnation() uint64 { return uint64(p.s.target) }

// Publish publishes each of ms for itself, in order, with one wait for all, and
// says of each what became of it. When ctx ends first, the error is Unknown. The
// messages and their bytes must not change any more.
//
// Errors, of all at once: Full (a rate; nothing was stored), Unknown.
func (p *StreamProducer) Publish(ctx context.Context, ms []StreamMessage) error {
	size := 0
	for i := range ms {
		size += len(ms[i].Payload)
	}
	if err := p.b.book(ctx, p.principal, len(ms), size); err != nil {
		return err
	}
	trace := traceFrom(ctx)
	w := p.b.newWaitingPublish()
	for i := range ms {
		m := &ms[i]
		m.Topic = p.topic
		trace.mark(m.Message)
		if err := p.add(&w.pending, m, uint64(i)); err != nil {
			w.refuse(m.Message, uint64(i), err)
		}
		w.closeUnit()
	}
	if err := w.commit(ctx); err != nil {
		return err
	}
	defer w.release()
	for i := range ms {
		m, o := &ms[i], &w.outcomes[i]
		at := &m.Placed
		at.Published, at.Err = o.Published, o.Err
		switch u := &w.batch.Units[w.publishes[i].unit]; {
		case o.Err != nil:
		case o.Duplicate:
			p.find(ctx, m.Partition, m.Message, at)
		default:
			at.Partition, at.Offset, at.Known = w.batch.Ops[u.First].Routes[0].Partition, u.Result.Seq, true
		}
	}
	return nil
}

// add appends m with the stream as its first route, whatever its topic matches.
func (p *StreamProducer) add(c *pending, m *StreamMessage, tag uint64) error {
	if n := p.Partitions(); m.Partition >= n {
		return fieldError("partition", "is %d; stream %q has %d, counted from 0", m.Partition, p.s.config().Name, n)
	}
	if err := p.b.overloaded(); err != nil {
		return err
	}
	if err := p.b.roomInStore(); err != nil {
		return err
	}
	if err := p.b.stamp(p.principal, m.Message, p.b.Now()); err != nil {
		return err
	}
	r, first := c.match(p.principal, m.Message)
	i := slices.IndexFunc(c.routes, func(r Route) bool { return r.Target == p.s.target })
	if i < 0 {
		i = len(c.routes)
		c.routes = append(c.routes, Route{Target: p.s.target, Partition: p.b.partition(p.s, p.principal, m.Message)})
		r.Streams++
		r.durability = p.b.durability
	}
	p.b.countIn(m.Message, r.Matched)
	c.routes[0], c.routes[i] = c.routes[i], c.routes[0]
	if m.Partition >= 0 {
		c.routes[0].Partition = uint32(m.Partition)
	}
	c.append(m.Message, tag, r, c.routes, first)
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
