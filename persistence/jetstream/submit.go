package jetstream

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// submission is a batch under way.
type submission struct {
	s    *Store
	b    *broker.Batch
	c    broker.Completion
	left atomic.Int32
	gate gate
	over bool // under the lock of the lines
}

// unit is one unit of a batch. JetStream has no commit over several streams: a
// unit first reserves room, then adds (publishes, keys, copies of what is
// parked), and when all of that is confirmed it removes (settlements, purges).
// What fails leaves what was added, and never a removal without its addition.
type unit struct {
	sub  *submission
	u    *broker.Unit
	ops  []broker.Op
	left atomic.Int32
	then func(*unit) // the next step, after the last answer

	// origin follows the ids of what the unit publishes: where a message that is
	// moved comes from. It may come into one queue twice with the id it always had.
	origin string

	mu       sync.Mutex
	err      error
	reserved []*entering
}

// Submit implements broker.Store. A Lazy batch is answered like a durable one.
func (s *Store) Submit(b *broker.Batch, _ broker.Level, c broker.Completion) {
	sub := &submission{s: s, b: b, c: c}
	sub.left.Store(int32(len(b.Units)) + 1)
	s.lines.enter(sub)
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	for i := range b.Units {
		u := &unit{sub: sub, u: &b.Units[i], ops: b.OpsOf(i)}
		u.u.Result = broker.Result{}
		if closed {
			u.end(broker.ErrClosed)
			continue
		}
		u.begin()
	}
	if sub.left.Add(-1) == 0 {
		go s.lines.finished(sub) // never before Submit returns
	}
}

// end gives the result.
func (u *unit) end(err error) {
	u.u.Result.Err = err
	if u.sub.left.Add(-1) == 0 {
		u.sub.s.lines.finished(u.sub)
	}
}

// begin checks what can be known at once, reserves room and starts.
func (u *unit) begin() {
	if err := u.sub.s.writable(); err != nil {
		u.end(err)
		return
	}
	if err := u.prepare(); err != nil {
		u.cancelRoom()
		u.end(err)
		return
	}
	u.add()
}

// writable is the error of a store that may write no more.
func (s *Store) writable() error {
	if failed := s.failed.Load(); failed != nil {
		return fmt.Errorf("%w: %w", broker.ErrClosed, *failed)
	}
	return nil
}

// prepare looks up every target, checks settlements against what is known here,
// and reserves room.
func (u *unit) prepare() error {
	s := u.sub.s
	for i := range u.ops {
		if op := &u.ops[i]; op.Kind == broker.OpSettle && u.origin == "" {
			u.origin = fmt.Sprintf("/%d.%d", op.Ref.Target, op.Ref.Seq)
		}
	}
	publishes, gone := 0, 0
	for i := range u.ops {
		op := &u.ops[i]
		switch op.Kind {
		case broker.OpPublish:
			publishes++
			n, err := u.enter(op)
			if err != nil {
				return err
			}
			if n == 0 && len(op.Routes) > 0 {
				gone++
			}
			if i == 0 || publishes == 1 {
				u.u.Result.ID = op.Message.ID
			}
		case broker.OpPut:
			if s.keys[op.Space] == nil {
				return fmt.Errorf("%w: space %d", broker.ErrNotFound, op.Space)
			}
		case broker.OpSettle, broker.OpDefer, broker.OpPark, broker.OpReturn:
			from, err := s.sourceOf(op.Ref.Target)
			if err != nil {
				return err
			}
			if err := from.settleable(op); err != nil {
				return err
			}
		case broker.OpPurge:
			if _, err := s.queueOf(op.Ref.Target); err != nil {
				return err
			}
		case broker.OpSettleAt, broker.OpSettleUpTo, broker.OpSeek:
			b, err := s.subscriptionOf(op.Ref.Target)
			if err != nil {
				return err
			}
			if err := b.movable(op); err != nil {
				return err
			}
		}
	}
	if publishes > 0 && gone == publishes {
		return broker.ErrGone
	}
	return nil
}

// step runs f, whose calls report to done, and goes on with then when all have.
func (u *unit) step(f func(), then func(*unit)) {
	u.left.Store(1)
	u.then = then
	f()
	u.done(nil)
}

// expect announces one more answer.
func (u *unit) expect() { u.left.Add(1) }

// done takes one answer.
func (u *unit) done(err error) {
	if err != nil {
		u.mu.Lock()
		if u.err == nil || errors.Is(u.err, broker.ErrUnknown) && !errors.Is(err, broker.ErrUnknown) && len(u.ops) == 1 {
			u.err = err
		}
		u.mu.Unlock()
	}
	if u.left.Add(-1) == 0 {
		u.then(u)
	}
}

// count adds to what the unit removed.
func (u *unit) count(n int) {
	u.mu.Lock()
	u.u.Result.Count += n
	u.mu.Unlock()
}

// failed returns the first error.
func (u *unit) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// add sends publishes and keys.
func (u *unit) add() {
	s := u.sub.s
	u.step(func() {
		for _, e := range u.reserved {
			u.expect()
			e.send(s)
		}
		for i := range u.ops {
			switch op := &u.ops[i]; op.Kind {
			case broker.OpPut:
				u.expect()
				value := op.Value
				if value != nil {
					value = append([]byte{}, value...) // it is the caller's once the batch is done
				}
				s.keys[op.Space].start(&put{key: op.Key, value: value, rev: op.Rev, done: func(rev uint64, err error) {
					if err == nil {
						u.u.Result.Rev = rev
					}
					u.done(err)
				}})
			case broker.OpPark:
				x, err := s.lookup(op.Ref.Target)
				if q, ok := x.(*queue); ok { // what is dead in a subscription stays where it is
					u.expect()
					s.work.Go(func() { u.done(q.copyDead(s.ctx, op)) })
				} else if err != nil {
					u.expect()
					u.done(err)
				}
			default: // a removal, which comes later, or an entering
			}
		}
	}, (*unit).remove)
}

// remove sends settlements and purges, once everything was added.
func (u *unit) remove() {
	u.settleRoom()
	if err := u.failed(); err != nil {
		u.end(err)
		return
	}
	u.step(func() {
		for i := range u.ops {
			op := &u.ops[i]
			x, _ := u.sub.s.lookup(op.Ref.Target)
			if b, ok := x.(*subscription); ok {
				u.expect()
				b.apply(op, u)
				continue
			}
			switch op.Kind {
			case broker.OpSettle, broker.OpPark:
				u.expect()
				u.settle(op)
			case broker.OpDefer:
				u.expect()
				u.postpone(op)
			case broker.OpReturn:
				u.expect()
				u.giveBack(op)
			case broker.OpPurge:
				u.expect()
				u.sub.s.work.Go(func() { u.done(u.purge(op)) })
			case broker.OpSettleAt, broker.OpSettleUpTo, broker.OpSeek: // of a subscription that was dropped meanwhile
				u.expect()
				u.done(broker.ErrGone)
			default:
			}
		}
	}, func(u *unit) { u.end(u.failed()) })
}

// acked reads the answer to a publish.
func acked(m *nats.Msg, err error) (pubAck, error) {
	if err != nil {
		return pubAck{}, err
	}
	return parseAck(m.Data)
}
