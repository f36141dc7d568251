package jetstream

import (
	"errors"
	"maps"
	"slices"
	"time"

	"millrace/broker"
)

// An operation whose answer does not come was done, or was not, or is done later by a
// server that hung. Who asked is told that its outcome is unknown; the queue counts its
// message as there until it has looked.
const (
	// doubtFor is how long after the last try it looks, again and again while no server
	// answers: what is on its way has arrived by then.
	doubtFor = giveUpAfter
	// recallFor is how long it remembers that a publish was not there, should it come
	// all the same.
	recallFor = dedupWindow
)

// doubts are what a queue does not know. They are under its lock.
type doubts struct {
	publishes map[broker.ID]doubted
	entries   map[uint64]settled
	looking   bool
}

// doubted is a publish that may have come.
type doubted struct {
	scheduled
	after uint64    // it stands behind this sequence, if it is there
	since time.Time // when it was told as unknown
	not   bool      // it was not there
}

// settled is a message that may have been removed.
type settled struct {
	e      *entry
	epoch  uint64 // as long as this is its delivery
	why    broker.Reason
	parked bool // it is among the dead instead
}

// doubtPublish has the queue find out whether a publish came. The lock is held, here
// and below.
func (q *queue) doubtPublish(id broker.ID, e *entering) {
	if q.doubts.publishes == nil {
		q.doubts.publishes = map[broker.ID]doubted{}
	}
	q.doubts.publishes[id] = doubted{scheduled: scheduled{size: e.size, until: e.until}, after: e.after, since: q.s.Now()}
	q.resolve()
}

// doubtSettled has the queue find out whether e was removed for a reason, or parked, if
// err leaves that open.
func (q *queue) doubtSettled(e *entry, why broker.Reason, parked bool, err error) {
	if !errors.Is(err, broker.ErrUnknown) {
		return
	}
	if q.doubts.entries == nil {
		q.doubts.entries = map[uint64]settled{}
	}
	q.doubts.entries[e.seq] = settled{e, e.epoch, why, parked}
	q.resolve()
}

// known ends the doubt about a publish, which is there.
func (q *queue) known(id broker.ID) {
	d, ok := q.doubts.publishes[id]
	if !ok {
		return
	}
	delete(q.doubts.publishes, id)
	if d.not { // it came after all
		q.held.add(d.size, 1)
		q.in++
	}
}

// sentAgain ends the doubt about a publish that the sender repeated, and that came only
// then.
func (q *queue) sentAgain(id broker.ID) {
	if d, ok := q.doubts.publishes[id]; ok && !d.not {
		q.absent(id, d)
	}
	delete(q.doubts.publishes, id)
}

// absent books that a publish which counts as there is not.
func (q *queue) absent(id broker.ID, d doubted) {
	if d.until == 0 {
		q.held.add(d.size, -1)
	} else if !q.unschedule(id) {
		return // it was due, and came
	}
	q.in--
}

// resolve looks, on one goroutine for the queue, until nothing is left to find out.
func (q *queue) resolve() {
	if q.doubts.looking || q.dropped {
		return
	}
	q.doubts.looking = true
	q.s.spawn(func() {
		tick := time.NewTicker(doubtFor)
		defer tick.Stop()
		for q.lookAtDoubts() {
			select {
			case <-tick.C:
			case <-q.s.ctx.Done():
				return
			}
		}
	})
}

// lookAtDoubts looks once at all that is old enough, and reports whether anything is
// left.
func (q *queue) lookAtDoubts() bool {
	q.mu.Lock()
	publishes, entries := maps.Clone(q.doubts.publishes), slices.Collect(maps.Values(q.doubts.entries))
	q.mu.Unlock()
	for _, x := range entries {
		q.lookAtSettled(x)
	}
	now, after := q.s.Now(), uint64(0)
	maps.DeleteFunc(publishes, func(id broker.ID, d doubted) bool {
		switch age := now.Sub(d.since); {
		case d.not && age > recallFor:
			q.mu.Lock()
			delete(q.doubts.publishes, id)
			q.mu.Unlock()
			return true
		case d.not, age < doubtFor:
			return true
		case d.until != 0:
			q.lookAtScheduled(id, d)
			return true
		}
		return false
	})
	for _, d := range publishes {
		if after == 0 || d.after < after {
			after = d.after
		}
	}
	if len(publishes) > 0 {
		q.lookAtPublishes(publishes, after)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.doubts.looking = !q.dropped && len(q.doubts.publishes)+len(q.doubts.entries) > 0
	return q.doubts.looking
}

// lookAtSettled looks whether a message is still there. A message that is handed out
// again was; one that is not may come, or be removed, at any time.
func (q *queue) lookAtSettled(x settled) {
	_, err := q.there(q.s.ctx, x.e.seq)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch e := x.e; {
	case q.entries[e.seq] != e || e.epoch != x.epoch:
		delete(q.doubts.entries, e.seq)
	case errors.Is(err, broker.ErrGone) && e.state != leaving: // else who removes it finds out
		delete(q.doubts.entries, e.seq)
		if q.depart(e); !x.parked {
			q.leave(x.why, 1)
		}
		q.pump()
	}
}

// lookAtScheduled looks whether a publish waits for its time. One whose time has come
// has arrived a while later, or was never there.
func (q *queue) lookAtScheduled(id broker.ID, d doubted) {
	m, err := q.s.fetch(q.s.ctx, q.s.names.delayStream(), getRequest{Last: q.s.names.scheduledSubject(q.id, id)})
	q.mu.Lock()
	defer q.mu.Unlock()
	x, waits := q.scheduled[id]
	switch {
	case err == nil && waits:
		x.seq = m.Seq
		q.scheduled[id] = x
		delete(q.doubts.publishes, id)
	case err == nil, !waits:
		delete(q.doubts.publishes, id)
	case errors.Is(err, broker.ErrNotFound) && (d.until > q.s.milli() || d.until+2*ackWait.Milliseconds() < q.s.milli()):
		q.absent(id, d)
		delete(q.doubts.publishes, id)
	}
}

// lookAtPublishes looks for publishes in what came after a sequence. Those that are not
// found did not come.
func (q *queue) lookAtPublishes(open map[broker.ID]doubted, after uint64) {
	at, err := q.s.state(q.s.ctx, q.stream)
	for from := after + 1; err == nil && from <= at.Last; {
		var list []*stored
		if list, err = q.next(q.s.ctx, from); err != nil || len(list) == 0 {
			break
		}
		q.mu.Lock()
		for _, m := range list {
			from = m.Seq + 1
			if d, err := q.delivery(m.Data, m.header, m.Time); err == nil { // one that cannot be read is not ours
				q.known(d.ID)
				delete(open, d.ID)
			}
		}
		q.mu.Unlock()
	}
	if err != nil {
		return // it is tried again
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, d := range open {
		if now, ok := q.doubts.publishes[id]; ok && !now.not { // else it came, and left
			q.absent(id, d)
			d.not = true
			q.doubts.publishes[id] = d
		}
	}
	q.landed.Broadcast()
}
