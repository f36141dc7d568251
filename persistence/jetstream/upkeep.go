package jetstream

import (
	"container/heap"
	"context"
	"errors"
	"time"

	"millrace/broker"
)

// timeHeap says when to look at a message, by time.
type timeHeap struct{ list times }

type timeOf struct {
	at  int64
	seq uint64
}

type times []timeOf

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i].at < t[j].at }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *times) Push(x any)        { *t = append(*t, x.(timeOf)) }
func (t *times) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

func (h *timeHeap) push(at int64, seq uint64) { heap.Push(&h.list, timeOf{at, seq}) }

// due pops the earliest that is not after now.
func (h *timeHeap) due(now int64) (uint64, bool) {
	if len(h.list) == 0 || h.list[0].at > now {
		return 0, false
	}
	return heap.Pop(&h.list).(timeOf).seq, true
}

// plan has the upkeep run when the next message expires or a dead one is over.
func (q *queue) plan(now int64) {
	if !q.begun || q.dropped || q.keeping {
		return
	}
	next := int64(0)
	earlier := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	if len(q.expires.list) > 0 {
		earlier(q.expires.list[0].at)
	}
	if ttl := q.def.TTL.Milliseconds(); ttl > 0 && q.fresh() > 0 {
		earlier(max(q.oldest+ttl, 1))
	}
	if keep := q.def.DeadRetention.Milliseconds(); keep > 0 {
		for _, d := range q.dead {
			earlier(d.since + keep)
		}
	}
	if next == 0 || q.wake != 0 && q.wake <= next && q.wake > now {
		return
	}
	q.wake = next
	d := max(time.Duration(next-now)*time.Millisecond, 0)
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.woken)
		return
	}
	q.timer.Reset(d)
}

// woken runs the upkeep, one at a time.
func (q *queue) woken() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake = 0
	if q.dropped || q.keeping {
		return
	}
	q.keeping = true
	q.s.spawn(func() {
		err := q.upkeep(q.s.ctx)
		q.mu.Lock()
		q.keeping = false
		if err != nil { // no leader just now: later
			q.wake = q.s.Now().Add(giveUpAfter).UnixMilli()
			q.timer.Reset(giveUpAfter)
		} else {
			q.plan(q.s.milli())
		}
		q.mu.Unlock()
	})
}

// upkeep ends what expired and the dead that were kept long enough.
func (q *queue) upkeep(ctx context.Context) error {
	now := q.s.milli()
	for {
		q.mu.Lock()
		seq, ok := q.expires.due(now)
		q.mu.Unlock()
		if !ok {
			break
		}
		if err := q.expireAt(ctx, seq, now); err != nil {
			return err
		}
	}
	if err := q.expireOldest(ctx, now); err != nil {
		return err
	}
	var over []uint64
	q.mu.Lock()
	if keep := q.def.DeadRetention.Milliseconds(); keep > 0 {
		for seq, d := range q.dead {
			if d.since+keep <= now {
				over = append(over, seq)
			}
		}
	}
	q.mu.Unlock()
	for _, seq := range over {
		if err := q.bury(ctx, seq, broker.ReasonRetention); err != nil && !errors.Is(err, broker.ErrGone) {
			return err
		}
	}
	if len(over) > 0 {
		q.s.tell(func(e broker.Events) { e.Dropped(q.id, broker.ReasonRetention, len(over)) })
	}
	return nil
}

// expireAt ends the message seq if its time is over and nobody has it.
func (q *queue) expireAt(ctx context.Context, seq uint64, now int64) error {
	q.mu.Lock()
	e := q.entries[seq]
	if e != nil {
		var after func()
		if end := q.endOfEntry(e); e.state.waits() && end != 0 && end <= now {
			after = q.expire(e)
		}
		q.mu.Unlock()
		if after != nil {
			after()
		}
		return nil
	}
	q.mu.Unlock()
	m, err := q.there(ctx, seq)
	if errors.Is(err, broker.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return q.takeOut(m, broker.ReasonExpired, now)
}

// expireOldest ends what waits for longer than the queue's time to live. Those
// that came back have their own place in the heap.
func (q *queue) expireOldest(ctx context.Context, now int64) error {
	for {
		q.mu.Lock()
		ttl, from := q.def.TTL.Milliseconds(), q.delivered+1
		q.mu.Unlock()
		if ttl == 0 {
			return nil
		}
		m, err := q.nextFresh(ctx, from)
		if err != nil || m == nil {
			return err
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return err
		}
		if d.Queued+ttl > now {
			q.mu.Lock()
			q.oldest = d.Queued
			q.mu.Unlock()
			return nil
		}
		if err := q.takeOut(m, broker.ReasonExpired, now); err != nil {
			return err
		}
	}
}

// nextFresh returns the first message from a sequence on of which there is no
// entry, or nil.
func (q *queue) nextFresh(ctx context.Context, from uint64) (*stored, error) {
	for {
		m, err := q.s.fetch(ctx, q.stream, getRequest{Seq: from, Next: q.subject})
		if errors.Is(err, broker.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		q.mu.Lock()
		fresh := q.entries[m.Seq] == nil && !q.gone.has(m.Seq)
		q.mu.Unlock()
		if fresh {
			return m, nil
		}
		from = m.Seq + 1
	}
}

// takeOut makes an entry of a message that was never handed out, and ends it
// for a reason. One that is handed out meanwhile stays.
func (q *queue) takeOut(m *stored, why broker.Reason, now int64) error {
	d, err := q.delivery(m.Data, m.header, m.Time)
	if err != nil {
		return err
	}
	q.mu.Lock()
	if q.entries[m.Seq] != nil || q.gone.has(m.Seq) {
		q.mu.Unlock()
		return nil
	}
	if end := q.endOf(&d.Message, d.Queued); why == broker.ReasonExpired && (end == 0 || end > now) {
		q.mu.Unlock()
		return nil
	}
	e := &entry{
		seq: m.Seq, state: back, id: d.ID, queued: d.Queued, expires: d.Expires, size: sizeOf(&d.Message, m.Data), key: q.keyOf(&d.Message),
	}
	q.topicOf(e, &d.Message)
	q.keep(e)
	after := q.discard(e, why)
	q.mu.Unlock()
	if after != nil {
		after()
	}
	return nil
}

// expire ends e, whose time is over.
func (q *queue) expire(e *entry) func() { return q.discard(e, broker.ReasonExpired) }

// discard ends e for a reason: it is held for the broker if the queue says so,
// or else removed and told as dropped. What it returns is called without the lock,
// or does not wait.
func (q *queue) discard(e *entry, why broker.Reason) func() {
	if why == broker.ReasonExpired && q.def.ExpiryLapses || why == broker.ReasonOverflow && q.def.OverflowLapses {
		return q.hold(e, why)
	}
	tries := e.tries
	q.lose(e, why)
	q.s.tell(func(b broker.Events) { b.Dropped(q.id, why, 1) })
	if tries > 0 {
		q.settlement(e, []byte("+ACK"), nil)
	}
	q.s.spawn(func() {
		if _, err := q.s.remove(q.s.ctx, q.stream, e.seq); err != nil {
			q.s.log.Warn().Err(err).Str("queue", q.def.Name).Uint64("seq", e.seq).Msg("an expired message stays in jetstream until it is handed out")
		}
	})
	return nil
}

// dropOne takes the oldest message that is ready, or else a delayed one, or else
// a dead one; it reports whether there was any.
func (q *queue) dropOne(ctx context.Context) (bool, error) {
	q.mu.Lock()
	var oldest *entry
	for _, e := range q.entries {
		if e.state.waits() && (oldest == nil || e.seq < oldest.seq) {
			oldest = e
		}
	}
	if oldest != nil {
		after := q.discard(oldest, broker.ReasonOverflow)
		q.mu.Unlock()
		if after != nil {
			after()
		}
		return true, nil
	}
	from := q.delivered + 1
	q.mu.Unlock()
	m, err := q.nextFresh(ctx, from)
	if err != nil {
		return false, err
	}
	if m != nil {
		return true, q.takeOut(m, broker.ReasonOverflow, 0)
	}
	return q.dropAside(ctx)
}
