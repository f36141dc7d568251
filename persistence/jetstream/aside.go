package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
)

// Headers of a dead message.
const (
	headerReason  = "Mr-Reason"
	headerAttempt = "Mr-Attempt"
	headerQueued  = "Mr-Queued"
)

// deadEntry is a dead message.
type deadEntry struct {
	size
	since int64
	read  bool // when the store was opened
}

// openShared makes the streams that all queues share.
func (s *Store) openShared(ctx context.Context) error {
	if err := s.createStream(ctx, jetstream.StreamConfig{
		Name: s.names.deadStream(), Subjects: []string{s.names.prefix + ".x.>"}, Discard: jetstream.DiscardNew, Duplicates: dedupWindow, AllowDirect: true,
	}); err != nil {
		return err
	}
	if err := s.createStream(ctx, jetstream.StreamConfig{
		Name: s.names.delayStream(), Subjects: []string{s.names.prefix + ".d.>"}, Retention: jetstream.WorkQueuePolicy,
		AllowMsgSchedules: true, AllowMsgTTL: true, AllowRollup: true, AllowDirect: true,
	}); err != nil {
		return err
	}
	m, err := s.newMover(ctx)
	if err == nil {
		s.due = m
	}
	return err
}

// copyDead copies a held message to the stream of the dead.
func (q *queue) copyDead(ctx context.Context, op *broker.Op) error {
	m, err := q.there(ctx, op.Ref.Seq)
	if err != nil {
		return err
	}
	d, err := q.delivery(m.Data, m.header, m.Time)
	if err != nil {
		return err
	}
	a, err := q.s.water.dead.wait(ctx, q.s.names.deadSubject(q.id, op.Ref.Seq), nats.Header{
		headerID:     {fmt.Sprintf("dead %d %d", q.id, op.Ref.Seq)},
		headerReason: {strconv.Itoa(int(op.Reason))}, headerAttempt: {strconv.Itoa(int(op.Ref.Attempt))},
		headerQueued: {strconv.FormatInt(d.Queued, 10)},
	}, m.Data)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if x := q.dead[a.Seq]; x != nil && x.read { // a crash came between, and both were counted
		x.read = false
		q.in--
	}
	q.keepDead(a.Seq, &deadEntry{size: sizeOf(&d.Message, m.Data), since: q.s.milli()})
	q.plan(q.s.milli())
	return nil
}

// keepDead makes a dead message known.
func (q *queue) keepDead(seq uint64, d *deadEntry) {
	if q.dead[seq] == nil {
		q.dead[seq] = d
		q.aside.add(d.size, 1)
	}
}

// bury removes a dead message for good.
func (q *queue) bury(ctx context.Context, seq uint64, why broker.Reason) error {
	if _, err := q.s.remove(ctx, q.s.names.deadStream(), seq); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.dead[seq]
	if d == nil {
		return broker.ErrGone
	} // if it was not there, a removal of ours was not answered
	delete(q.dead, seq)
	q.aside.add(d.size, -1)
	q.leave(why, 1)
	return nil
}

// loadDead reads which messages are dead.
func (s *Store) loadDead(ctx context.Context) error {
	return s.each(ctx, s.names.deadStream(), s.names.prefix+".x.>", func(m *stored) error {
		q, ok := s.targets[targetOf(m.Subject, 2)].(*queue)
		if !ok {
			return nil
		}
		d, err := q.delivery(m.Data, nil, m.Time)
		if err != nil {
			return err
		}
		q.keepDead(m.Seq, &deadEntry{sizeOf(&d.Message, m.Data), m.Time.UnixMilli(), true})
		return nil
	})
}

// loadScheduled reads which messages are delayed.
func (s *Store) loadScheduled(ctx context.Context) error {
	return s.each(ctx, s.names.delayStream(), s.names.prefix+".d.>", func(m *stored) error {
		q, ok := s.targets[targetOf(m.Subject, 3)].(*queue)
		if !ok {
			return nil
		}
		d, err := q.delivery(m.Data, m.header, m.Time)
		if err != nil {
			return err
		}
		q.schedule(d.ID, scheduled{sizeOf(&d.Message, m.Data), d.Queued, m.Seq})
		return nil
	})
}

// unsend removes a delayed publish before it is due.
func (q *queue) unsend(ctx context.Context, seq uint64, why broker.Reason) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, x := range q.scheduled {
		if x.seq != seq {
			continue
		}
		q.mu.Unlock()
		there, err := q.s.remove(ctx, q.s.names.delayStream(), seq)
		q.mu.Lock()
		switch {
		case err != nil:
			return err
		case !there || !q.unschedule(id):
			return broker.ErrGone // it was due meanwhile
		}
		q.leave(why, 1)
		return nil
	}
	return broker.ErrGone
}

// dropAside takes a delayed message, or a dead one if there is none, to make
// room.
func (q *queue) dropAside(ctx context.Context) (bool, error) {
	q.mu.Lock()
	ids := q.byTime()
	dead := slices.Sorted(maps.Keys(q.dead))
	q.mu.Unlock()
	switch {
	case len(ids) > 0:
		n, err := q.s.purge(ctx, q.s.names.delayStream(), q.s.names.scheduledSubject(q.id, ids[0]))
		if err != nil || n == 0 {
			return false, err
		}
		q.mu.Lock()
		q.unschedule(ids[0])
		q.leave(broker.ReasonOverflow, 1)
		q.mu.Unlock()
	case len(dead) > 0:
		if err := q.bury(ctx, dead[0], broker.ReasonOverflow); err != nil {
			return false, err
		}
	default:
		return false, nil
	}
	q.s.tell(func(e broker.Events) { e.Dropped(q.id, broker.ReasonOverflow, 1) })
	return true, nil
}

// byTime returns the delayed publishes, the one due next first.
func (q *queue) byTime() []broker.ID {
	ids := slices.Collect(maps.Keys(q.scheduled))
	slices.SortFunc(ids, func(a, b broker.ID) int {
		x, y := q.scheduled[a], q.scheduled[b]
		return cmp.Or(cmp.Compare(x.until, y.until), cmp.Compare(x.seq, y.seq))
	})
	return ids
}

// mover brings delayed messages whose time has come into their queues.
type mover struct {
	s   *Store
	con jetstream.ConsumeContext
	c   jetstream.Consumer
}

func (s *Store) newMover(ctx context.Context) (*mover, error) {
	c, err := s.createConsumer(ctx, s.names.delayStream(), jetstream.ConsumerConfig{
		Durable: "mover", FilterSubject: s.names.dueAll(), AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
	})
	return &mover{s: s, c: c}, err
}

// begin starts the mover: from now on delays end.
func (m *mover) begin() {
	con, err := m.c.Consume(func(msg jetstream.Msg) { m.move(msg) }, jetstream.PullExpiry(ackWait))
	if err != nil {
		m.s.fail(fmt.Errorf("delayed messages cannot be read: %w", err))
		return
	}
	m.con = con
}

func (m *mover) stop() {
	if m.con != nil {
		m.con.Stop()
		<-m.con.Closed()
	}
}

// move publishes a message into its queue, with the id it always had, and
// acknowledges it after that.
func (m *mover) move(msg jetstream.Msg) {
	q, err := m.s.queueOf(targetOf(msg.Subject(), 3))
	if err != nil {
		if !errors.Is(err, broker.ErrClosed) {
			_ = msg.Ack() // its queue is gone
		}
		return
	}
	d, err := q.delivery(msg.Data(), msg.Headers(), m.s.Now())
	if err != nil {
		m.s.log.Error().Err(err).Msg("a delayed message")
		_ = msg.Term()
		return
	}
	meta, err := msg.Metadata()
	again := err != nil || meta.NumDelivered > 1
	z := sizeOf(&d.Message, msg.Data())
	from := q.water.level()
	m.s.calls.start(&call{
		subject: q.subject, data: msg.Data(),
		header: nats.Header{headerID: {msgID(d.ID)}, headerDue: {msg.Headers().Get(headerDue)}},
		done: func(answer *nats.Msg, err error) {
			a, err := q.water.answered(from, answer, err)
			if err != nil {
				_ = msg.NakWithDelay(resendAfter)
				return
			}
			q.arrivedLate(&d, z, a, again)
			_ = msg.Ack()
		},
	})
}

// arrivedLate books a delayed message that is in the queue now. One that was moved again
// may have been booked before.
func (q *queue) arrivedLate(d *broker.Delivery, z size, a pubAck, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch known := q.unschedule(d.ID); {
	case !known && a.Duplicate && again:
		return
	case !known: // it was due before its publish was answered, or while the queue was purged
		q.in++
		if q.flying > 0 {
			q.early[d.ID] = true
		}
	case a.Duplicate && a.Seq <= q.counted: // a crash came between, and both were counted
		q.in--
		return
	}
	q.held.add(z, 1)
	q.announce(a.Seq, &d.Message, z)
	if d.Expires != 0 {
		q.expires.push(d.Expires, a.Seq)
	}
	q.plan(q.s.milli())
}
