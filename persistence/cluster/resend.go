package cluster

import (
	"time"

	"millrace/broker"
)

// Here is what becomes of operations that have no answer when the leader is lost.

// resend sends what has no answer to a new leader, or to the old one that was lost
// and took everything up to an operation, if it did not give us up: then nobody knows
// what it took. The lock is held; what it returns is to be called without.
func (s *Store) resend(st *standing) (over []func()) {
	s.ops.sent = st.Taken
	for e := s.ops.list.Front(); e != nil; {
		o := e.Value.(*op)
		e = e.Next()
		sent := o.id != 0
		same := sent && st.GoesOn && o.to.start == s.to.start
		done := sent && (!same || o.id <= st.Taken) // it may be
		switch {
		case done && same && !o.again: // its answer comes, or is lost
		case done && !s.recall(o):
		case done && o.unknown(), s.ops.failing[o.source] > 0:
			s.w.forget(o.id)
			over = append(over, s.giveUp(o, broker.ErrUnknown))
		default:
			s.w.forget(o.id)
			s.transmit(o)
		}
	}
	return over
}

// recall gives up the answer to o, and reports whether o may end without it. A receive
// may not whose answer has come and is about to be taken in: what it got is leased for it.
// Anything else may, even so: once it has ended its answer counts for nothing. The lock
// is held.
func (s *Store) recall(o *op) bool {
	return o.id == 0 || s.w.forget(o.id) != nil || o.wait == nil
}

// unknown reports whether the outcome of o is unknown where it may be done.
func (o *op) unknown() bool { return !o.again || o.wait != nil && o.wait.Certain }

// takeOver does here what waits for a leader: this node is it. Submits wait until all
// that came before is done.
func (s *Store) takeOver(l *lead) {
	for {
		s.mu.Lock()
		over := s.takeIn(l)
		l.ready.Store(len(over) == 0)
		s.mu.Unlock()
		if len(over) == 0 {
			return
		}
		for _, f := range over {
			f()
		}
	}
}

// takeIn takes out all that waits; what it returns is to be called without the lock,
// which is held.
func (s *Store) takeIn(l *lead) (over []func()) {
	for e := s.ops.list.Front(); e != nil; {
		o := e.Value.(*op)
		e = e.Next()
		switch {
		case !s.recall(o):
		case o.id != 0 && o.unknown(), s.ops.failing[o.source] > 0:
			over = append(over, s.giveUp(o, broker.ErrUnknown))
		default:
			s.remove(o)
			over = append(over, func() { o.local(l) })
		}
	}
	return over
}

// expire ends what waited for too long, and receives whose time is over while
// nobody leads.
func (s *Store) expire() {
	now, at := time.Now(), s.Now()
	var over []func()
	s.mu.Lock()
	for e := s.ops.list.Front(); e != nil; {
		o := e.Value.(*op)
		e = e.Next()
		waited := now.Sub(o.since)
		switch {
		case o.wait != nil && (s.to == nil && !o.wait.Until.After(at) || o.over && waited > forAnswer) && s.recall(o):
			s.remove(o)
			over = append(over, func() { s.deliver(o.wait, nil) })
		case o.wait != nil:
		case o.id == 0 && waited > s.patience():
			over = append(over, s.giveUp(o, errNobody))
		case waited > forAnswer && !o.again:
			s.w.forget(o.id)
			over = append(over, s.giveUp(o, broker.ErrUnknown))
		}
	}
	s.mu.Unlock()
	for _, f := range over {
		f()
	}
}

// giveUp takes o out of the books; what it returns is to be called without the lock,
// which is held.
func (s *Store) giveUp(o *op, err error) func() {
	s.remove(o)
	if o.source == nil {
		return func() { o.done(nil, false, err) }
	}
	if s.ops.failing == nil {
		s.ops.failing = map[any]int{}
	}
	s.ops.failing[o.source]++
	return func() {
		o.done(nil, false, err)
		s.mu.Lock()
		if s.ops.failing[o.source]--; s.ops.failing[o.source] == 0 {
			delete(s.ops.failing, o.source)
		}
		s.mu.Unlock()
	}
}
