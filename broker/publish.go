package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"millrace/broker/auth"
	"millrace/router"
)

// Matched says what a publish met: subscriptions, queues and streams. With
// several nodes, those of clients of another one count as one for each filter of
// that node that matched: none means none on any node.
type Matched struct{ Subscribers, Queues, Streams int }

// Published is the broker's answer to a publish.
type Published struct {
	ID         ID
	Time       int64 // when it was taken, Unix milliseconds
	Matched    Matched
	Duplicate  bool
	Durability Durability
}

// Publish takes m, and returns when it is as durable as Published.Durability
// says. The principal comes from ctx. ctx bounds the wait only: when it ends
// first the outcome is Unknown. m and its bytes must not change any more.
//
// Errors: Invalid (topic, payload), Forbidden, TooLarge, Full (a queue that
// rejects, or a limit; nothing was stored anywhere), Unavailable, Unknown.
func (b *Broker) Publish(ctx context.Context, m *Message) (Published, error) {
	ps, err := b.publish(ctx, []*Message{m})
	if err != nil {
		if e, ok := errors.AsType[*BatchError](err); ok {
			err = e.Err
		}
		return Published{}, err
	}
	return ps[0], nil
}

// PublishBatch is Publish for many in one commit: all are stored, or none. The
// error of a bad entry is a *BatchError that names its index.
// Entries under one idempotency key and topic are stored once; the later ones
// are told as duplicates.
func (b *Broker) PublishBatch(ctx context.Context, ms []*Message) ([]Published, error) {
	first, err := repeats(ms)
	if err != nil {
		return nil, err
	}
	if first == nil {
		return b.publish(ctx, ms)
	}
	var once []*Message
	at := make([]int, len(ms)) // of an entry in once
	var back []int             // and the reverse
	for i, m := range ms {
		if first[i] == i {
			at[i] = len(once)
			once, back = append(once, m), append(back, i)
		}
	}
	ps, err := b.publish(ctx, once)
	if e, ok := errors.AsType[*BatchError](err); ok {
		e.Index = back[e.Index]
	}
	if err != nil {
		return nil, err
	}
	all := make([]Published, len(ms))
	for i := range ms {
		all[i] = ps[at[first[i]]]
		all[i].Duplicate = all[i].Duplicate || first[i] != i
	}
	return all, nil
}

// repeats finds the entries that repeat the idempotency key and topic of an
// earlier one: first[i] is that one's index, or i itself. It is nil when no
// entry has a key.
func repeats(ms []*Message) (first []int, err error) {
	type scope struct{ key, topic string }
	var seen map[scope]int
	for i, m := range ms {
		if m.DedupKey == "" {
			continue
		}
		if seen == nil {
			seen, first = make(map[scope]int), make([]int, len(ms))
			for j := range first {
				first[j] = j
			}
		}
		s := scope{m.DedupKey, m.Topic}
		j, again := seen[s]
		if !again {
			seen[s] = i
			continue
		}
		if !bytes.Equal(ms[j].Payload, m.Payload) {
			return nil, &BatchError{Index: i, Err: keyConflict(nil)}
		}
		first[i] = j
	}
	return first, nil
}

// keyConflict is the answer to another message under a key that was used.
func keyConflict(cause error) error {
	return &Error{
		Kind: Conflict, Subject: MessageSubject, Err: cause,
		Message: "the idempotency key was used for another message within five minutes; use a new key for a new message",
	}
}

// Send publishes ms to one queue, past the router: they carry the topic
// "$queue/NAME", and no filter sees them. All are stored, or none. The rest is
// as in PublishBatch; NotFound when there is no such queue.
func (b *Broker) Send(ctx context.Context, queue string, ms ...*Message) ([]Published, error) {
	q, err := b.lookup(ctx, auth.Publish, queue)
	if err == nil {
		err = b.overloaded()
	}
	if err == nil {
		err = b.roomInStore()
	}
	if err != nil {
		return nil, err
	}
	most, topic := q.config().MaxPayload, "$queue/"+queue
	ps, err := b.commitAll(ctx, ms, func(c *pending, p *auth.Principal, m *Message, tag uint64) error {
		if most > 0 && int64(len(m.Payload)) > most {
			return errorf(TooLarge, PayloadSubject, "payload of %d bytes is over the %d that queue %s may hold in all", len(m.Payload), most, queue)
		}
		m.Topic = topic
		if err := b.stamp(p, m, b.Now()); err != nil {
			return err
		}
		c.append(m, tag, matches{Matched: Matched{Queues: 1}, durability: b.promise(q)}, []Route{{Target: q.target}}, len(c.subs))
		return nil
	})
	if isGone(err) {
		err = noQueue(queue) // deleted meanwhile
	}
	return ps, err
}

// BatchError is the error of one entry of a batch; nothing of the batch was
// stored.
type BatchError struct {
	Index int
	Err   error
}

// Error returns the entry's error text.
func (e *BatchError) Error() string { return e.Err.Error() }

// Unwrap returns the entry's error.
func (e *BatchError) Unwrap() error { return e.Err }

// publish routes ms, and commits them as one unit.
func (b *Broker) publish(ctx context.Context, ms []*Message) ([]Published, error) {
	return b.commitAll(ctx, ms, (*pending).add)
}

// commitAll adds each of ms to one unit, commits it and waits.
func (b *Broker) commitAll(ctx context.Context, ms []*Message, add func(*pending, *auth.Principal, *Message, uint64) error) ([]Published, error) {
	principal, size := auth.From(ctx), 0
	for _, m := range ms {
		size += len(m.Payload)
	}
	if err := b.book(ctx, principal, len(ms), size); err != nil {
		return nil, err
	}
	trace := traceFrom(ctx)
	w := b.newWaitingPublish()
	for i, m := range ms {
		trace.mark(m)
		if err := add(&w.pending, principal, m, uint64(i)); err != nil {
			b.stats.refused.Add(uint64(len(ms)))
			w.release()
			return nil, &BatchError{Index: i, Err: err}
		}
	}
	w.closeUnit()
	if err := w.commit(ctx); err != nil {
		return nil, err
	}
	defer w.release()
	ps := make([]Published, len(ms))
	for i := range w.outcomes {
		if err := w.outcomes[i].Err; err != nil {
			return nil, &BatchError{Index: i, Err: err}
		}
		ps[i] = w.outcomes[i].Published
	}
	return ps, nil
}

// admit checks that p may publish m to its topic, and stamps it.
func (b *Broker) admit(p *auth.Principal, m *Message, now time.Time) error {
	if err := b.overloaded(); err != nil {
		return err
	}
	if router.SpaceOf(m.Topic) == router.SpaceDelayed {
		if err := undelay(m, now); err != nil {
			return err
		}
	}
	if err := b.CheckTopic(m.Topic); err != nil {
		return err
	}
	if err := b.permit(p, auth.Publish, auth.TopicResource(m.Topic)); err != nil {
		return err
	}
	if err := b.roomToRetain(m); err != nil {
		return err
	}
	return b.stamp(p, m, now)
}

// overloaded refuses publishers while memory is short: consumers make room.
func (b *Broker) overloaded() error {
	if b.opts.Overloaded == nil || !b.opts.Overloaded() {
		return nil
	}
	return errorf(Full, NoSubject, "the server has reached its memory limit; nothing was stored: try again, consume what waits, or raise limits.memory")
}

// stamp checks what holds for every message, and gives it its id and time.
func (b *Broker) stamp(p *auth.Principal, m *Message, now time.Time) error {
	if b.closed.Load() {
		return errClosed
	}
	if len(m.Payload) > b.opts.MaxPayload {
		return errorf(TooLarge, PayloadSubject, "payload of %d bytes is over the limit of %d; send it in parts, or raise limits.payload",
			len(m.Payload), b.opts.MaxPayload)
	}
	if m.NotBefore > now.Add(MaxDelay).UnixMilli() {
		return fieldError("delay_seconds", "is over %d, which is the limit", MaxDelay/time.Second)
	}
	if m.DedupKey != "" {
		if len(m.DedupKey) > maxDedupKey {
			return fieldError("idempotency_key", "is of %d bytes; it must be at most %d", len(m.DedupKey), maxDedupKey)
		}
		scopeDedup(p, m)
	}
	m.ID, m.Published = b.ids.next(now), now.UnixMilli()
	return nil
}

// maxDedupKey is the longest idempotency key, in bytes.
const maxDedupKey = 128

// scopeDedup makes the producer's key one of its principal and topic, and notes
// what the message is, so that another one under the same key is told apart.
func scopeDedup(p *auth.Principal, m *Message) {
	h := sha256.New()
	for _, part := range []string{p.String(), m.Topic, m.DedupKey} {
		_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(part)))) // never fails
		_, _ = h.Write([]byte(part))
	}
	m.DedupKey = string(h.Sum(nil)[:16])
	h.Reset()
	_, _ = h.Write(m.Payload)
	m.BodyHash = binary.BigEndian.Uint64(h.Sum(nil))
}

// matches is what a message met in the topic tree.
type matches struct {
	Matched
	own        int // subscriptions of the publisher itself, who wants none of its own
	durability Durability
}

// who says which of the destinations that match are wanted.
type who uint8

const (
	clientsToo who = iota // all of them
	storesOnly            // queues and streams, while clients are only counted
	clientsOnly
	nearby // live clients of this node: a message that came from another
)

// match appends where m goes to routes and subs. Queues named in m.Origins,
// which dead-lettered it, are left out.
func (b *Broker) match(p *auth.Principal, m *Message, w who, found []destination, routes []Route, subs []*Subscription) (matches, []destination, []Route, []*Subscription) {
	var r matches
	found = b.tree.Match(m.Topic, found[:0])
	readers := b.auth.Readers(m.Topic)
	disk, mixed := false, false
	for _, d := range found {
		switch d := d.(type) {
		case *Subscription:
			if d.via != nil && !d.via.takes(m, w) {
				continue
			}
			if r.Subscribers++; w != storesOnly {
				subs = append(subs, d)
			}
		case *queue:
			if w >= clientsOnly || d.deadLettered(m) {
				continue
			}
			r.Queues++
			routes = append(routes, Route{Target: d.target})
			disk = disk || !d.volatile
		case *stream:
			if w >= clientsOnly {
				continue
			}
			r.Streams++
			routes = append(routes, Route{Target: d.target, Partition: b.partition(d, p, m)})
			disk = true
		case *sharedGroup:
			if m.QoS == 0 || w == nearby {
				continue
			}
			if r.Subscribers++; w != storesOnly {
				routes, disk = append(routes, Route{Target: d.target}), true
			}
		case *sessionSub:
			if d.own(m) {
				r.own++
				continue
			}
			if !d.may(&readers) {
				continue
			}
			r.Subscribers++
			switch {
			case w == storesOnly:
			case min(d.o.QoS, m.QoS) > 0:
				routes, disk = d.route(m, routes), true
			case m.QoS > 0 && d.s.multi.Load():
				mixed = true
			default:
				subs = d.toLive(subs)
			}
		}
	}
	if mixed {
		subs = toRest(m, &readers, found, routes, subs)
	}
	r.durability = b.durability
	if !disk && r.Queues > 0 {
		r.durability = DurabilityMemory
	}
	return r, found, routes, subs
}

// partition chooses by key, then by the MQTT client that published, which
// keeps its order, then by the key under which a repeat is known, then in turn.
func (b *Broker) partition(s *stream, p *auth.Principal, m *Message) uint32 {
	n := uint32(s.config().Partitions)
	switch {
	case n <= 1:
		return 0
	case m.Key != "":
		return murmur2(m.Key) % n
	case p != nil && p.ClientID != "":
		return murmur2(p.ClientID) % n
	case m.DedupKey != "":
		return murmur2(m.DedupKey) % n
	default:
		return s.turn.Add(1) % n
	}
}
