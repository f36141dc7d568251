package broker

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"
)

// maxHops is how often one message can be dead-lettered before it is dropped
// and counted: a ring of queues that dead-letter into each other ends.
const maxHops = 16

// The user properties that a dead letter carries beside its own.
const (
	PropertyOriginQueue   = "origin-queue"
	PropertyOriginalTopic = "original-topic"
	PropertyOriginalID    = "original-id"
	PropertyAttempts      = "attempts"
	PropertyReason        = "dead-letter-reason"
	PropertyDeadTime      = "dead-letter-time"
)

// deadProperties is how many of them each dead-lettering appends.
const deadProperties = 6

// deadLetters answers what the store tells has lapsed: each message is
// published to the dead-letter topic of its queue and removed in one commit,
// or parked as dead when no queue or stream took it.
type deadLetters struct {
	b    *Broker
	once sync.Once
	stop chan struct{}
	wake chan struct{} // holds one
	done sync.WaitGroup

	mu     sync.Mutex // protects lapsed
	lapsed []lapsed

	stats counters // no producer offered them again
}

// lapsed is a number of messages that the store holds for the broker.
type lapsed struct {
	target Target
	why    Reason
	ds     []Delivery
}

func startDeadLetters(b *Broker) *deadLetters {
	d := &deadLetters{b: b, stop: make(chan struct{}), wake: make(chan struct{}, 1)}
	d.done.Go(d.run)
	return d
}

func (d *deadLetters) close(ctx context.Context) error {
	d.once.Do(func() { close(d.stop) })
	ended := make(chan struct{})
	go func() { d.done.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Lapsed implements Events.
func (d *deadLetters) Lapsed(t Target, why Reason, ds []Delivery) {
	d.mu.Lock()
	d.lapsed = append(d.lapsed, lapsed{t, why, ds})
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Dropped implements Events.
func (d *deadLetters) Dropped(t Target, why Reason, n int) {
	q := d.b.byTarget(t)
	switch {
	case why == ReasonOverflow && q == nil:
		add(&d.b.stats.overflowed, n)
		d.b.sessions.overflow()
	case why == ReasonExpired && q == nil && t != d.b.delayed.target:
		add(&d.b.stats.outlived, n)
	case why == ReasonOverflow:
		d.b.log.Debug().Str("queue", q.config().Name).Int("messages", n).Msg("queue full, oldest messages dropped")
		d.b.overflow(q)
	case why == ReasonRetention && q != nil && q.stream != nil:
		d.b.log.Warn().Str("subscription", q.origin()).Int("messages", n).Msg("retention of the stream took messages that were not acknowledged")
	}
}

func (d *deadLetters) run() {
	for {
		select {
		case <-d.stop:
			return
		case <-d.wake:
		}
		d.mu.Lock()
		work := d.lapsed
		d.lapsed = nil
		d.mu.Unlock()
		for _, l := range work {
			if q := d.b.byTarget(l.target); q != nil {
				d.settle(q, l)
			}
		}
	}
}

// settle ends a number of lapsed messages of one queue. What the store refuses
// for good stays held, and is told again after the next start.
func (d *deadLetters) settle(q *queue, l lapsed) {
	w := d.b.newWaitingPublish() // never released: it counts elsewhere
	p := &w.pending
	p.stats, p.lazy = &d.stats, false
	for i := range l.ds {
		d.decide(p, q, l, i)
	}
	p.submit()
	<-w.done
	var park []Delivery
	for i := range p.publishes {
		if e := p.publishes[i].outcome.Err; e != nil && (KindOf(e) == Full || KindOf(e) == Damaged) {
			park = append(park, l.ds[p.publishes[i].outcome.Tag])
		}
	}
	d.park(park, l.why)
}

// decide appends one unit: the dead letter with the removal of its original,
// or the removal alone, or the parking.
func (d *deadLetters) decide(p *pending, q *queue, from lapsed, i int) {
	c, why, l := q.config(), from.why, &from.ds[i]
	switch {
	case len(l.Origins) >= maxHops:
		p.batch.Settle(l.Ref, ReasonHops)
		p.batch.End()
		return
	case why == ReasonAttempts && c.DropExhausted:
		p.batch.Settle(l.Ref, ReasonAttempts)
		p.batch.End()
		return
	case c.DeadLetterTopic != "":
		now := d.b.Now()
		m := deadLetter(q, why, l, d.b.ids.next(now), now)
		ops, pubs := len(p.batch.Ops), len(p.publishes)
		p.route(nil, m, uint64(i))
		if len(p.batch.Ops) > ops {
			// What sessions alone took is still nobody's to work on.
			if m := p.publishes[pubs].outcome.Matched; m.Queues+m.Streams > 0 {
				p.batch.Settle(l.Ref, ReasonDeadLettered)
			} else {
				p.keep(l.Ref, why)
			}
			p.closeUnit()
			return
		}
		p.publishes = p.publishes[:pubs] // nothing durable took it
	}
	p.keep(l.Ref, why)
	p.batch.End()
}

// keep appends what becomes of a lapsed message that no queue or stream took.
func (c *pending) keep(r Ref, why Reason) {
	if why == ReasonAttempts {
		c.batch.Park(r, why)
	} else {
		c.batch.Settle(r, why)
	}
}

// deadLetter is the copy of a message that goes to the dead-letter topic.
func deadLetter(q *queue, why Reason, l *Delivery, id ID, now time.Time) *Message {
	m := l.Message
	m.ID, m.Topic, m.QoS, m.Retain = id, q.config().DeadLetterTopic, 1, false
	m.Published = now.UnixMilli()
	m.Expires, m.NotBefore, m.DedupKey = 0, 0, ""
	m.Origins = append(append(make([]string, 0, len(l.Origins)+1), l.Origins...), q.origin())
	m.Properties = append(append(make([]Property, 0, len(l.Properties)+deadProperties), l.Properties...),
		Property{PropertyOriginQueue, q.origin()},
		Property{PropertyOriginalTopic, l.Topic},
		Property{PropertyOriginalID, l.ID.String()},
		Property{PropertyAttempts, strconv.FormatUint(uint64(l.Attempt), 10)},
		Property{PropertyReason, why.String()},
		Property{PropertyDeadTime, Time(m.Published).Format(time.RFC3339Nano)},
	)
	return &m
}

// park keeps messages in their queue in the state dead: their dead-letter
// topic leads to a queue that is full and rejects, or has lost messages.
func (d *deadLetters) park(ds []Delivery, why Reason) {
	if len(ds) == 0 {
		return
	}
	c := newCommit()
	for i := range ds {
		if why == ReasonAttempts {
			c.Park(ds[i].Ref, why)
		} else {
			c.Settle(ds[i].Ref, why)
		}
		c.End()
	}
	if err := c.submit(context.Background(), d.b.store); err != nil {
		return
	}
	for i := range c.Units {
		if err := c.Units[i].Result.Err; err != nil && !errors.Is(err, ErrGone) {
			d.b.log.Warn().Err(err).Msg("a lapsed message could not be parked; it is told again after the next start")
		}
	}
	c.release()
}
