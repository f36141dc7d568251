package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"millrace/broker"
)

// closeFor is how long a close tries to write what the next start is to know: longer
// than a leader's election takes.
const closeFor = 30 * time.Second

// Close implements broker.Store. What is under way ends first, which may take as long as
// the servers take to answer. Where they are full, what only a close writes is
// not written, and the next start is one as after a crash; that is no error.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	s.mu.Unlock()
	s.lines.Wait(ctx)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.due.stop()
	ctx, cancel := context.WithTimeout(ctx, closeFor)
	defer cancel()
	var full atomic.Pointer[error]
	end := func(err error) error {
		if errors.Is(err, broker.ErrFull) {
			full.Store(&err)
			return nil
		}
		return err
	}
	s.sessions.close()
	booked := end(s.sessions.save(ctx))
	targets := parallel(s.all(), func(t target) error {
		if err := t.close(ctx); err != nil {
			return end(fmt.Errorf("recording where %q stands: %w", t.definition().Def.Name, err))
		}
		return nil
	})
	marked := end(insist(ctx, s.marks.write))
	left := insist(ctx, s.own.leave)
	if left != nil {
		left = end(fmt.Errorf("giving up the nats prefix %q: %w", s.o.Prefix, left))
	}
	s.stop()
	s.calls.close()
	s.work.Wait()
	s.nc.Close()
	if err := full.Load(); err != nil {
		s.log.Warn().Err(*err).Msg("the nats servers are full: attempts and leases are not recorded, and the next start counts them as after a crash; make room, or give the servers more")
	}
	return errors.Join(targets, booked, marked, left)
}

// insist repeats what a close writes while nobody knows whether it was written, as when
// a leader is elected just then, until ctx ends.
func insist(ctx context.Context, write func(context.Context) error) error {
	for {
		err := write(ctx)
		if !errors.Is(err, broker.ErrUnknown) && !errors.Is(err, errNobody) || ctx.Err() != nil {
			return err
		}
	}
}
