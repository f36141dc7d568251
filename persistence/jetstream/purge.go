package jetstream

import (
	"context"
	"time"

	"millrace/broker"
)

// purge removes what is ready and delayed, with All also what is leased and dead.
func (u *unit) purge(q *queue, op *broker.Op) error {
	n, err := q.purge(u.sub.s.ctx, op.All)
	u.u.Result.Count = n
	return err
}

func (q *queue) purge(ctx context.Context, all bool) (int, error) {
	n, err := q.purgeScheduled(ctx)
	if err != nil {
		return n, err
	}
	q.mu.Lock()
	var list []*entry
	for _, e := range q.entries {
		if e.state.waits() || e.state == delayed || all && e.state == leased {
			list = append(list, e)
			e.set(q, leaving)
			e.disarm()
		}
	}
	kept := q.count[leased] + q.count[heldBack]
	q.mu.Unlock()
	for i, e := range list {
		if err := q.purgeOne(ctx, e); err != nil {
			q.mu.Lock()
			for _, e := range list[i+1:] { // whoever had it has a lease in JetStream
				e.set(q, back)
			}
			q.mu.Unlock()
			return n, err
		}
		n++
	}
	fresh, err := q.purgeFresh(ctx, kept == 0)
	n += fresh
	if err != nil || !all {
		return n, err
	}
	dead, err := q.purgeDead(ctx)
	return n + dead, err
}

// purgeOne removes a message that has an entry.
func (q *queue) purgeOne(ctx context.Context, e *entry) error {
	answer := make(chan error, 1)
	q.settlement(e, []byte("+ACK"), func(err error) { answer <- err })
	err := <-answer
	if err == nil && e.tries == 0 {
		_, err = q.s.remove(ctx, q.stream, e.seq)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		e.set(q, back)
		q.doubtSettled(e, broker.ReasonPurged, false, err)
		return err
	}
	q.lose(e, broker.ReasonPurged)
	return nil
}

// purgeFresh removes what was never handed out: the whole stream if nothing else
// is in it, or else one message after the other.
func (q *queue) purgeFresh(ctx context.Context, alone bool) (int, error) {
	if alone {
		q.mu.Lock()
		alone = len(q.entries) == 0 && !q.pull.open
		q.mu.Unlock()
	}
	if alone {
		n, err := q.s.purge(ctx, q.stream, "")
		q.mu.Lock()
		defer q.mu.Unlock()
		q.leave(broker.ReasonPurged, uint64(n))
		if q.held.n -= int64(n); q.held.n <= 0 {
			q.held = holding{}
		}
		return n, err
	}
	at, err := q.s.state(ctx, q.stream)
	if err != nil {
		return 0, err
	}
	n := 0
	for {
		q.mu.Lock()
		from := q.delivered + 1
		q.mu.Unlock()
		m, err := q.nextFresh(ctx, from)
		if err != nil || m == nil || m.Seq > at.Last {
			return n, err
		}
		there, err := q.s.remove(ctx, q.stream, m.Seq)
		if err != nil {
			return n, err
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return n, err
		}
		q.mu.Lock()
		if there && q.entries[m.Seq] == nil {
			n++
			q.held.add(sizeOf(&d.Message, m.Data), -1)
			q.leave(broker.ReasonPurged, 1)
			q.gone.add(m.Seq)
		}
		q.mu.Unlock()
	}
}

func (q *queue) purgeScheduled(ctx context.Context) (int, error) {
	n, err := q.s.purge(ctx, q.s.names.delayStream(), q.s.names.scheduledOf(q.id))
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for id := range q.scheduled {
		q.unschedule(id)
	}
	q.leave(broker.ReasonPurged, uint64(n))
	return n, nil
}

func (q *queue) purgeDead(ctx context.Context) (int, error) {
	n, err := q.s.purge(ctx, q.s.names.deadStream(), q.s.names.deadOf(q.id))
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for seq, d := range q.dead {
		delete(q.dead, seq)
		q.aside.add(d.size, -1)
	}
	q.leave(broker.ReasonPurged, uint64(n))
	return n, nil
}

// info implements target.
func (q *queue) info(ctx context.Context) (broker.Info, error) {
	if err := q.lookAgain(ctx); err != nil {
		return broker.Info{}, err
	}
	more, err := q.countAgain(ctx)
	if err != nil {
		return broker.Info{}, err
	}
	q.mu.Lock()
	t := q.total()
	in := broker.Info{
		Ready: q.freshOf(q.held.n+more) + q.count[back] + q.count[blocked] + q.count[unclaimed], Leased: q.count[leased] + q.count[leaving] + q.unknown, Delayed: q.count[delayed] + int64(len(q.scheduled)),
		Held: q.count[heldBack], Dead: int64(len(q.dead)), Bytes: t.bytes, Payload: t.payload, In: q.in + uint64(more), Out: q.out, Activity: q.since,
	}
	for _, e := range q.entries {
		if e.state.waits() {
			in.Oldest = older(in.Oldest, e.queued)
		}
	}
	from, fresh := q.delivered+1, q.fresh() > 0
	q.mu.Unlock()
	if !fresh {
		return in, nil
	}
	m, err := q.nextFresh(ctx, from)
	if err != nil || m == nil {
		return in, err
	}
	d, err := q.delivery(m.Data, m.header, m.Time)
	in.Oldest = older(in.Oldest, d.Queued)
	return in, err
}

// handedOut is how many messages with an entry JetStream counts as pending.
func (q *queue) handedOut() (n int64) {
	for _, e := range q.entries {
		if e.tries > 0 {
			n++
		}
	}
	return n
}

// lookAgain asks how many messages are out that this process knows nothing of,
// while there were any.
func (q *queue) lookAgain(ctx context.Context) error {
	q.mu.Lock()
	unknown := q.unknown
	q.mu.Unlock()
	if unknown == 0 {
		return nil
	}
	at, err := q.s.consumed(ctx, q.stream)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unknown = min(q.unknown, max(at.Pending-q.handedOut(), 0))
	return nil
}

// older returns the earlier of a time, if there is one, and another.
func older(t time.Time, ms int64) time.Time {
	if o := broker.Time(ms); t.IsZero() || o.Before(t) {
		return o
	}
	return t
}
