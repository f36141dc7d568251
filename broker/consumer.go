package broker

import (
	"errors"
	"sync"
	"time"
)

// ConsumerLease is how long a Consumer's lease is at a time. It is extended
// while the consumer holds on to the message, so that after a kill -9 a message
// is back within a minute, however long its consumer would have kept it.
const ConsumerLease = time.Minute

// consumerWait is how long a Consumer waits before it asks again; it has no end.
const consumerWait = 24 * time.Hour

// ConsumerSink takes the messages of a Consumer. Its methods must not block,
// and are called without a lock of the broker's.
type ConsumerSink interface {
	// Credit says how many messages the consumer takes now; 0 = none.
	Credit() int
	// Take gets leased messages, at most as many as Credit said at the time of
	// asking. ds is only valid during the call.
	Take(ds []Delivery)
	// Ended says that the source is gone, or the broker going down. It is the last call.
	Ended(err error)
}

// BacklogSink takes the messages of a session, whose leases do not end.
type BacklogSink interface {
	ConsumerSink
	// Missed says that messages after those that came may have been taken for the
	// session, and lost on their way here: InFlight has them.
	Missed()
}

// Consumer receives from one source, or session, for as long as it is open, without a
// goroutine. It waits in line with all who receive from the queue, as long as
// its sink has credit; one that was closed takes nothing.
type Consumer struct {
	b    *Broker
	q    *queue // nil for a session
	sink ConsumerSink
	// shared says that consumers on several nodes take from one backlog: a lease
	// ends with the node that has it, and the consumer extends it until then.
	shared bool

	mu         sync.Mutex // protects what follows; wait while registered is false
	wait       Wait
	registered bool // the store has wait
	busy       bool // a goroutine is in step
	again      bool // and has to look once more
	delivering bool
	closed     bool
	idle       sync.Cond // none of registered, busy, delivering is set any more
}

// Consume opens a consumer. It asks for nothing before Kick. Errors: Unavailable.
func (s Source) Consume(sink ConsumerSink) (*Consumer, error) {
	if s.b.closed.Load() {
		return nil, errClosed
	}
	c := s.b.newConsumer(s.q.target, s.q, sink)
	c.wait.Filter = s.filter
	return c, nil
}

func (b *Broker) newConsumer(t Target, q *queue, sink ConsumerSink) *Consumer {
	c := &Consumer{b: b, q: q, sink: sink}
	c.idle.L = &c.mu
	c.wait.Target, c.wait.MaxBytes, c.wait.Sink = t, receiveBytes, c
	return c
}

// lease is how long the store leases messages for.
func (c *Consumer) lease() time.Duration {
	switch {
	case c.shared:
		return ConsumerLease
	case c.q == nil:
		return sessionLease
	case c.Fixed():
		return c.q.config().MQTTLease
	default:
		return ConsumerLease
	}
}

// Fixed reports whether the queue wants leases to end by themselves, also while
// the consumer is connected; otherwise the consumer extends them.
func (c *Consumer) Fixed() bool { return c.q != nil && c.q.config().MQTTLease > 0 }

// Shared reports whether the consumer has to extend the leases of a backlog.
func (c *Consumer) Shared() bool { return c.shared }

// Kick says that the sink's credit has changed.
func (c *Consumer) Kick() {
	c.mu.Lock()
	if c.busy {
		c.again = true
		c.mu.Unlock()
		return
	}
	c.busy = true
	c.mu.Unlock()
	c.step()
}

// Close ends the consumer. When it has returned, nothing is taken any more.
func (c *Consumer) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.Kick()
	c.mu.Lock()
	for c.registered || c.busy || c.delivering {
		c.idle.Wait()
	}
	c.mu.Unlock()
}

// step brings what is asked of the store in line with the credit. One
// goroutine is in it at a time.
func (c *Consumer) step() {
	for {
		credit := c.sink.Credit()
		c.mu.Lock()
		if c.closed {
			credit = 0
		}
		withdraw := c.registered && credit < c.wait.Max
		c.mu.Unlock()
		if withdraw && c.b.store.Cancel(&c.wait) {
			c.mu.Lock()
			c.registered = false
			c.mu.Unlock()
		} // otherwise it is being served, and Deliver goes on
		c.mu.Lock()
		ask := !c.registered && !c.closed && credit > 0
		if ask {
			c.registered = true
			c.wait.Max, c.wait.Until = credit, c.b.Now().Add(consumerWait)
			c.wait.Lease = c.lease()
			c.wait.Certain = c.q == nil && !c.shared
		}
		c.mu.Unlock()
		if ask {
			c.b.store.Receive(&c.wait)
		}
		c.mu.Lock()
		if !c.again {
			c.busy = false
			c.idle.Broadcast()
			c.mu.Unlock()
			return
		}
		c.again = false
		c.mu.Unlock()
	}
}

// Deliver implements WaitSink.
func (c *Consumer) Deliver(w *Wait) {
	c.mu.Lock()
	missed := w.Certain && errors.Is(w.Err, ErrUnknown)
	c.registered, c.delivering = false, true // from now on step writes into w
	c.mu.Unlock()
	ended := w.Err != nil && len(w.Got) == 0 && !missed
	switch {
	case len(w.Got) > 0:
		c.sink.Take(w.Got)
	case missed:
		c.sink.(BacklogSink).Missed()
	case ended:
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.sink.Ended(storeError(w.Err))
	}
	if !ended {
		c.Kick()
	}
	c.mu.Lock()
	c.delivering = false
	c.idle.Broadcast()
	c.mu.Unlock()
}

// Settlements gathers what becomes of deliveries, for one commit. It is used by
// one goroutine, and not after Submit.
type Settlements struct {
	b     *Broker
	batch Batch
	done  []func(error)
}

var settlements = sync.Pool{New: func() any { return new(Settlements) }}

// NewSettlements returns an empty set.
func (b *Broker) NewSettlements() *Settlements {
	s := settlements.Get().(*Settlements)
	s.b = b
	return s
}

// Ack removes the message for good. done, if not nil, is called once that is as
// durable as the queue, or a newer delivery or nothing is there any more; with
// an error when neither is known. It must not block.
func (s *Settlements) Ack(r Ref, done func(error)) {
	s.batch.Settle(r, ReasonAcked)
	s.end(done)
}

// Nack gives the message back after the queue's back-off, its attempt counted.
func (s *Settlements) Nack(r Ref) {
	var d time.Duration
	if q := s.b.byTarget(r.Target); q != nil {
		d = q.config().backoff(r.Attempt)
	}
	s.batch.Defer(r, s.b.Now().Add(d), true)
	s.end(nil)
}

// GiveBack makes the message ready again at once, its attempt counted.
func (s *Settlements) GiveBack(r Ref) {
	s.batch.Defer(r, s.b.Now(), true)
	s.end(nil)
}

// Return undoes a delivery that reached nobody. done, if not nil, is called once when
// the message is in its place again, or when it is not known whether it is. It must
// not block.
func (s *Settlements) Return(r Ref, done func(error)) {
	s.batch.Return(r)
	s.end(done)
}

// Extend lets the lease end ConsumerLease from now.
func (s *Settlements) Extend(r Ref) {
	s.batch.Defer(r, s.b.Now().Add(ConsumerLease), false)
	s.end(nil)
}

func (s *Settlements) end(done func(error)) {
	s.batch.End()
	s.done = append(s.done, done)
}

// Len is how many were gathered.
func (s *Settlements) Len() int { return len(s.done) }

// Submit hands them over. It blocks only for back-pressure, and must not be
// called by a ConsumerSink.
func (s *Settlements) Submit() {
	if len(s.done) > 0 {
		s.b.store.Submit(&s.batch, Durable, s)
	}
}

// Done implements Completion.
func (s *Settlements) Done(b *Batch) {
	var failed error
	for i, done := range s.done {
		err := b.Units[i].Result.Err
		if isGone(err) || err == ErrStale { //nolint:errorlint // a store returns it bare
			err = nil // late: somebody else has it, or had it
		}
		if err != nil {
			failed = err
		}
		if done != nil {
			done(storeError(err))
		}
	}
	if failed != nil {
		s.b.log.Warn().Err(failed).Msg("deliveries were not settled")
	}
	s.batch.Reset()
	clear(s.done)
	s.done = s.done[:0]
	settlements.Put(s)
}
