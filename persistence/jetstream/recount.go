package jetstream

import (
	"context"
	"time"

	"millrace/broker"
)

// A node that is given up may have publishes and acknowledgements on their way to the
// servers, which land when the next one has counted its queues. So that one counts
// again: what the stream holds, once nothing of its own is under way.
const (
	recountFor   = dedupWindow // so long after it has taken a queue over, or was wrong last, something may land
	recountEvery = time.Second // at most
	stillFor     = ledgerSettle
)

// recount is what a queue knows of that. It is under its lock.
type recount struct {
	until time.Time // from then on nothing lands
	done  bool      // the books were right since, or there was no such node
	next  time.Time // when the stream may be asked again
	more  int64     // it had so many more than the books when it was asked last
	said  marks
	since time.Time // since when the books say so
}

// marks change with everything that comes or goes.
type marks struct {
	held int64
	in   uint64
	out  [broker.Reasons]uint64
}

// marks are those of now; there are none while something is under way. The lock is held,
// here and below.
func (q *queue) marks() (m marks, still bool) {
	still = q.flying == 0 && len(q.full) == 0 && q.count[leaving] == 0 && len(q.doubts.publishes)+len(q.doubts.entries) == 0
	return marks{q.held.n, q.in, q.out}, still && !q.dropped
}

// countAgain compares the books with the stream, as often as that is of use, and returns
// how many messages more that has.
func (q *queue) countAgain(ctx context.Context) (more int64, err error) {
	q.mu.Lock()
	r, now := &q.recount, q.s.Now()
	m, still := q.marks()
	if !still || r.done || now.Before(r.next) {
		defer q.mu.Unlock()
		return r.more, nil
	}
	if r.next = now.Add(recountEvery); m != r.said || r.since.IsZero() {
		r.said, r.since = m, now
	}
	q.mu.Unlock()
	at, err := q.s.state(ctx, q.stream)
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if after, still := q.marks(); still && after == m {
		q.compare(at, now)
	}
	return r.more, nil
}

// compare compares the books with what the stream answered when it was asked. They are put
// right once nothing has moved for a while: the stream follows what is acknowledged a
// moment later.
func (q *queue) compare(at streamState, asked time.Time) {
	r := &q.recount
	off := at.Msgs - q.held.n
	r.more = max(off, 0)
	switch {
	case off == 0:
		r.done = !asked.Before(r.until)
		return
	case q.s.Now().Sub(r.since) < stillFor:
		return
	case off > 0:
		q.in += uint64(off)
	default:
		q.leave(broker.ReasonAcked, uint64(-off))
	}
	q.held, r.more = at.holding(), 0
	r.until = q.s.Now().Add(recountFor)
	q.lookAtAll()
	q.pump()
}
