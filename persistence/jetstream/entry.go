package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// state is where a message stands that is not simply waiting in JetStream. The
// numbers are kept: append only.
type state uint8

const (
	back      state = iota // ready again: JetStream hands it out in its turn
	leased                 // with a consumer
	delayed                // given back for later
	heldBack               // told to the broker, which settles it
	leaving                // a settlement is under way
	parked                 // dead, in a subscription; those of queues are in a stream of their own
	blocked                // another message of its key is in flight
	unclaimed              // it arrived, and nobody has it
	states
)

// waits reports whether nobody has a message, and it may go to make room.
func (s state) waits() bool { return s == back || s == blocked || s == unclaimed }

// How JetStream is kept from handing out what we hold.
const (
	graceLease = 30 * time.Second // the lease of a last attempt is that much longer there
	holdFor    = time.Minute      // what is held is put off for so long, again and again
	holdAgain  = holdFor / 2
)

// entry is a message that this node handed out, or put aside, and that is still
// there.
type entry struct {
	seq      uint64
	epoch    uint64 // JetStream's number of the delivery
	tries    uint32 // deliveries as JetStream counts them; 0: it never left the stream
	returned uint32 // of them, those that reached nobody
	picked   uint32 // deliveries of which JetStream does not know
	id       broker.ID
	topic    string // while there are parts
	key      string // of a keyed queue
	told     bool   // to the broker: it counts in no limit, also while the broker settles it
	met      bool   // an earlier start handed it out, and JetStream counts when it was put off as well
	state    state
	until    int64
	queued   int64
	expires  int64 // the message's own time
	why      broker.Reason
	size     size
	timer    *time.Timer
	next     []func() // settlements that came while one was under way
}

// attempt is how often consumers had the message.
func (e *entry) attempt() uint32 { return e.tries - min(e.returned, e.tries) + e.picked }

// undo takes back the newest delivery, which reached nobody.
func (e *entry) undo() {
	if e.picked > 0 {
		e.picked--
	} else {
		e.returned++
	}
}

// ref names the newest delivery of e.
func (e *entry) ref(q *queue) broker.Ref {
	return broker.Ref{Target: q.id, Seq: e.seq, Attempt: e.attempt(), Epoch: uint32(e.epoch)}
}

// set moves e to a state; the lock of the queue is held.
func (e *entry) set(q *queue, to state) {
	q.tally(e, -1)
	if to != e.state {
		q.unplace(e)
		q.goOn(e)
	}
	e.told = to == heldBack || to == leaving && e.told
	e.state = to
	q.tally(e, 1)
	if to == back || to == unclaimed {
		q.offer(e)
	}
}

// goOn has the settlements go on that waited for the one before.
func (q *queue) goOn(e *entry) {
	next := e.next
	if e.next = nil; len(next) == 0 {
		return
	}
	q.s.work.Go(func() {
		for _, f := range next {
			f()
		}
	})
}

// unplace takes e out of the line that its state has it stand in.
func (q *queue) unplace(e *entry) {
	switch e.state {
	case blocked:
		if g := q.groups[e.key]; g != nil {
			g.line.Delete(e.seq)
		}
	case unclaimed:
		q.unclaimed.Delete(e.seq)
	default:
	}
}

// met makes e known, which was handed out before this process started.
func (q *queue) met(e *entry) {
	q.keep(e)
	if q.unknown > 0 {
		q.unknown--
	}
}

// tally counts e in its state.
func (q *queue) tally(e *entry, by int64) {
	q.count[e.state] += by
	if e.told {
		q.telling.add(e.size, by)
	}
}

// keep makes e known.
func (q *queue) keep(e *entry) {
	q.known(e.id)
	q.entries[e.seq] = e
	q.tally(e, 1)
}

// lose forgets e, which left for a reason.
func (q *queue) lose(e *entry, why broker.Reason) {
	q.depart(e)
	q.leave(why, 1)
}

// depart forgets e.
func (q *queue) depart(e *entry) {
	e.disarm()
	delete(q.entries, e.seq)
	q.tally(e, -1)
	q.held.add(e.size, -1)
	q.gone.add(e.seq)
	q.withdraw(e)
	q.unplace(e)
	q.passOn(e)
	q.goOn(e)
}

func (e *entry) disarm() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// arm has the timer look at e when its lease or delay ends, or when its hold must
// be renewed.
func (e *entry) arm(q *queue) {
	if !q.begun {
		return
	}
	d := time.UnixMilli(e.until).Sub(q.s.Now())
	if e.state == heldBack {
		d = holdAgain
	}
	if e.timer == nil {
		e.timer = time.AfterFunc(d, func() { q.due(e) })
		return
	}
	e.timer.Reset(d)
}

// due is called when the time of e is over.
func (q *queue) due(e *entry) {
	q.mu.Lock()
	if q.dropped || q.entries[e.seq] != e {
		q.mu.Unlock()
		return
	}
	now := q.s.milli()
	var after func()
	switch {
	case e.state == heldBack:
		e.putOff(q, holdFor, nil)
		e.arm(q)
	case e.state != leased && e.state != delayed:
	case e.until > now:
		e.arm(q)
	default:
		if e.state == leased {
			q.since.Lapses++
		}
		after = q.comeBack(e, now)
	}
	q.mu.Unlock()
	if after != nil {
		after()
	}
}

// comeBack has e ready again, or told to the broker if that was its last
// attempt, or gone if it expired. What it returns is to be called without the lock.
func (q *queue) comeBack(e *entry, now int64) func() {
	if n := q.def.LapseAt; n > 0 && e.attempt() >= n {
		return q.hold(e, broker.ReasonAttempts)
	}
	e.set(q, back)
	return q.freed(e, now)
}

// freed sees to the time of e, which is back.
func (q *queue) freed(e *entry, now int64) func() {
	if end := q.endOfEntry(e); end != 0 && end <= now {
		return q.expire(e)
	}
	q.watch(e)
	q.pump()
	return nil
}

// watch has the upkeep end e when its time is over.
func (q *queue) watch(e *entry) {
	if end := q.endOfEntry(e); end != 0 {
		q.expires.push(end, e.seq)
		q.plan(q.s.milli())
	}
}

// endOfEntry is when the time of e is over, 0 for never.
func (q *queue) endOfEntry(e *entry) int64 {
	return q.endOf(&broker.Message{Expires: e.expires}, e.queued)
}

// hold keeps e for the broker and returns what tells it.
func (q *queue) hold(e *entry, why broker.Reason) func() {
	e.set(q, heldBack)
	e.why = why
	e.putOff(q, holdFor, nil)
	e.arm(q)
	return func() { q.s.spawn(func() { q.retell(e.seq) }) }
}

// retell tells the broker of a held message.
func (q *queue) retell(seq uint64) {
	m, err := q.s.fetch(q.s.ctx, q.stream, getRequest{Seq: seq})
	if err != nil {
		if !errors.Is(err, broker.ErrNotFound) {
			q.s.log.Error().Err(err).Str("queue", q.def.Name).Uint64("seq", seq).Msg("a message held for the broker cannot be read; it is told when JetStream hands it out again")
		}
		return
	}
	d, err := q.delivery(m.Data, m.header, m.Time)
	if err != nil {
		q.s.log.Error().Err(err).Msg("a message held for the broker")
		return
	}
	q.mu.Lock()
	e := q.entries[seq]
	if e == nil || e.state != heldBack {
		q.mu.Unlock()
		return
	}
	d.Ref, d.Reason = e.ref(q), e.why
	q.mu.Unlock()
	if b := q.s.events.Load(); b != nil {
		b.Lapsed(q.id, d.Reason, []broker.Delivery{d})
	}
}

// delivery decodes a message of the queue.
func (q *queue) delivery(body []byte, h nats.Header, at time.Time) (broker.Delivery, error) {
	d := broker.Delivery{Queued: at.UnixMilli()}
	if err := broker.DecodeMessage(body, &d.Message); err != nil {
		return d, fmt.Errorf("stream %s: %w", q.stream, err)
	}
	if due := h.Get(headerDue); due != "" {
		d.Queued, _ = strconv.ParseInt(due, 10, 64) // we wrote it
	}
	return d, nil
}

// ackSubject is where the settlement of a delivery goes.
func (q *queue) ackSubject(tries uint32, seq, epoch uint64) string {
	return q.acks + strconv.FormatUint(uint64(tries), 10) + "." + strconv.FormatUint(seq, 10) + "." + strconv.FormatUint(epoch, 10) + ".1.0"
}

// nakDelayed is the body that puts a message off.
func nakDelayed(d time.Duration) []byte {
	return strconv.AppendInt(append(make([]byte, 0, 32), `-NAK {"delay":`...), int64(max(d, 1)), 10)
}

// putOff has JetStream keep e for so long. With done the answer is waited for.
func (e *entry) putOff(q *queue, d time.Duration, done func(error)) {
	q.settlement(e, append(nakDelayed(d), '}'), done)
}

// settlement sends what ends or moves the lease of e in JetStream. What never
// left the stream has none.
func (q *queue) settlement(e *entry, body []byte, done func(error)) {
	if e.tries == 0 {
		if done != nil {
			q.s.spawn(func() { done(nil) })
		}
		return
	}
	subject := q.ackSubject(e.tries, e.seq, e.epoch)
	if done == nil {
		_ = q.s.nc.Publish(subject, body) // a cut loses it, and the lease ends earlier
		return
	}
	q.s.calls.start(&call{subject: subject, data: body, done: func(_ *nats.Msg, err error) { done(err) }})
}

// ack has JetStream remove e for good.
func (e *entry) ack(q *queue, done func(error)) {
	if e.tries > 0 {
		q.settlement(e, []byte("+ACK"), done)
		return
	}
	q.s.work.Go(func() {
		_, err := q.s.remove(q.s.ctx, q.stream, e.seq)
		done(err)
	})
}

// find returns the newest delivery of a message that is still there.
func (q *queue) find(id broker.ID) (broker.Ref, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.entries {
		if e.id == id && e.attempt() > 0 {
			return e.ref(q), nil
		}
	}
	return broker.Ref{}, broker.ErrNotFound
}

// recent remembers the last sequences that left, which tells a repeated
// acknowledgement without asking.
type recent struct {
	ring [1024]uint64
	next int
	set  map[uint64]struct{}
}

func (r *recent) add(seq uint64) {
	if r.set == nil {
		r.set = map[uint64]struct{}{}
	}
	delete(r.set, r.ring[r.next])
	r.ring[r.next] = seq
	r.set[seq] = struct{}{}
	r.next = (r.next + 1) % len(r.ring)
}

func (r *recent) has(seq uint64) bool { _, ok := r.set[seq]; return ok }

// there reports whether the stream still has a message.
func (q *queue) there(ctx context.Context, seq uint64) (*stored, error) {
	m, err := q.s.fetch(ctx, q.stream, getRequest{Seq: seq})
	if errors.Is(err, broker.ErrNotFound) {
		return nil, broker.ErrGone
	}
	return m, err
}
