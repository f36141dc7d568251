package broker

import (
	"context"
	"sync"
	"time"

	"millrace/broker/auth"
)

// maxAttempts bounds how many receives are remembered by their attempt id.
const maxAttempts = 10_000

// attempts remembers receives that named themselves, so that one whose answer
// was lost on the wire can be repeated: while its leases run, the same attempt
// id, principal and queue give the same messages and receipts. It lives in
// memory: after a restart the messages come back when their leases end.
type attempts struct {
	mu    sync.Mutex // protects by and order
	by    map[attemptKey]*attempt
	order []attemptKey // oldest first
}

type attemptKey struct {
	who  string
	from Target
	id   string
}

type attempt struct {
	done  chan struct{} // closed when got is there
	got   []Received
	until time.Time // end of the first lease that ends
}

// ReceiveAttempt is Receive under an attempt id of at most 128 bytes: the same
// receive repeated, while its leases run, answers the same messages and
// receipts again. An attempt that took nothing is not remembered.
func (s Source) ReceiveAttempt(ctx context.Context, id string, o ReceiveOptions) ([]Received, error) {
	if id == "" {
		return s.Receive(ctx, o)
	}
	if len(id) > maxDedupKey {
		return nil, fieldError("receive_attempt_id", "is of %d bytes; it must be at most %d", len(id), maxDedupKey)
	}
	b := s.b
	k := attemptKey{auth.From(ctx).String(), s.q.target, id}
	for {
		a, mine := b.attempts.begin(k, b.Now())
		if mine {
			got, err := s.Receive(ctx, o)
			b.attempts.end(k, a, got)
			return got, err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, gaveUp(ctx)
		}
		if len(a.got) > 0 {
			return a.got, nil
		}
	}
}

// begin finds an attempt that is under way or good, or makes the caller's own.
func (as *attempts) begin(k attemptKey, now time.Time) (a *attempt, mine bool) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if a := as.by[k]; a != nil {
		select {
		case <-a.done:
			if now.Before(a.until) {
				return a, false
			}
		default:
			return a, false
		}
	}
	if as.by == nil {
		as.by = make(map[attemptKey]*attempt)
	}
	for len(as.order) >= maxAttempts {
		delete(as.by, as.order[0])
		as.order = as.order[1:]
	}
	a = &attempt{done: make(chan struct{})}
	as.by[k] = a
	as.order = append(as.order, k)
	return a, true
}

// end tells those who repeated the attempt meanwhile, and forgets it when it
// took nothing.
func (as *attempts) end(k attemptKey, a *attempt, got []Received) {
	as.mu.Lock()
	defer as.mu.Unlock()
	a.got = got
	for i := range got {
		if until := Time(got[i].Until); a.until.IsZero() || until.Before(a.until) {
			a.until = until
		}
	}
	if len(got) == 0 && as.by[k] == a {
		delete(as.by, k)
	}
	close(a.done)
}
