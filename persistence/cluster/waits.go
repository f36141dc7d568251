package cluster

import (
	"encoding/binary"
	"errors"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
)

// consumeLease is how long a wait that consumes has what it got before that is
// settled, and so delivered.
const consumeLease = time.Minute

// Receive implements broker.Store.
func (s *Store) Receive(w *broker.Wait) {
	if s.waits.Again(w) {
		return
	}
	if l := s.lead.Load(); l != nil {
		l.inner.Receive(w)
		return
	}
	clear(w.Got)
	w.Got, w.Err, w.Bounds = w.Got[:0], nil, broker.PartitionInfo{}
	s.start(&op{
		kind: kindReceive, again: true, wait: w,
		body: func() []byte { return appendWait(nil, w) },
		done: func(body []byte, _ bool, err error) {
			if err == nil {
				err = readGot(body, w)
			}
			if err != nil {
				w.Err, w.Got = err, w.Got[:0]
			}
			if w.Consume && len(w.Got) > 0 {
				s.consume(w)
				return
			}
			s.waits.Deliver(w, s.Receive, s.withdraw)
		},
		local: func(l *lead) { l.inner.Receive(w) },
	})
}

// deliver ends a wait that got nothing.
func (s *Store) deliver(w *broker.Wait, err error) {
	w.Err, w.Got = err, w.Got[:0]
	s.waits.Deliver(w, s.Receive, s.withdraw)
}

// Cancel implements broker.Store. A wait that the leader has is over when it says so:
// it may be serving it by now.
func (s *Store) Cancel(w *broker.Wait) bool {
	return s.waits.NotAgain(w) || s.withdraw(w)
}

// withdraw takes w out of the line in which it stands, and reports whether it did. A
// leader that has it is told, and w ends with its answer, or without one when that
// leader is lost.
func (s *Store) withdraw(w *broker.Wait) bool {
	s.mu.Lock()
	o := s.ops.waits[w]
	if o == nil {
		s.mu.Unlock()
		l := s.lead.Load()
		return l != nil && l.inner.Cancel(w)
	}
	if o.id == 0 || s.to == nil || !s.to.open || o.to.start != s.to.start {
		was := s.recall(o)
		if was {
			s.remove(o) // what an earlier leader has leased for it stays so until that ends
		}
		s.mu.Unlock()
		return was
	}
	first, id := !o.over, o.id
	o.over, o.since = true, time.Now()
	s.mu.Unlock()
	if first {
		s.start(&op{
			kind: kindCancel, body: func() []byte { return binary.AppendUvarint(nil, id) },
			done: func([]byte, bool, error) {}, local: func(*lead) {},
		})
	}
	return false
}

// endOver takes out the waits that are over and whose leader is lost. The lock is held;
// what it returns is to be called without.
func (s *Store) endOver() (over []func()) {
	for w, o := range s.ops.waits {
		if o.over && s.recall(o) {
			s.remove(o)
			over = append(over, func() { s.deliver(w, nil) })
		}
	}
	return over
}

// giveBack returns what was leased for a wait of a node that is not there any more.
func (s *Store) giveBack(w *broker.Wait) {
	if len(w.Got) == 0 {
		return
	}
	b := new(broker.Batch)
	for i := range w.Got {
		b.Return(w.Got[i].Ref)
		b.End()
	}
	s.Submit(b, broker.Lazy, ignored{})
}

type ignored struct{}

// Done implements broker.Completion.
func (ignored) Done(*broker.Batch) {}

// consume settles what w got, and then delivers it.
func (s *Store) consume(w *broker.Wait) {
	b := new(broker.Batch)
	for i := range w.Got {
		b.Settle(w.Got[i].Ref, broker.ReasonAcked)
		b.End()
	}
	s.Submit(b, broker.Durable, &consuming{s, w})
}

type consuming struct {
	s *Store
	w *broker.Wait
}

// Done implements broker.Completion.
func (c *consuming) Done(b *broker.Batch) {
	w := c.w
	got := w.Got[:0]
	for i := range b.Units {
		switch err := b.Units[i].Result.Err; {
		case err == nil:
			got = append(got, w.Got[i])
		case !errors.Is(err, broker.ErrGone):
			w.Err = err
		}
	}
	if w.Got = got; len(got) > 0 {
		w.Err = nil
	}
	c.s.waits.Deliver(w, c.s.Receive, c.s.withdraw)
}

// served is a wait of another node, at the leader.
type served struct {
	l *lead
	f *follower
	p parcel
	w *broker.Wait
}

// Deliver implements broker.WaitSink.
func (x *served) Deliver(w *broker.Wait) {
	x.l.mu.Lock()
	there := x.f.waits[x.p.id] == x
	delete(x.f.waits, x.p.id)
	x.l.mu.Unlock()
	switch {
	case there && x.l.passesOn(w.Err):
		x.l.s.w.answer(&x.p, nil, false, errAway)
	case there:
		x.l.s.w.answer(&x.p, encodeGot(w), false, nil)
	default:
		x.l.s.giveBack(w)
	}
}

// receive registers a wait of f.
func (l *lead) receive(f *follower, p parcel, r fields.Reader) {
	w := readWait(&r)
	if r.Bad {
		l.s.w.answer(&p, nil, false, errCodec)
		return
	}
	x := &served{l, f, p, w}
	w.Sink = x
	l.mu.Lock()
	gone := f.gone
	if !gone {
		f.waits[p.id] = x
	}
	l.mu.Unlock()
	if !gone {
		l.inner.Receive(w)
	}
}

// cancel withdraws a wait of f.
func (l *lead) cancel(f *follower, id uint64) {
	l.mu.Lock()
	x := f.waits[id]
	l.mu.Unlock()
	if x != nil && l.inner.Cancel(x.w) {
		l.mu.Lock()
		delete(f.waits, id)
		l.mu.Unlock()
		l.s.w.answer(&x.p, encodeGot(&broker.Wait{}), false, nil)
	}
}

// withdraw ends all waits of a node that is gone. What it was sent comes back when
// its lease ends.
func (l *lead) withdraw(waits map[uint64]*served) {
	for _, x := range waits {
		l.inner.Cancel(x.w)
	}
}
