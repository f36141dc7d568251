package jetstream

import (
	"context"
	"sync/atomic"
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
	fresh, err := q.purgeFresh(ctx, all)
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

// purgeFresh removes what was never handed out: the whole stream if nothing else is in it
// and nothing under way, or else one message after the other. The stream follows what is
// acknowledged a moment later, so that it cannot tell how many were left.
func (q *queue) purgeFresh(ctx context.Context, all bool) (int, error) {
	q.mu.Lock()
	before, _ := q.marks()
	q.mu.Unlock()
	at, err := q.s.state(ctx, q.stream)
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	now, still := q.marks()
	alone := still && now == before && len(q.entries) == 0 && !q.pull.open && (all || q.unknown == 0)
	q.mu.Unlock()
	if !alone {
		return q.purgeEach(ctx, at.Last)
	}
	if err := q.s.purgeBefore(ctx, q.stream, "", at.Last+1); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leave(broker.ReasonPurged, uint64(now.held))
	if q.held.n -= now.held; q.held.n <= 0 {
		q.held = holding{}
	}
	q.recount.more = 0
	return int(now.held), nil
}

// purgePage is how many messages a purge looks at before it removes them.
const purgePage = 1000

// unhanded is a message that was never handed out, when it was read.
type unhanded struct {
	seq uint64
	size
}

// purgeEach removes up to a sequence what was never handed out.
func (q *queue) purgeEach(ctx context.Context, last uint64) (int, error) {
	q.mu.Lock()
	from := q.delivered + 1
	q.mu.Unlock()
	var page []unhanded
	var n atomic.Int64
	remove := func() error {
		err := parallel(page, func(x unhanded) error {
			gone, err := q.purgeUnhanded(ctx, x)
			if gone {
				n.Add(1)
			}
			return err
		})
		page = page[:0]
		return err
	}
	err := q.s.scan(ctx, q.stream, q.subject, span{from, last + 1}, func(m *stored) error {
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return err
		}
		if page = append(page, unhanded{m.Seq, sizeOf(&d.Message, m.Data)}); len(page) < purgePage {
			return nil
		}
		return remove()
	})
	if err == nil {
		err = remove()
	}
	return int(n.Load()), err
}

// purgeUnhanded removes a message unless it was handed out meanwhile, and reports whether
// it did.
func (q *queue) purgeUnhanded(ctx context.Context, x unhanded) (bool, error) {
	q.mu.Lock()
	there := q.entries[x.seq] == nil && x.seq > q.delivered && !q.gone.has(x.seq)
	q.mu.Unlock()
	if !there {
		return false, nil
	}
	there, err := q.s.remove(ctx, q.stream, x.seq)
	if err != nil || !there {
		return false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.entries[x.seq] != nil {
		return false, nil
	}
	q.held.add(x.size, -1)
	q.leave(broker.ReasonPurged, 1)
	q.gone.add(x.seq)
	return true, nil
}

// purgeScheduled removes the delayed messages that are known. What is on its way behind
// them stays, and so does what is due.
func (q *queue) purgeScheduled(ctx context.Context) (n int, err error) {
	q.mu.Lock()
	last := uint64(0)
	for _, x := range q.scheduled {
		last = max(last, x.seq)
	}
	q.mu.Unlock()
	if err := q.s.purgeBefore(ctx, q.s.names.delayStream(), q.s.names.scheduledOf(q.id), last+1); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, x := range q.scheduled {
		if x.seq <= last {
			q.unschedule(id)
			n++
		}
	}
	q.leave(broker.ReasonPurged, uint64(n))
	return n, nil
}

// purgeDead removes the dead messages that are known.
func (q *queue) purgeDead(ctx context.Context) (n int, err error) {
	q.mu.Lock()
	last := uint64(0)
	for seq := range q.dead {
		last = max(last, seq)
	}
	q.mu.Unlock()
	if err := q.s.purgeBefore(ctx, q.s.names.deadStream(), q.s.names.deadOf(q.id), last+1); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for seq, d := range q.dead {
		if seq <= last {
			delete(q.dead, seq)
			q.aside.add(d.size, -1)
			n++
		}
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
