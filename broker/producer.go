package broker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"millrace/broker/auth"
)

// Outcome is the end of one Producer.Publish.
type Outcome struct {
	Tag uint64 // the caller's
	Published
	Err error // of the kinds of Broker.Publish
}

// Limits of what a Producer gathers before it hands over by itself.
const (
	producerMessages = 1024
	producerBytes    = 1 << 20
)

// Producer publishes for one connection without waiting for the disk. It is
// used by one goroutine.
type Producer struct {
	b         *Broker
	principal *auth.Principal
	done      func([]Outcome)
	stats     *counters
	cur       *pending // being gathered, or nil
	underway  atomic.Int32
	halted    atomic.Bool
	closed    atomic.Bool

	mu   sync.Mutex // protects free
	free []*pending // warm, for reuse
}

// NewProducer returns a producer that publishes as p. done is called with the
// outcomes of Publish calls, in their order, never concurrently, from any
// goroutine (also the caller's, inside Flush, when nothing had to be stored);
// it must not block, and the slice is only valid during the call.
func (b *Broker) NewProducer(p *auth.Principal, done func([]Outcome)) *Producer {
	return &Producer{b: b, principal: p, done: done, stats: &b.stats}
}

// Publish takes m, whose bytes must not change any more. It is gathered until
// Flush, or until 1,024 messages or 1 MiB are. A QoS 0 message has an Outcome
// only when it was refused, and one that nothing durable matches is delivered
// at once.
func (p *Producer) Publish(m *Message, tag uint64) {
	c := p.open()
	if err := c.add(p.principal, m, tag); err != nil {
		c.refuse(m, tag, err)
	}
	p.gathered()
}

// open returns what is being gathered.
func (p *Producer) open() *pending {
	if p.cur == nil {
		p.cur = p.take()
	}
	return p.cur
}

// gathered closes the unit of one publish.
func (p *Producer) gathered() {
	c := p.cur
	c.closeUnit()
	if len(c.publishes) >= producerMessages || c.bytes >= producerBytes {
		p.Flush()
	}
}

// PublishOnce is Publish for a message of QoS 2 whose sender may repeat it: that
// it was received under a packet id is recorded in its own commit. The session
// knows the id until it is released. again says that the sender does repeat it.
func (p *Producer) PublishOnce(m *Message, tag uint64, s *Session, packet uint16, again bool) {
	c := p.open()
	if r, first, err := c.admit(p.principal, m); err != nil {
		c.refuse(m, tag, err)
	} else {
		value := s.claim(packet, m, again)
		c.enter(m, tag, r, first)
		c.batch.Put(SpaceSessions, receivedKey(s.id, packet), value, 0)
		last := &c.publishes[len(c.publishes)-1]
		last.session, last.packet = s, packet
	}
	p.gathered()
}

// Flush hands what was gathered to the store. It blocks only for back-pressure.
func (p *Producer) Flush() {
	c := p.cur
	if c == nil {
		return
	}
	add(&c.stats.taken, c.passed)
	add(&c.stats.unmatched, c.unmatched)
	add(&c.stats.own, c.own)
	c.passed, c.unmatched, c.own = 0, 0, 0
	if len(c.publishes) == 0 {
		return
	}
	if p.halted.Load() {
		c.reset()
		return
	}
	p.cur = nil
	if p.underway.Add(1) == 1 && len(c.batch.Ops) == 0 {
		c.Done(&c.batch) // nothing to store, and nothing to wait for
		return
	}
	c.batch.Source = p
	c.submit()
}

// Halt has nothing stored of what was not handed over yet: a publish failed, and none
// may overtake it. It may be called from any goroutine.
func (p *Producer) Halt() { p.halted.Store(true) }

// Close forgets the callback: outcomes still under way are not told any more,
// though what was flushed is stored and delivered all the same.
func (p *Producer) Close() { p.closed.Store(true) }

func (p *Producer) take() *pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c
	}
	c := p.b.newPending(p)
	c.stats = p.stats
	return c
}

func (p *Producer) finished(_ *pending, os []Outcome) {
	if len(os) > 0 && !p.closed.Load() {
		p.done(os)
	}
}

func (p *Producer) fannedOut(c *pending) {
	c.reset()
	p.mu.Lock()
	if len(p.free) < 4 {
		p.free = append(p.free, c)
	}
	p.mu.Unlock()
	p.underway.Add(-1)
}

// pendingOwner is told the two steps of a pending's end.
type pendingOwner interface {
	// finished gives the outcomes of the publishes that want one, in order.
	finished(*pending, []Outcome)
	// fannedOut comes when live subscribers have been served as well.
	fannedOut(*pending)
}

// pending is a number of publishes on their way through the store: the batch
// and, beside it, what has to happen once it has committed.
type pending struct {
	b         *Broker
	owner     pendingOwner
	batch     Batch
	publishes []publish
	outcomes  []Outcome
	found     []destination
	routes    []Route
	subs      []*Subscription
	open      int // publishes in closed units
	bytes     int
	who       who       // gets the messages
	joined    uint64    // of the message that is matched now
	stats     *counters // where it is counted
	passed    int       // QoS 0 messages that nobody waits for, delivered and forgotten
	unmatched int       // of these, those that met nobody
	own       int       // deliveries back to the publisher that it does not want
	began     time.Time // when it was handed to the store
	lazy      bool      // nobody waits for it
	every     bool      // QoS 0 messages have an outcome too, and wait for the others
}

// publish is one message in a pending.
type publish struct {
	m           *Message
	outcome     Outcome
	first, last int // subs[first:last]
	unit        int
	op          int      // in the batch, or -1
	joined      uint64   // Broker.joined before it was matched
	session     *Session // that remembers it by packet; nil for most
	packet      uint16
}

func (b *Broker) newPending(o pendingOwner) *pending {
	return &pending{b: b, owner: o, lazy: true, stats: &b.stats}
}

// add admits m, matches it, and appends it to the open unit.
func (c *pending) add(p *auth.Principal, m *Message, tag uint64) error {
	r, first, err := c.admit(p, m)
	if err == nil {
		c.enter(m, tag, r, first)
	}
	return err
}

// admit checks that p may publish m, and matches it.
func (c *pending) admit(p *auth.Principal, m *Message) (r matches, first int, err error) {
	if err = c.b.admit(p, m, c.b.Now()); err == nil {
		r, first, err = c.fit(p, m)
	}
	return r, first, err
}

// fit matches m, and refuses it if it would be stored and there is no room for that,
// or if this node may not know of everything that it goes to.
func (c *pending) fit(p *auth.Principal, m *Message) (r matches, first int, err error) {
	r, first = c.match(p, m)
	if c.b.cluster != nil && (m.QoS > 0 || c.every) {
		var waited bool
		if waited, err = c.b.cluster.Current(); waited && err == nil {
			c.subs = c.subs[:first]
			r, first = c.match(p, m)
		}
	}
	if err == nil && len(c.routes) > 0 {
		err = c.b.roomInStore()
	}
	if err != nil {
		c.subs = c.subs[:first]
	}
	return r, first, err
}

// route appends a message of the broker's own, which is stored whatever the limits
// are: it was there before.
func (c *pending) route(p *auth.Principal, m *Message, tag uint64) {
	r, first := c.match(p, m)
	c.enter(m, tag, r, first)
}

// enter appends a message that was matched: its routes are c.routes, its
// subscriptions those from first on.
func (c *pending) enter(m *Message, tag uint64, r matches, first int) {
	c.own += r.own
	c.b.countIn(m, r.Matched)
	if len(c.routes) == 0 && m.QoS == 0 && !m.Retain && !c.every {
		c.b.fanOut(m, c.subs[first:])
		c.subs = c.subs[:first]
		c.passed++
		if r.Matched == (Matched{}) {
			c.unmatched++
		}
		return
	}
	c.append(m, tag, r, c.routes, first)
}

// match finds where m goes: c.routes, and c.subs from first on. Clients get
// what is delayed when it is due.
func (c *pending) match(p *auth.Principal, m *Message) (r matches, first int) {
	w, later := c.who, m.NotBefore > m.Published
	if later {
		w = storesOnly
	}
	first = len(c.subs)
	c.joined = c.b.joined.Load()
	r, c.found, c.routes, c.subs = c.b.match(p, m, w, c.found, c.routes[:0], c.subs)
	if later {
		c.routes = append(c.routes, Route{Target: c.b.delayed.target})
	}
	return r, first
}

// append adds a message with its routes and the subscriptions from first on.
func (c *pending) append(m *Message, tag uint64, r matches, routes []Route, first int) {
	op := -1
	if len(routes) > 0 {
		op = len(c.batch.Ops)
		c.batch.Publish(m, routes...)
	}
	if m.Retain && m.NotBefore <= m.Published {
		c.b.retained.record(&c.batch, m)
	}
	c.bytes += len(m.Payload) + len(m.Topic)
	c.lazy = c.lazy && m.QoS == 0 && !c.every
	c.publishes = append(c.publishes, publish{
		m: m, first: first, last: len(c.subs), op: op, joined: c.joined,
		outcome: Outcome{Tag: tag, Published: Published{
			ID: m.ID, Time: m.Published, Matched: r.Matched, Durability: r.durability,
		}},
	})
}

// refuse appends the outcome of a message that was not admitted.
func (c *pending) refuse(m *Message, tag uint64, err error) {
	c.publishes = append(c.publishes, publish{
		m: m, first: len(c.subs), last: len(c.subs), op: -1, outcome: Outcome{Tag: tag, Err: err},
	})
}

// closeUnit makes one commit of what was added since the last.
func (c *pending) closeUnit() {
	if c.open == len(c.publishes) {
		return
	}
	unit := c.batch.End()
	for i := range c.publishes[c.open:] {
		c.publishes[c.open+i].unit = unit
	}
	c.open = len(c.publishes)
}

func (c *pending) submit() {
	c.began = time.Now()
	level := Durable
	if c.lazy {
		level = Lazy
	}
	c.b.store.Submit(&c.batch, level, c)
}

// Done implements Completion: answer the producer, then fan out live.
func (c *pending) Done(*Batch) {
	for i := range c.publishes {
		p := &c.publishes[i]
		c.conclude(p)
		if p.m.QoS > 0 || c.every || p.outcome.Err != nil {
			c.outcomes = append(c.outcomes, p.outcome)
		}
	}
	c.stats.published(c)
	c.owner.finished(c, c.outcomes)
	for i := range c.publishes {
		if p := &c.publishes[i]; p.outcome.Err == nil && !p.outcome.Duplicate {
			if subs := c.latecomers(p); len(subs) > 0 {
				c.b.fanOut(p.m, subs)
			}
		}
	}
	c.owner.fannedOut(c)
}

// conclude fills the outcome of a publish from what the store said.
func (c *pending) conclude(p *publish) {
	if p.outcome.Err != nil {
		return
	}
	if r := &c.batch.Units[p.unit].Result; r.Err != nil {
		if p.session != nil && !errors.Is(r.Err, ErrUnknown) {
			p.session.disclaim(p.packet)
		}
		p.outcome.Err = c.b.publishError(p.m, r)
		return
	}
	if p.m.Retain && p.m.NotBefore <= p.m.Published {
		c.b.retained.committed(p.m)
	}
	if p.session != nil {
		p.session.receive(p.packet)
	}
	if p.op >= 0 && c.batch.Ops[p.op].Duplicate {
		p.outcome.Duplicate, p.outcome.ID = true, c.batch.Ops[p.op].First
	}
}

// reset empties c for reuse.
func (c *pending) reset() {
	c.batch.Reset()
	clear(c.publishes)
	clear(c.outcomes)
	clear(c.subs)
	c.publishes, c.outcomes, c.subs = c.publishes[:0], c.outcomes[:0], c.subs[:0]
	c.open, c.bytes, c.own, c.lazy, c.began = 0, 0, 0, true, time.Time{}
}

// publishError words the refusal of a publish.
func (b *Broker) publishError(m *Message, r *Result) error {
	if errors.Is(r.Err, ErrConflict) && m.DedupKey != "" {
		return keyConflict(r.Err)
	}
	if q := b.byTarget(r.Full); q != nil {
		c := q.config()
		return &Error{Kind: Full, Subject: QueueSubject, Err: r.Err, Message: "queue " + c.Name +
			" is full and rejects; nothing was stored anywhere: consume from it, or raise max_size_mb or max_messages"}
	}
	if errors.Is(r.Err, ErrFull) && r.Full != 0 {
		return &Error{Kind: Full, Subject: ClientSubject, Err: r.Err, Message: "the session of a subscriber that is away is full and refuses; " +
			"nothing was stored anywhere: let the client come back, end its session, or set mqtt.session_overflow"}
	}
	return storeError(r.Err)
}
