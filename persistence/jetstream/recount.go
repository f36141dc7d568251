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
	recountFor = dedupWindow // so long after it has taken a queue over, or was wrong last
	stillFor   = ledgerSettle
)

// recount is what a queue knows of that. It is under its lock.
type recount struct {
	until time.Time // from then on the books are right
	said  marks
	since time.Time // since when they say so
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

// countAgain compares the books with the stream, and returns how many messages more that
// has. They are put right once nothing has moved for a while: the stream follows what is
// acknowledged a moment later.
func (q *queue) countAgain(ctx context.Context) (more int64, err error) {
	q.mu.Lock()
	m, still := q.marks()
	if still = still && q.s.Now().Before(q.recount.until); still && (m != q.recount.said || q.recount.since.IsZero()) {
		q.recount.said, q.recount.since = m, q.s.Now()
	}
	q.mu.Unlock()
	if !still {
		return 0, nil
	}
	at, err := q.s.state(ctx, q.stream)
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if now, still := q.marks(); !still || now != m {
		return 0, nil
	}
	if more = at.Msgs - m.held; more == 0 {
		return 0, nil
	}
	now := q.s.Now()
	if now.Sub(q.recount.since) < stillFor {
		return max(more, 0), nil
	}
	if more > 0 {
		q.in += uint64(more)
	} else {
		q.leave(broker.ReasonAcked, uint64(-more))
	}
	q.held = at.holding()
	q.recount.until = now.Add(recountFor)
	q.lookAtAll()
	q.pump()
	return 0, nil
}
