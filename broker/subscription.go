package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"millrace/broker/auth"
)

// SubscriptionConfig is everything that can be set about a durable subscription
// on a stream: a named group of consumers that share its messages, and
// acknowledge them one by one or up to an offset. NewSubscriptionConfig gives
// the defaults.
type SubscriptionConfig struct {
	Stream string
	Name   string // any characters but controls; at most 255 bytes
	LeaseConfig
	Created time.Time
}

// NewSubscriptionConfig returns the defaults for a subscription.
func NewSubscriptionConfig(stream, name string) SubscriptionConfig {
	c := SubscriptionConfig{Stream: stream, Name: name, LeaseConfig: newLeaseConfig()}
	c.MaxRetries = Unlimited
	return c
}

// queue is c as a queue has it.
func (c *SubscriptionConfig) queue() *QueueConfig {
	q := NewQueueConfig(c.Name, "")
	q.LeaseConfig, q.Created = c.LeaseConfig, c.Created
	return &q
}

// subscriptionOf is the reverse.
func subscriptionOf(q *queue) SubscriptionConfig {
	c := q.config()
	return SubscriptionConfig{Stream: q.stream.config().Name, Name: c.Name, LeaseConfig: c.LeaseConfig, Created: c.Created}
}

func (b *Broker) validateSubscription(c *SubscriptionConfig) error {
	control := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
	if c.Name == "" || len(c.Name) > maxNameBytes || strings.ContainsFunc(c.Name, control) {
		return fieldError("name", "%q is not a subscription name: 1 to %d bytes, no control characters", c.Name, maxNameBytes)
	}
	if err := b.checkDeadLetter(c.DeadLetterTopic); err != nil {
		return err
	}
	return c.queue().validateRanges()
}

// def is the part of the settings that the store needs. Its name begins with
// the handle of the stream, because names of streams may hold anything.
func (c *SubscriptionConfig) def(s *stream, start []Offset) Def {
	meta, _ := json.Marshal(c) // plain fields: cannot fail
	d := c.queue().def()
	return Def{
		Name: fmt.Sprintf("%016x/%s", uint64(s.target), c.Name), Kind: SubscriptionTarget, Meta: meta,
		Source: s.target, Start: start,
		LapseAt: d.LapseAt, MaxInFlight: d.MaxInFlight, DeadRetention: d.DeadRetention, Paused: d.Paused,
	}
}

// SubscriptionInfo is a subscription and its counts.
type SubscriptionInfo struct {
	SubscriptionConfig
	Info
	Partitioned []SubscriptionPartition
	Durability  Durability
}

// SubscriptionPartition is where a subscription stands in one partition.
type SubscriptionPartition struct {
	Acked uint64 // everything before it is acknowledged
	Next  uint64 // what was not handed out yet begins here
	End   uint64 // the offset that the next message of the stream gets
}

// CreateSubscription makes a subscription on a stream that begins at p; in a
// partition that p does not name, at its first message. Errors: Invalid (of an
// offset that is not there any more with a *RangeError), Forbidden, NotFound of
// the stream or a partition, Conflict when the name is taken.
func (b *Broker) CreateSubscription(ctx context.Context, c SubscriptionConfig, p Place) (SubscriptionInfo, error) {
	s, err := b.lookupStream(ctx, auth.Consume, c.Stream)
	if err != nil {
		return SubscriptionInfo{}, err
	}
	c.Created = b.Now().UTC().Truncate(time.Millisecond)
	if err := b.validateSubscription(&c); err != nil {
		return SubscriptionInfo{}, err
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	taken := errorf(Conflict, SubscriptionSubject, "stream %q has a subscription %q already", c.Stream, c.Name)
	if b.subscriptionNamed(s, c.Name) != nil {
		return SubscriptionInfo{}, taken
	}
	start, err := b.offsets(ctx, s, p)
	if err != nil {
		return SubscriptionInfo{}, err
	}
	err = b.define(ctx, NewTarget, c.def(s, start))
	if isGone(err) {
		return SubscriptionInfo{}, noStream(c.Stream)
	}
	if errors.Is(err, ErrConflict) {
		return SubscriptionInfo{}, taken
	}
	if err != nil {
		return SubscriptionInfo{}, storeError(err)
	}
	b.log.Info().Str("stream", c.Stream).Str("subscription", c.Name).Msg("subscription created")
	q := b.subscriptionNamed(s, c.Name)
	if q == nil {
		return SubscriptionInfo{}, noSubscription(c.Stream, c.Name) // another node deleted it
	}
	return b.subscriptionInfo(ctx, q)
}

// UpdateSubscription applies change to the present settings, which hold at
// once. Its names cannot change. Errors: Invalid, Forbidden, NotFound.
// change is called again about newer settings where another node was faster.
func (b *Broker) UpdateSubscription(ctx context.Context, stream, name string, change func(*SubscriptionConfig) error) (SubscriptionInfo, error) {
	b.defining.Lock()
	defer b.defining.Unlock()
	q, err := b.lookupSubscription(ctx, stream, name)
	if err != nil {
		return SubscriptionInfo{}, err
	}
	err = alter(ctx, b, q.target, subscriptionOf(q), func(old SubscriptionConfig) (Def, error) {
		c := old
		if err := change(&c); err != nil {
			return Def{}, err
		}
		c.Stream, c.Name, c.Created = old.Stream, old.Name, old.Created
		return c.def(q.stream, nil), b.validateSubscription(&c)
	})
	if isGone(err) {
		return SubscriptionInfo{}, q.missing()
	} else if err != nil {
		return SubscriptionInfo{}, storeError(err)
	}
	b.log.Info().Str("stream", stream).Str("subscription", name).Msg("subscription changed")
	return b.subscriptionInfo(ctx, q)
}

// DeleteSubscription removes a subscription. Receives that wait on it end in
// NotFound at once; the messages stay in the stream. Errors: Forbidden, NotFound.
func (b *Broker) DeleteSubscription(ctx context.Context, stream, name string) error {
	b.defining.Lock()
	defer b.defining.Unlock()
	q, err := b.lookupSubscription(ctx, stream, name)
	if err != nil {
		return err
	}
	if err := b.drop(ctx, SubscriptionTarget, q.target, name); err != nil && !isGone(err) {
		return storeError(err)
	}
	b.log.Info().Str("stream", stream).Str("subscription", name).Msg("subscription deleted")
	return nil
}

// Subscription shows one subscription. Errors: Forbidden, NotFound.
func (b *Broker) Subscription(ctx context.Context, stream, name string) (SubscriptionInfo, error) {
	q, err := b.lookupSubscription(ctx, stream, name)
	if err != nil {
		return SubscriptionInfo{}, err
	}
	return b.subscriptionInfo(ctx, q)
}

// Subscriptions lists the subscriptions of a stream by name. Errors: Forbidden,
// NotFound.
func (b *Broker) Subscriptions(ctx context.Context, stream string) ([]SubscriptionInfo, error) {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return nil, err
	}
	return infos(ctx, byName(&b.mu, &s.subs), b.subscriptionInfo)
}

func (b *Broker) subscriptionInfo(ctx context.Context, q *queue) (SubscriptionInfo, error) {
	info := SubscriptionInfo{SubscriptionConfig: subscriptionOf(q), Durability: b.durability}
	var err error
	if info.Info, err = b.store.Info(ctx, q.target); err == nil {
		var of Info
		if of, err = b.store.Info(ctx, q.stream.target); err == nil {
			for i, p := range info.Partitions[:min(len(info.Partitions), len(of.Partitions))] {
				info.Partitioned = append(info.Partitioned, SubscriptionPartition{p.First, p.Next, max(of.Partitions[i].Next, p.Next)})
			}
		}
	}
	if isGone(err) {
		err = q.missing()
	}
	return info, storeError(err)
}

// bindSubscription makes a recorded subscription known.
func (b *Broker) bindSubscription(t Target, c *SubscriptionConfig) error {
	s := b.streamNamed(c.Stream)
	if s == nil {
		return fmt.Errorf("stream %q is not there", c.Stream)
	}
	q := b.byTarget(t)
	if q == nil {
		q = &queue{target: t, stream: s}
	}
	q.settings.Store(c.queue())
	b.mu.Lock()
	defer b.mu.Unlock()
	s.subs[c.Name], b.targets[t] = q, q
	return nil
}

func (b *Broker) unbindSubscription(q *queue) {
	name := q.config().Name
	b.mu.Lock()
	defer b.mu.Unlock()
	if q.stream.subs[name] == q {
		delete(q.stream.subs, name)
	}
	delete(b.targets, q.target)
}

func (b *Broker) subscriptionNamed(s *stream, name string) *queue {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return s.subs[name]
}

// lookupSubscription finds a subscription whose stream the principal of ctx may
// consume.
func (b *Broker) lookupSubscription(ctx context.Context, stream, name string) (*queue, error) {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return nil, err
	}
	q, err := known(b, func() *queue { return b.subscriptionNamed(s, name) })
	if q == nil && err == nil {
		err = noSubscription(stream, name)
	}
	return q, err
}

func noSubscription(stream, name string) error {
	return errorf(NotFound, SubscriptionSubject, "stream %q has no subscription %q; create it first", stream, name)
}

// Place says where in a stream something begins: at its earliest message, behind
// the latest one, at the first not before a time, or at the offsets given. The
// zero value is the earliest.
type Place struct {
	Latest  bool
	Time    time.Time
	Offsets []Offset
}

// offsets finds a place.
func (b *Broker) offsets(ctx context.Context, s *stream, p Place) ([]Offset, error) {
	info, err := b.store.Info(ctx, s.target)
	if isGone(err) {
		return nil, noStream(s.config().Name)
	}
	if err != nil {
		return nil, storeError(err)
	}
	if len(p.Offsets) > 0 {
		err := checkOffsets(s, &info, p.Offsets)
		for i := 0; err == nil && i < len(p.Offsets); i++ {
			if o, at := p.Offsets[i], &info.Partitions[p.Offsets[i].Partition]; o.Offset < at.First {
				err = readError(s, Pos{Partition: o.Partition, Seq: o.Offset}, &RangeError{First: at.First, Next: at.Next})
			}
		}
		return p.Offsets, err
	}
	var list []Offset
	for i, at := range info.Partitions {
		o := Offset{uint32(i), at.First}
		switch {
		case p.Latest:
			o.Offset = at.Next
		case !p.Time.IsZero():
			ds, err := b.store.Read(ctx, s.target, Pos{Partition: o.Partition, Time: p.Time}, 1, nil)
			if err != nil {
				return nil, readError(s, Pos{Partition: o.Partition}, err)
			}
			if o.Offset = at.Next; len(ds) > 0 {
				o.Offset = ds[0].Seq
			}
		}
		list = append(list, o)
	}
	return list, nil
}

// checkOffsets checks offsets against the stream as it is.
func checkOffsets(s *stream, info *Info, offsets []Offset) error {
	seen := map[uint32]bool{}
	for _, o := range offsets {
		switch {
		case int(o.Partition) >= len(info.Partitions):
			return noPartition(s, o.Partition)
		case seen[o.Partition]:
			return fieldError("offsets", "names partition %d twice", o.Partition)
		case o.Offset > info.Partitions[o.Partition].Next:
			return fieldError("offsets", "names offset %d of partition %d, beyond the end, which is %d",
				o.Offset, o.Partition, info.Partitions[o.Partition].Next)
		}
		seen[o.Partition] = true
	}
	return nil
}

// Seek moves a subscription. In the partitions that p names nothing is in
// flight any more, and their receipts from before are stale. It answers where it
// went. Errors: Invalid, Forbidden, NotFound.
func (b *Broker) Seek(ctx context.Context, stream, name string, p Place) ([]Offset, error) {
	q, err := b.lookupSubscription(ctx, stream, name)
	if err != nil {
		return nil, err
	}
	to, err := b.offsets(ctx, q.stream, p)
	if err != nil {
		return nil, err
	}
	c := newCommit()
	c.Seek(q.target, to...)
	if _, err := c.one(ctx, b.store); isGone(err) {
		return nil, q.missing()
	} else if err != nil {
		return nil, storeError(err)
	}
	b.log.Info().Str("stream", stream).Str("subscription", name).Msg("subscription moved")
	return to, nil
}

// AckUpTo acknowledges the message at o and all before it in its partition,
// whoever has them, and answers how many that were. Errors: Forbidden, NotFound
// of the subscription or the partition, Invalid (OffsetSubject) of an offset
// that the stream does not have yet.
func (b *Broker) AckUpTo(ctx context.Context, stream, name string, o Offset) (int, error) {
	q, err := b.lookupSubscription(ctx, stream, name)
	if err != nil {
		return 0, err
	}
	c := newCommit()
	c.SettleUpTo(q.target, o, ReasonAcked)
	r, err := c.one(ctx, b.store)
	if err != nil {
		return 0, b.offsetError(q, o, err)
	}
	return r.Count, nil
}

// AckAt acknowledges messages by their offsets, whoever has them, in one commit;
// each has a result of its own, whose errors are those of AckUpTo. It is for
// doors that know no receipts. Errors: Forbidden, NotFound.
func (b *Broker) AckAt(ctx context.Context, stream, name string, offsets ...Offset) ([]AckResult, error) {
	q, err := b.lookupSubscription(ctx, stream, name)
	if err != nil {
		return nil, err
	}
	c := newCommit()
	for _, o := range offsets {
		c.SettleAt(q.target, o, ReasonAcked)
		c.End()
	}
	if err := c.submit(ctx, b.store); err != nil {
		return nil, storeError(err)
	}
	defer c.release()
	results := make([]AckResult, len(offsets))
	for i, o := range offsets {
		switch err := c.Units[i].Result.Err; {
		case err == nil:
			results[i].State = Removed
		case err == ErrGone && b.byTarget(q.target) != nil: //nolint:errorlint // a store returns it bare
			results[i].State = Gone
		default:
			results[i].Err = b.offsetError(q, o, err)
		}
	}
	return results, nil
}

// offsetError words why nothing was settled at an offset.
func (b *Broker) offsetError(q *queue, o Offset, err error) error {
	switch {
	case !isGone(err):
		return storeError(err)
	case b.byTarget(q.target) == nil:
		return q.missing()
	case int(o.Partition) >= q.stream.config().Partitions:
		return noPartition(q.stream, o.Partition)
	}
	return errorf(Invalid, OffsetSubject, "offset %d of partition %d cannot be acknowledged: the stream does not have it yet, or it is far ahead of what was handed out", o.Offset, o.Partition)
}
