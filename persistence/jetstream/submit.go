package jetstream

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"millrace/broker"
	"millrace/persistence/hand"
)

// submission is a batch under way.
type submission struct {
	hand.Turn
	s    *Store
	left atomic.Int32
	gate gate

	// Under the lock of the lines.
	open *list.Element
	turn []func() // of units without operations: they wait for what was submitted before
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

	// again says that the unit was handed over before, and nobody knew how it ended:
	// its key of a session has its value already.
	again bool

	mu       sync.Mutex
	err      error
	reserved []*entering
}

// Submit implements broker.Store. A Lazy batch is answered like a durable one.
func (s *Store) Submit(b *broker.Batch, _ broker.Level, c broker.Completion) {
	sub := &submission{Turn: hand.Turn{Batch: b, To: c}, s: s}
	sub.left.Store(int32(len(b.Units)) + 1)
	s.lines.enter(sub)
	s.mu.RLock()
	closing := s.closing
	s.mu.RUnlock()
	for i := range b.Units {
		u := &unit{sub: sub, u: &b.Units[i], ops: b.OpsOf(i)}
		u.u.Result = broker.Result{}
		if closing {
			u.end(broker.ErrClosed)
			continue
		}
		if len(u.ops) == 0 {
			s.lines.inTurn(sub, func() { u.end(nil) })
			continue
		}
		u.begin()
	}
	if sub.left.Add(-1) == 0 {
		go s.lines.Finished(sub) // never before Submit returns
	}
}

// end gives the result.
func (u *unit) end(err error) {
	u.u.Result.Err = err
	if u.sub.left.Add(-1) == 0 {
		u.sub.s.lines.Finished(u.sub)
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
	if k := u.key(); k != nil && len(k.Value) > 0 {
		have, ok := s.keys[k.Space].get(k.Key)
		u.again = ok && bytes.Equal(have.Value, k.Value)
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
			if _, err := s.queueOf(op.Ref.Target); errors.Is(err, broker.ErrClosed) || err != nil && s.backlogOf(op.Ref.Target) == nil {
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

// add sends publishes and keys at once. Where a publish comes with a key of a
// session, which says that it was received, the key is first: after a crash in
// between the publish comes again, and is told from another by that.
func (u *unit) add() {
	if !u.keyed() {
		u.step(func() { u.send(); u.putKeys() }, (*unit).remove)
		return
	}
	u.step(u.putKeys, func(u *unit) {
		if u.failed() != nil {
			u.cancelRoom()
			u.end(u.failed())
			return
		}
		u.step(u.send, func(u *unit) {
			if err := u.failed(); err != nil && !errors.Is(err, broker.ErrUnknown) {
				u.takeKeysBack()
			}
			u.remove()
		})
	})
}

// keyed reports whether the unit publishes, and puts keys of a session.
func (u *unit) keyed() bool { return len(u.reserved) > 0 && u.key() != nil }

// key returns the first key of a session that is put, or nil.
func (u *unit) key() *broker.Op {
	for i := range u.ops {
		if op := &u.ops[i]; op.Kind == broker.OpPut && op.Space == broker.SpaceSessions {
			return op
		}
	}
	return nil
}

// send sends publishes, and parks.
func (u *unit) send() {
	for _, e := range u.reserved {
		u.expect()
		e.send(u.sub.s)
	}
	for i := range u.ops {
		op := &u.ops[i]
		if op.Kind != broker.OpPark {
			continue
		}
		x, err := u.sub.s.lookup(op.Ref.Target)
		if q, ok := x.(*queue); ok { // what is dead in a subscription stays where it is
			u.expect()
			u.sub.s.work.Go(func() { u.done(q.copyDead(u.sub.s.ctx, op)) })
		} else if err != nil {
			u.expect()
			u.done(err)
		}
	}
}

// putKeys sends keys.
func (u *unit) putKeys() {
	for i := range u.ops {
		op := &u.ops[i]
		if op.Kind != broker.OpPut {
			continue
		}
		u.expect()
		value := op.Value
		if value != nil {
			value = append([]byte{}, value...) // it is the caller's once the batch is done
		}
		u.sub.s.keys[op.Space].start(&put{key: op.Key, value: value, rev: op.Rev, done: func(rev uint64, err error) {
			if err == nil {
				u.u.Result.Rev = rev
			}
			u.done(err)
		}})
	}
}

// takeKeysBack removes the keys of a unit whose publishes were refused.
func (u *unit) takeKeysBack() {
	for i := range u.ops {
		if op := &u.ops[i]; op.Kind == broker.OpPut && op.Space == broker.SpaceSessions {
			u.sub.s.keys[op.Space].start(&put{key: op.Key, done: func(uint64, error) {}})
		}
	}
}

// remove sends settlements and purges, once everything was added.
func (u *unit) remove() {
	u.settleRoom()
	if err := u.failed(); err != nil {
		u.end(err)
		return
	}
	s := u.sub.s
	u.step(func() {
		for i := range u.ops {
			op := &u.ops[i]
			x, _ := s.lookup(op.Ref.Target)
			if b, ok := x.(*subscription); ok {
				u.expect()
				b.apply(op, u)
				continue
			}
			switch op.Kind {
			case broker.OpSettle, broker.OpPark, broker.OpDefer, broker.OpReturn, broker.OpPurge:
				u.expect()
				if x, err := s.sourceOf(op.Ref.Target); err != nil {
					u.done(err)
				} else {
					x.apply(op, u)
				}
			case broker.OpSettleAt, broker.OpSettleUpTo, broker.OpSeek: // of a subscription that was dropped meanwhile
				u.expect()
				u.done(broker.ErrGone)
			default:
			}
		}
	}, func(u *unit) { u.end(u.failed()) })
}
