package broker

import (
	"cmp"
	"context"
	"errors"
	"time"

	"millrace/broker/auth"
)

// DefaultLease as ReceiveOptions.Lease takes the queue's.
const DefaultLease = time.Duration(-1)

// ReceiveOptions ask for messages.
type ReceiveOptions struct {
	Max   int           // messages, at least 1
	Wait  time.Duration // 0 = what is there now
	Lease time.Duration // 0 to 12 h, or DefaultLease; 0 leases nothing
	// MaxBytes of payload, but at least one message comes; default 16 MiB.
	MaxBytes int
}

// receiveBytes bounds an answer in which many large messages would come together.
const receiveBytes = 16 << 20

// Received is a leased message and the receipt that settles it.
type Received struct {
	Delivery
	Receipt string
}

// Receive leases up to o.Max messages; it returns as soon as one is there, not
// when the batch is full. An empty result is no error. When ctx ends first,
// nothing was taken, and the error is Unavailable.
//
// Errors: Invalid, NotFound (when the source is deleted during the wait), Full
// when too many receives wait already.
func (s Source) Receive(ctx context.Context, o ReceiveOptions) ([]Received, error) {
	b, q := s.b, s.q
	switch {
	case b.closed.Load():
		return nil, errClosed
	case o.Max < 1:
		return nil, fieldError("max_messages", "is %d; it must be at least 1", o.Max)
	case o.Wait < 0:
		return nil, fieldError("timeout_seconds", "is %v; it must not be negative", o.Wait.Seconds())
	case o.Lease == DefaultLease:
		o.Lease = q.config().Lease
	case o.Lease < 0 || o.Lease > maxLease:
		return nil, fieldError("visibility_timeout_seconds", "is %v; it must be 0 to %v", o.Lease.Seconds(), maxLease.Seconds())
	}
	w := b.newReceive()
	w.Target, w.Filter = q.target, s.filter
	w.Max, w.MaxBytes, w.Lease = o.Max, cmp.Or(o.MaxBytes, receiveBytes), o.Lease
	if o.Wait > 0 {
		if err := b.startWaiting(); err != nil {
			return nil, err
		}
		defer b.waiting.Add(-1)
		w.Until = b.Now().Add(o.Wait)
	}
	return b.await(ctx, q, w)
}

// startWaiting counts one who waits, if there may be one more.
func (b *Broker) startWaiting() error {
	if most := b.tuned.Load().MaxWaiting; b.waiting.Add(1) > int64(most) {
		b.waiting.Add(-1)
		return errorf(Full, NoSubject, "%d receives wait already, which is the limit; try again in a second", most)
	}
	return nil
}

// receive is a Wait whose caller blocks.
type receive struct {
	Wait
	ready chan struct{}
}

// Deliver implements WaitSink.
func (w *receive) Deliver(*Wait) { close(w.ready) }

// maxSpareReceive is how many deliveries a receive that is kept may have room for.
const maxSpareReceive = 1000

// newReceive returns a receive that was used before, with what the store keeps
// in it, or a new one.
func (b *Broker) newReceive() *receive {
	w, _ := b.receives.Get().(*receive)
	if w == nil {
		w = &receive{}
		w.Sink = w
	}
	w.ready = make(chan struct{}) // of the bubble of fake time it is used in
	return w
}

// keep keeps a delivered receive for its next use, without its messages.
func (b *Broker) keep(w *receive) {
	if cap(w.Got) > maxSpareReceive {
		return
	}
	clear(w.Got)
	w.Wait = Wait{Sink: w, Got: w.Got[:0], Priv: w.Priv}
	b.receives.Put(w)
}

func (b *Broker) await(ctx context.Context, q *queue, w *receive) ([]Received, error) {
	if ctx.Err() != nil {
		return nil, gaveUp(ctx)
	}
	b.store.Receive(&w.Wait)
	select {
	case <-w.ready:
	case <-ctx.Done():
		if b.store.Cancel(&w.Wait) {
			return nil, gaveUp(ctx)
		}
		<-w.ready         // it was served in the same moment
		b.giveBack(w.Got) //nolint:contextcheck // it must happen although the caller has gone
		return nil, gaveUp(ctx)
	}
	if isGone(w.Err) {
		return nil, q.missing()
	}
	if w.Err != nil {
		return nil, storeError(w.Err)
	}
	if len(w.Got) == 0 {
		if err := b.unasked(); err != nil {
			return nil, err
		}
	}
	now := b.Now().UnixMilli()
	got := make([]Received, len(w.Got))
	for i := range w.Got {
		got[i].Delivery = w.Got[i]
		if w.Lease == 0 {
			got[i].Until = now // it is over already, whatever came of the message since
		}
	}
	b.receipts.writeAll(got, now)
	b.keep(w)
	return got, nil
}

func gaveUp(ctx context.Context) error {
	return &Error{Kind: Unavailable, Message: "the receive was given up; nothing was taken", Err: ctx.Err()}
}

// giveBack undoes deliveries that reached nobody: no attempt is counted.
func (b *Broker) giveBack(ds []Delivery) {
	if len(ds) == 0 {
		return
	}
	c := newCommit()
	for i := range ds {
		c.Return(ds[i].Ref)
		c.End()
	}
	// The caller has gone: this must happen all the same.
	if err := c.submit(context.Background(), b.store); err == nil {
		c.release()
	}
}

// GiveBack undoes a Receive whose messages reached nobody, for instance because
// the answer could not be written: they are ready again at their places, and no
// attempt is counted.
func (b *Broker) GiveBack(got []Received) {
	ds := make([]Delivery, len(got))
	for i := range got {
		ds[i] = got[i].Delivery
	}
	b.giveBack(ds)
}

// HandBack makes messages ready again at once whose answer was not written
// whole: some may have arrived, so that their attempts count.
func (b *Broker) HandBack(got []Received) {
	st := b.NewSettlements()
	for i := range got {
		st.GiveBack(got[i].Ref)
	}
	st.Submit()
}

// AckState tells what an ack met.
type AckState string

// The states.
const (
	Removed AckState = "removed"
	Gone    AckState = "gone" // a genuine receipt of a message already removed
)

// Settlement names a delivery to settle.
type Settlement struct {
	ID      ID
	Receipt string
}

// AckResult is the end of one Settlement.
type AckResult struct {
	State AckState
	Err   error
}

// Ack removes a message for good, and returns once that is as durable as the
// queue. It is safe to repeat: a genuine receipt of a message already removed
// answers Gone. A receipt is late only once the message was handed out again.
//
// Errors: NotFound of a message that the source does not hold or never handed out; Invalid (ReceiptSubject) for a receipt older
// than the newest delivery, or not genuine.
func (s Source) Ack(ctx context.Context, id ID, receipt string) (AckState, error) {
	rs, err := s.AckBatch(ctx, []Settlement{{ID: id, Receipt: receipt}})
	if err != nil {
		return "", err
	}
	return rs[0].State, rs[0].Err
}

// ReceiptID returns the message that a receipt is of, for doors whose calls name
// no message. For one that is not genuine it is the zero ID, which no queue
// holds, so that what follows answers in its own order.
func (b *Broker) ReceiptID(receipt string) ID {
	r, _ := b.receipts.read(receipt)
	return r.id
}

// AckBatch settles many in one commit; each has a result of its own.
func (s Source) AckBatch(ctx context.Context, ss []Settlement) ([]AckResult, error) {
	b, q := s.b, s.q
	results := make([]AckResult, len(ss))
	units := make([]int, len(ss)) // -1: refused already
	c := newCommit()
	for i, one := range ss {
		units[i] = -1
		r, err := b.genuine(ctx, q, one.ID, one.Receipt)
		if err != nil {
			results[i].Err = err
			continue
		}
		c.Settle(r.ref, ReasonAcked)
		units[i] = c.End()
	}
	if err := c.submit(ctx, b.store); err != nil {
		return nil, storeError(err)
	}
	for i, one := range ss {
		if u := units[i]; u >= 0 {
			results[i] = b.settled(q, one.ID, c.Units[u].Result.Err)
		}
	}
	c.release()
	return results, nil
}

// settled is the result of an ack that the store has answered.
func (b *Broker) settled(q *queue, id ID, err error) AckResult {
	switch {
	case errors.Is(err, ErrGone):
		return AckResult{State: Gone}
	case err != nil:
		return AckResult{Err: b.settleError(q, id, err)}
	default:
		return AckResult{State: Removed}
	}
}

// Backoff as the delay of a Nack takes the queue's back-off.
const Backoff = time.Duration(-1)

// Nack gives a message back: it is ready again after delay (0 = now), at its
// old place, with its attempt counted. It answers the delay that applied.
// Errors as Ack; NotFound also when the message is gone.
func (s Source) Nack(ctx context.Context, id ID, receipt string, delay time.Duration) (time.Duration, error) {
	b, q := s.b, s.q
	r, err := b.genuine(ctx, q, id, receipt)
	if err != nil {
		return 0, err
	}
	switch {
	case delay == Backoff:
		delay = q.config().backoff(r.ref.Attempt)
	case delay < 0 || delay > maxLease:
		return 0, fieldError("delay_seconds", "is %v; it must be 0 to %v", delay.Seconds(), maxLease.Seconds())
	}
	return delay, b.postpone(ctx, q, id, r.ref, b.Now().Add(delay), true)
}

// backoff is the delay after the nack of an attempt: doubling from the least
// to the most.
func (c *QueueConfig) backoff(attempt uint32) time.Duration {
	d := c.BackoffMin
	for ; attempt > 1 && d < c.BackoffMax && d > 0; attempt-- {
		d *= 2
	}
	return min(d, c.BackoffMax)
}

// Extend moves the end of a lease to d from now, at most 12 hours from the
// delivery, and answers it; 0 gives the message back at once. Errors as Nack.
func (s Source) Extend(ctx context.Context, id ID, receipt string, d time.Duration) (time.Time, error) {
	b, q := s.b, s.q
	r, err := b.genuine(ctx, q, id, receipt)
	if err != nil {
		return time.Time{}, err
	}
	if d < 0 || d > maxLease {
		return time.Time{}, fieldError("visibility_timeout_seconds", "is %v; it must be 0 to %v", d.Seconds(), maxLease.Seconds())
	}
	until := b.Now().Add(d).UTC().Truncate(time.Millisecond)
	if last := Time(r.delivered).Add(maxLease); until.After(last) {
		return time.Time{}, fieldError("visibility_timeout_seconds",
			"of %v ends after %s, twelve hours from the delivery; a lease cannot last longer", d.Seconds(), last.Format(time.RFC3339))
	}
	return until, b.postpone(ctx, q, id, r.ref, until, d == 0)
}

// postpone commits the new end of a lease.
func (b *Broker) postpone(ctx context.Context, q *queue, id ID, r Ref, until time.Time, giveBack bool) error {
	c := newCommit()
	c.Defer(r, until, giveBack)
	if _, err := c.one(ctx, b.store); err != nil {
		return b.settleError(q, id, err)
	}
	return nil
}

// genuine reads a receipt. One that is not genuine for this message is Invalid
// when the queue handed the message out and still holds it, else NotFound.
func (b *Broker) genuine(ctx context.Context, q *queue, id ID, s string) (receipt, error) {
	if r, ok := b.receipts.read(s); ok && r.ref.Target == q.target && r.id == id {
		return r, nil
	}
	if _, err := b.store.Find(ctx, q.target, id); err != nil {
		return receipt{}, noMessage(q, id)
	}
	return receipt{}, errorf(Invalid, ReceiptSubject, "the receipt was not given for message %s of %s", id, q)
}

// settleError words the refusal of an ack, nack or extend.
func (b *Broker) settleError(q *queue, id ID, err error) error {
	switch {
	case errors.Is(err, ErrStale):
		return &Error{Kind: Invalid, Subject: ReceiptSubject, Err: err, Message: "the receipt is no longer good: message " + id.String() +
			" was handed out again since; extend the lease, or raise visibility_timeout_seconds"}
	case isGone(err):
		return noMessage(q, id)
	}
	return storeError(err)
}

func noMessage(q *queue, id ID) error {
	return errorf(NotFound, MessageSubject, "%s does not hold message %s", q, id)
}

// Browse shows messages in the given states, in their order, without leasing
// them: no attempt is counted.
func (s Source) Browse(ctx context.Context, states EntryState, skip, limit int) ([]Delivery, error) {
	ds, err := s.b.store.Read(ctx, s.q.target, Pos{States: states, Skip: skip}, limit, nil)
	if isGone(err) {
		return nil, s.q.missing()
	}
	return ds, storeError(err)
}

// Purge removes the ready and delayed messages, with all also the leased and
// dead ones, and answers how many. What was acknowledged to producers after
// its answer is not touched.
func (b *Broker) Purge(ctx context.Context, queue string, all bool) (int, error) {
	q, err := b.lookup(ctx, auth.Manage, queue)
	if err != nil {
		return 0, err
	}
	c := newCommit()
	c.Purge(q.target, all)
	r, err := c.one(ctx, b.store)
	b.auth.Audit(ctx, auth.Event{What: auth.Purged, Target: "queue:" + queue, Count: r.Count, Err: err})
	if err != nil {
		return 0, storeError(err)
	}
	b.log.Info().Str("queue", queue).Int("messages", r.Count).Bool("all", all).Msg("queue purged")
	return r.Count, nil
}
