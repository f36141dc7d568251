package jetstream

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"millrace/broker"
)

// seen is a message that a browse may show.
type seen struct {
	seq uint64
	e   entry
}

// read implements target: it browses, leasing nothing.
func (q *queue) read(ctx context.Context, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	skip, want := p.Skip, len(dst)+limit
	add := func(d broker.Delivery) bool {
		if skip > 0 {
			skip--
			return true
		}
		dst = append(dst, d)
		return len(dst) < want
	}
	if limit <= 0 {
		return dst, nil
	}
	if p.States&(broker.Ready|broker.Leased|broker.Delayed) != 0 && p.Seq < scheduledBit {
		if more, err := q.browse(ctx, p, add); !more || err != nil {
			return dst, err
		}
	}
	if p.States&broker.Delayed != 0 && p.Seq < deadBit {
		if more, err := q.browseScheduled(ctx, p, add); !more || err != nil {
			return dst, err
		}
	}
	if p.States&broker.Dead != 0 {
		_, err := q.browseDead(ctx, p, add)
		return dst, err
	}
	return dst, nil
}

// browse shows what lies in the stream of the queue.
func (q *queue) browse(ctx context.Context, p broker.Pos, add func(broker.Delivery) bool) (bool, error) {
	q.mu.Lock()
	var list []seen
	for seq, e := range q.entries {
		if seq >= p.Seq && p.States&e.state.shown() != 0 {
			list = append(list, seen{seq, *e})
		}
	}
	from := max(q.delivered+1, p.Seq)
	q.mu.Unlock()
	slices.SortFunc(list, func(a, b seen) int { return cmp.Compare(a.seq, b.seq) })
	for i := range list {
		m, err := q.there(ctx, list[i].seq)
		if errors.Is(err, broker.ErrGone) {
			continue
		}
		if err != nil {
			return false, err
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return false, err
		}
		d.Ref, d.Until, d.State, d.Reason = list[i].e.ref(q), list[i].e.until, list[i].e.state.shown(), list[i].e.why
		if !add(d) {
			return false, nil
		}
	}
	for p.States&broker.Ready != 0 {
		m, err := q.nextFresh(ctx, from)
		if err != nil {
			return false, err
		}
		if m == nil {
			break
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return false, err
		}
		d.Ref, d.State = broker.Ref{Target: q.id, Seq: m.Seq}, broker.Ready
		if !add(d) {
			return false, nil
		}
		from = m.Seq + 1
	}
	return true, nil
}

// shown is the state as browsing knows it, 0 for what it does not show.
func (s state) shown() broker.EntryState {
	switch s {
	case back, blocked, unclaimed:
		return broker.Ready
	case leased, leaving:
		return broker.Leased
	case delayed:
		return broker.Delayed
	case parked:
		return broker.Dead
	default:
		return 0
	}
}

// browseScheduled shows publishes that are delayed, the one due next first.
func (q *queue) browseScheduled(ctx context.Context, p broker.Pos, add func(broker.Delivery) bool) (bool, error) {
	q.mu.Lock()
	var list []scheduled
	for _, id := range q.byTime() {
		if x := q.scheduled[id]; x.seq|scheduledBit >= p.Seq {
			list = append(list, x)
		}
	}
	q.mu.Unlock()
	for _, x := range list {
		m, err := q.s.fetch(ctx, q.s.names.delayStream(), getRequest{Seq: x.seq})
		if errors.Is(err, broker.ErrNotFound) {
			continue // due meanwhile
		}
		if err != nil {
			return false, err
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return false, err
		}
		d.Ref, d.State = broker.Ref{Target: q.id, Seq: x.seq | scheduledBit}, broker.Delayed
		d.Until = d.Queued
		if !add(d) {
			return false, nil
		}
	}
	return true, nil
}

// browseDead shows dead messages.
func (q *queue) browseDead(ctx context.Context, p broker.Pos, add func(broker.Delivery) bool) (bool, error) {
	return q.readAside(ctx, q.s.names.deadStream(), q.s.names.deadOf(q.id), p.Seq&^deadBit, func(m *stored, d *broker.Delivery) bool {
		number := func(name string) int64 {
			n, _ := strconv.ParseInt(m.header.Get(name), 10, 64) // we wrote it
			return n
		}
		d.Ref = broker.Ref{Target: q.id, Seq: m.Seq | deadBit, Attempt: uint32(number(headerAttempt))}
		d.State, d.Reason, d.Until, d.Queued = broker.Dead, broker.Reason(number(headerReason)), m.Time.UnixMilli(), number(headerQueued)
		return add(*d)
	})
}

// readAside shows what lies in a stream that queues share.
func (q *queue) readAside(ctx context.Context, stream, subject string, from uint64, show func(*stored, *broker.Delivery) bool) (bool, error) {
	for {
		m, err := q.s.fetch(ctx, stream, getRequest{Seq: max(from, 1), Next: subject})
		if errors.Is(err, broker.ErrNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return false, err
		}
		if !show(m, &d) {
			return false, nil
		}
		from = m.Seq + 1
	}
}
