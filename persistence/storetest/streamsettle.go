package storetest

import (
	"errors"
	"fmt"
	"time"

	"millrace/broker"
)

func (m *streamModel) settle(s step, now int64) error {
	p, o, e := m.delivered(s.b)
	if e == nil {
		return nil
	}
	until := now
	if s.c > 0 {
		until += int64(s.c)*100 + 5
	}
	r := m.h.submit(func(b *broker.Batch) {
		switch s.kind {
		case "settle":
			b.Settle(e.delivery.Ref, broker.ReasonAcked)
		case "return":
			b.Return(e.delivery.Ref)
		default:
			b.Defer(e.delivery.Ref, time.UnixMilli(until), s.kind == "nack")
		}
	})
	if r.Err != nil {
		return fmt.Errorf("%s of offset %d of partition %d: %w", s.kind, o, p, r.Err)
	}
	switch s.kind {
	case "settle":
		m.gone(&m.lanes[p], o, broker.ReasonAcked)
	case "return":
		e.state, e.until = mReady, 0
		e.attempt--
	case "nack":
		e.until, e.state = until, mDelayed
	default:
		e.until, e.state = until, mLeased
	}
	return nil
}

// settleOld settles a delivery of before a seek, which is refused.
func (m *streamModel) settleOld(s step) error {
	if len(m.old) == 0 {
		return nil
	}
	d := m.old[s.b%len(m.old)]
	if err := m.h.settle(d, broker.ReasonAcked); !errors.Is(err, broker.ErrStale) && !errors.Is(err, broker.ErrGone) {
		return fmt.Errorf("a delivery of before a seek is settled: %w", err)
	}
	return nil
}

// at picks an offset of a partition, or one behind it.
func (m *streamModel) at(p uint32, s step) uint64 {
	return uint64(s.b*s.c) % uint64(len(m.parts[p].messages)+2)
}

func (m *streamModel) settleAt(p uint32, s step) error {
	o := m.at(p, s)
	r := m.h.submit(func(b *broker.Batch) {
		b.SettleAt(m.sub, broker.Offset{Partition: p, Offset: o}, broker.ReasonAcked)
	})
	l := &m.lanes[p]
	var want error
	switch {
	case o >= uint64(len(m.parts[p].messages)):
		want = broker.ErrNotFound
	case o < l.next && l.entries[o] == nil:
		want = broker.ErrGone
	default:
		for ; l.next <= o; l.next++ {
			l.entries[l.next] = &sentry{state: mReady}
		}
		m.gone(l, o, broker.ReasonAcked)
	}
	if !errors.Is(r.Err, want) {
		return fmt.Errorf("settle of offset %d of partition %d answers %w, want %w", o, p, r.Err, want)
	}
	return nil
}

func (m *streamModel) settleUpTo(p uint32, s step) error {
	o := m.at(p, s)
	r := m.h.submit(func(b *broker.Batch) {
		b.SettleUpTo(m.sub, broker.Offset{Partition: p, Offset: o}, broker.ReasonAcked)
	})
	if o >= uint64(len(m.parts[p].messages)) {
		if !errors.Is(r.Err, broker.ErrNotFound) {
			return fmt.Errorf("settle up to %d of partition %d answers %w, want not found", o, p, r.Err)
		}
		return nil
	}
	l := &m.lanes[p]
	before := m.out[broker.ReasonAcked]
	for e := range l.entries {
		if e <= o {
			m.gone(l, e, broker.ReasonAcked)
		}
	}
	m.pass(l, o+1, broker.ReasonAcked)
	if n := int(m.out[broker.ReasonAcked] - before); r.Err != nil || r.Count != n {
		return fmt.Errorf("settle up to %d of partition %d answers %d and %w, want %d", o, p, r.Count, r.Err, n)
	}
	return nil
}

func (m *streamModel) seek(p uint32, s step) error {
	o := m.at(p, s)
	r := m.h.submit(func(b *broker.Batch) { b.Seek(m.sub, broker.Offset{Partition: p, Offset: o}) })
	if o > uint64(len(m.parts[p].messages)) {
		if !errors.Is(r.Err, broker.ErrNotFound) {
			return fmt.Errorf("seek to %d of partition %d answers %w, want not found", o, p, r.Err)
		}
		return nil
	}
	l := &m.lanes[p]
	for at, e := range l.entries {
		if e.attempt > 0 {
			m.old = append(m.old, e.delivery)
		}
		m.gone(l, at, broker.ReasonSkipped)
	}
	// What is not due may have been looked at, and put aside, or not.
	aside := uint64(0)
	for at := max(l.next, o); at < uint64(len(m.parts[p].messages)); at++ {
		if m.parts[p].messages[at].notBefore != 0 {
			aside++
		}
	}
	m.pass(l, o, broker.ReasonSkipped)
	l.next = o
	m.pass(l, m.parts[p].first, broker.ReasonRetention)
	if r.Err != nil {
		return fmt.Errorf("seek to %d of partition %d: %w", o, p, r.Err)
	}
	in := m.h.info(m.sub)
	if more := in.Out[broker.ReasonSkipped] - m.out[broker.ReasonSkipped]; more > aside {
		return fmt.Errorf("seek to %d of partition %d skips %d more than it must, and may %d", o, p, more, aside)
	}
	m.out[broker.ReasonSkipped] = in.Out[broker.ReasonSkipped]
	return nil
}
