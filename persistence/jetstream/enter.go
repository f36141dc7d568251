package jetstream

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// headerDue is when a delayed message was due, Unix milliseconds.
const headerDue = "Mr-Due"

// Headers by which JetStream delays a message.
const (
	headerSchedule = "Nats-Schedule"
	headerTarget   = "Nats-Schedule-Target"
)

// entering is one message on its way into one queue, partition, or the log of
// sessions for some of them.
type entering struct {
	u     *unit
	op    *broker.Op
	first bool // the first route of the unit's first publish
	q     *queue
	p     *partition
	to    []broker.Route // sessions
	part  int            // of those of one publish
	known string         // the id in the log
	body  []byte
	size  size
	until int64 // of a delayed one
	err   error
	dup   bool
	room  bool   // it is counted in the queue
	after uint64 // the queue had this sequence before it
	at    uint64 // where it is
}

// enter looks up the routes of a publish and reserves room in all of them. It
// returns how many there are.
func (u *unit) enter(op *broker.Op) (int, error) {
	s := u.sub.s
	m := op.Message
	var body []byte
	var sessions *entering
	n := 0
	for _, r := range op.Routes {
		t, err := s.lookup(r.Target)
		if errors.Is(err, broker.ErrGone) {
			continue // as if the publish had come before the drop
		}
		if err != nil {
			return n, err
		}
		n++
		if body == nil {
			body = broker.AppendMessage(make([]byte, 0, broker.SizeBound(m)), m)
		}
		if b, ok := t.(*backlog); ok {
			if sessions, err = u.enterSession(op, b, r, sessions, body); err != nil {
				u.u.Result.Full = r.Target
				return n, err
			}
			continue
		}
		e := &entering{u: u, op: op, first: len(u.reserved) == 0, body: body, size: sizeOf(m, body)}
		switch t := t.(type) {
		case *queue:
			e.q = t
			if err := t.reserve(e); err != nil {
				if errors.Is(err, broker.ErrFull) {
					u.u.Result.Full = r.Target
				}
				return n, err
			}
		case *stream:
			if e.p = t.partition(r.Partition); e.p == nil {
				return n, fmt.Errorf("%w: stream %q has no partition %d", broker.ErrNotFound, t.name(), r.Partition)
			}
			if err := t.refuses(); err != nil {
				return n, err
			}
		default:
			return n, fmt.Errorf("%w: nothing is published to target %d", broker.ErrNotFound, r.Target)
		}
		u.reserved = append(u.reserved, e)
	}
	return n, nil
}

// reserve takes room for e, or refuses. In a queue that drops its oldest it may
// have to wait for room, behind others.
func (q *queue) reserve(e *entering) error {
	if err := q.water.refuses(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	e.delay(q)
	switch {
	case len(q.full) == 0 && q.roomFor(e.size), e.u.again: // it may be what fills the queue
		q.take(e)
	case !q.def.DropOldest || !q.couldFit(e.size):
		return broker.ErrFull
	}
	return nil
}

// take books the room of e.
func (q *queue) take(e *entering) {
	e.room, e.after = true, q.last
	q.held.add(e.size, 1)
	q.flying++
}

// yield gives the room of e back.
func (q *queue) yield(e *entering) {
	if e.room {
		q.held.add(e.size, -1)
		q.land(e)
	}
}

// land notes that e is on its way no more.
func (q *queue) land(e *entering) {
	e.room = false
	if q.flying--; q.flying == 0 {
		clear(q.early)
	}
	q.landed.Broadcast()
}

// delay sets until when e is held back.
func (e *entering) delay(q *queue) {
	now := q.s.milli()
	if due := e.op.Message.NotBefore; due > now {
		e.until = due
	}
	if q.def.Delay > 0 {
		e.until = max(e.until, now+q.def.Delay.Milliseconds())
	}
}

// inLine has e wait for room; the first one starts a goroutine that makes it.
func (q *queue) inLine(s *Store, e *entering) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.full = append(q.full, e)
	if len(q.full) == 1 {
		s.work.Go(func() { q.admit(s) })
	}
}

// admit makes room for those in line and sends them, in their order.
func (q *queue) admit(s *Store) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.full) > 0 {
		e := q.full[0]
		err := q.makeRoom(s, e)
		if err == nil {
			q.take(e)
		}
		q.full = q.full[1:]
		q.mu.Unlock()
		if err == nil {
			e.dispatch(s)
		} else {
			e.stored(pubAck{}, e.op.Message.ID, err)
			e.u.done(err)
		}
		q.mu.Lock()
	}
}

// makeRoom drops until e fits. The lock is given up meanwhile.
func (q *queue) makeRoom(s *Store, e *entering) error {
	for !q.roomFor(e.size) {
		switch {
		case q.dropped:
			return broker.ErrGone
		case !q.couldFit(e.size):
			return broker.ErrFull
		}
		q.mu.Unlock()
		ok, err := q.dropOne(s.ctx)
		q.mu.Lock()
		switch {
		case err != nil:
			return err
		case ok:
		case q.flying > 0:
			q.landed.Wait() // what is on its way can be dropped once it is there
		case !q.roomFor(e.size):
			return broker.ErrFull
		}
	}
	return nil
}

// fresh is how many messages were never handed out.
func (q *queue) fresh() int64 { return q.freshOf(q.held.n) }

// freshOf is how many were not of those that the stream holds.
func (q *queue) freshOf(held int64) int64 {
	n := held - q.unknown
	for _, c := range q.count {
		n -= c
	}
	return max(n, 0)
}

// cancelRoom gives back what a unit reserved that is not sent.
func (u *unit) cancelRoom() {
	for _, e := range u.reserved {
		if e.q != nil {
			e.q.mu.Lock()
			e.q.yield(e)
			e.q.mu.Unlock()
		}
		e.leaveSessions(u.sub.s)
	}
	u.reserved = nil
}

// send publishes e once there is room for it.
func (e *entering) send(s *Store) {
	if e.q != nil && !e.room {
		e.q.inLine(s, e)
		return
	}
	e.dispatch(s)
}

// dispatch publishes e, behind what its batch has to send before.
func (e *entering) dispatch(s *Store) {
	if e.u.sub.gate.enter(e) {
		e.pass(s)
	}
}

// pass publishes e, after its de-duplication key was claimed.
func (e *entering) pass(s *Store) {
	if e.op.Message.DedupKey != "" {
		e.claim(s)
		return
	}
	e.publish(s, e.op.Message.ID)
}

// gate holds back what stands in a batch behind a message whose key is being
// claimed, so that messages leave in their order.
type gate struct {
	mu   sync.Mutex
	shut bool
	line []*entering
}

// enter reports whether e may pass now; if not it waits in line.
func (g *gate) enter(e *entering) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		g.line = append(g.line, e)
		return false
	}
	g.shut = e.op.Message.DedupKey != ""
	return true
}

// open lets pass what waits, up to the next key.
func (g *gate) open(s *Store) {
	for {
		g.mu.Lock()
		if len(g.line) == 0 {
			g.shut = false
			g.mu.Unlock()
			return
		}
		e := g.line[0]
		g.line = g.line[1:]
		g.mu.Unlock()
		keyed := e.op.Message.DedupKey != "" // once it passed, the batch may be done, and is the caller's
		e.pass(s)
		if keyed {
			return // it opens the gate
		}
	}
}

// publish sends e with the id that a repeat is known by.
func (e *entering) publish(s *Store, id broker.ID) {
	h := nats.Header{headerID: {msgID(id) + e.u.origin}}
	k := &call{header: h, data: e.body}
	var into *watermark
	switch {
	case e.to != nil:
		into, k.subject, k.data = s.water.log, s.sessions.subject, s.sessions.expect(e, &h[headerID][0])
	case e.p != nil:
		into, k.subject = e.p.water, e.p.subject
	case e.until != 0:
		into, k.subject = s.water.delayed, s.names.scheduledSubject(e.q.id, id)
		h[headerID][0] += fmt.Sprintf("@%d", e.q.id)               // the stream is shared
		at := time.Now().Add(time.UnixMilli(e.until).Sub(s.Now())) // by the wall clock, as the servers judge it
		h[headerSchedule] = []string{"@at " + at.UTC().Format(time.RFC3339Nano)}
		h[headerTarget] = []string{s.names.dueSubject(e.q.id)}
		h[headerDue] = []string{strconv.FormatInt(e.until, 10)}
	default:
		into, k.subject = e.q.water, e.q.subject
	}
	from := into.level()
	k.done = func(m *nats.Msg, err error) {
		a, err := into.answered(from, m, err)
		s.notice(err)
		e.stored(a, id, err)
		if e.to != nil && err == nil { // who asks then finds it there
			s.sessions.caughtUp(a.Seq, func() { e.arrived(); e.u.done(nil) })
			return
		}
		e.u.done(err)
	}
	s.calls.start(k)
}

// stored notes the outcome of e.
func (e *entering) stored(a pubAck, id broker.ID, err error) {
	u := e.u
	// Ids are made for one publish: what is not a repeat of ours and was there
	// already is our own, sent again.
	e.err, e.dup = err, a.Duplicate && (e.op.First != (broker.ID{}) || u.again)
	e.at = a.Seq
	if e.first && err == nil {
		u.u.Result.Seq = a.Seq
		if e.p != nil {
			u.u.Result.Seq = a.Seq - 1
		}
	}
	switch {
	case e.to != nil && err != nil:
		e.leaveSessions(u.sub.s)
	case e.p != nil:
		if err == nil && !e.dup {
			e.p.appended(a.Seq, int64(len(e.body)))
		}
	case e.q != nil:
		if full, ok := errors.AsType[*apiError](err); ok && full.ErrCode == errStreamFull { // it, and not the servers
			u.mu.Lock()
			u.u.Result.Full = e.q.id
			u.mu.Unlock()
		}
		e.q.entered(e, a, id, err)
	}
}

// entered books a message that came into the queue, or did not.
func (q *queue) entered(e *entering, a pubAck, id broker.ID, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err != nil && !errors.Is(err, broker.ErrUnknown), e.dup:
		q.yield(e)
		return
	case err == nil:
		q.sentAgain(id)
	}
	switch early := q.early[id]; {
	case early: // it was moved, and booked, already
		delete(q.early, id)
		q.yield(e)
		return
	case e.until != 0:
		q.yield(e)
		q.schedule(id, scheduled{e.size, e.until, a.Seq})
	default:
		q.land(e) // the message has the room
	}
	q.in++
	switch {
	case err != nil:
		q.lookAtAll() // it may be there
		q.doubtPublish(id, e)
	case e.until == 0:
		q.last = max(q.last, a.Seq)
		q.announce(a.Seq, e.op.Message, e.size)
	}
	if e.until == 0 && e.op.Message.Expires != 0 {
		q.expires.push(e.op.Message.Expires, a.Seq)
	}
	if e.op.Message.Expires != 0 || q.def.TTL > 0 {
		q.plan(q.s.milli())
	}
}

// schedule notes a delayed message.
func (q *queue) schedule(id broker.ID, x scheduled) {
	if _, ok := q.scheduled[id]; ok {
		return
	}
	q.scheduled[id] = x
	q.aside.add(x.size, 1)
}

// unschedule forgets one; it reports whether it was known.
func (q *queue) unschedule(id broker.ID) bool {
	x, ok := q.scheduled[id]
	if ok {
		delete(q.scheduled, id)
		q.aside.add(x.size, -1)
	}
	return ok
}

// settleRoom words what was a duplicate, and takes back the keys of a unit that failed.
func (u *unit) settleRoom() {
	failed := u.failed()
	publishes, repeats := 0, 0
	for i := range u.ops {
		op := &u.ops[i]
		if op.Kind != broker.OpPublish {
			continue
		}
		publishes++
		stored, dup := false, false
		for _, e := range u.reserved {
			if e.op == op {
				stored = stored || e.err == nil && !e.dup
				dup = dup || e.dup
			}
		}
		if dup && !stored && op.First != (broker.ID{}) {
			op.Duplicate = true
			if repeats++; repeats == 1 && publishes == 1 {
				u.u.Result.ID = op.First
			}
		}
		switch fresh := op.First == (broker.ID{}); {
		case op.Message.DedupKey == "":
		case failed == nil && (fresh || op.First == op.Message.ID): // the key was claimed for its first route
			u.markDone(op)
		case failed != nil && fresh && !errors.Is(failed, broker.ErrUnknown):
			u.sub.s.dedup.start(&put{key: op.Message.DedupKey, done: func(uint64, error) {}})
		}
	}
	u.u.Result.Duplicate = publishes > 0 && repeats == publishes
}
