package jetstream

import (
	"context"
	"errors"
	"time"

	"millrace/broker"
	"millrace/persistence/ref"
)

// plan has the timer fire when the first lease, delay or retention ends. The lock
// is held, here and below.
func (b *subscription) plan() {
	e, ok := b.ends.Min()
	if !ok || !b.begun || b.dropped || b.wake != 0 && b.wake <= e.end {
		return
	}
	b.wake = e.end
	d := max(time.UnixMilli(e.end).Sub(b.s.Now()), 0)
	if b.timer == nil {
		b.timer = time.AfterFunc(d, b.rings)
		return
	}
	b.timer.Reset(d)
}

// rings ends what is over.
func (b *subscription) rings() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake = 0
	if b.dropped {
		return
	}
	now := b.s.milli()
	for {
		e, ok := b.ends.Min()
		if !ok || e.end > now {
			break
		}
		b.over(e)
	}
	b.plan()
	b.attend()
	b.tell()
}

// over is the end of a lease, a delay, the retention of the dead, or of a pause
// before the broker is told again.
func (b *subscription) over(e *pending) {
	switch e.state {
	case leased:
		b.since.Lapses++
		b.comeBack(e)
	case delayed:
		b.comeBack(e)
	case parked:
		b.remove(e, broker.ReasonRetention)
		b.untold[broker.ReasonRetention]++
	default: // held
		b.set(e, heldBack, 0)
		b.retell(e)
	}
}

// comeBack has e ready again, or told to the broker if that was its last attempt.
func (b *subscription) comeBack(e *pending) {
	if n := b.def.LapseAt; n == 0 || e.attempt < n {
		b.set(e, back, 0)
		return
	}
	e.why = broker.ReasonAttempts
	b.set(e, heldBack, 0)
	if b.begun {
		b.retell(e)
	}
}

// retell tells the broker of a message that is held for it.
func (b *subscription) retell(e *pending) {
	b.s.spawn(func() {
		picks := []pick{{e: e}}
		err := b.fetch(b.s.ctx, picks, 0)
		b.mu.Lock()
		p := &picks[0]
		ln := b.laneOf(e)
		switch there, _ := ln.open.Get(ref.Offset(e.seq).Offset); {
		case there != e || e.state != heldBack || b.dropped:
			b.mu.Unlock()
			return
		case err != nil: // no leader just now: later
			b.leave(e)
			e.end = b.s.milli() + giveUpAfter.Milliseconds()
			b.enter(e)
			b.mu.Unlock()
			return
		case p.fate == lost:
			b.remove(e, broker.ReasonRetention)
			b.untold[broker.ReasonRetention]++
			b.tell()
			b.mu.Unlock()
			return
		}
		e.id = p.d.ID
		b.address(&p.d, e)
		p.d.Reason = e.why
		b.mu.Unlock()
		if to := b.s.events.Load(); to != nil {
			to.Lapsed(b.id, p.d.Reason, []broker.Delivery{p.d})
		}
	})
}

// address has d be the newest delivery of e.
func (b *subscription) address(d *broker.Delivery, e *pending) {
	o := ref.Offset(e.seq)
	d.Ref = broker.Ref{Target: b.id, Seq: e.seq, Attempt: e.attempt, Epoch: b.epoch(b.laneOf(e))}
	d.Partition, d.Offset, d.Until = o.Partition, o.Offset, e.until
}

// fate is what becomes of a message that was taken for a wait.
type fate uint8

const (
	unread    fate = iota // it cannot be read now
	delivered             // as it is
	surplus               // the answer is large enough without it
	early                 // it is not due
	expired               // its time is over
	lost                  // the stream does not have it any more
)

// pick is a message that was taken for a wait, or is to be shown.
type pick struct {
	e       *pending
	attempt uint32
	epoch   uint32
	fate    fate
	d       broker.Delivery
}

// fetch reads picks in runs of neighbours, up to so many bytes of payload if that
// is given. The error is of those that stay unread. The lock is not held.
func (b *subscription) fetch(ctx context.Context, picks []pick, maxBytes int) error {
	left, first := maxBytes, true
	for i := 0; i < len(picks); {
		o := ref.Offset(picks[i].e.seq)
		n := 1
		for i+n < len(picks) && picks[i+n].e.seq == picks[i].e.seq+uint64(n) {
			n++
		}
		p := b.of.partition(o.Partition)
		last := i + n
		got, next, err := p.copyFrom(ctx, o.Offset, broker.PartitionInfo{Next: o.Offset + uint64(n)}, n, max(left, 0), nil)
		pass := func(to uint64) { // what the servers have lost
			for ; i < last && ref.Offset(picks[i].e.seq).Offset < to; i++ {
				picks[i].fate = lost
			}
		}
		for j := range got {
			pass(got[j].Seq)
			size := len(got[j].Payload)
			if maxBytes > 0 && !first && size > left {
				setAside(picks[i:], surplus)
				return nil
			}
			left -= size
			first = false
			picks[i].d, picks[i].fate = got[j], b.judge(&got[j].Message)
			i++
		}
		pass(next)
		n = last - i
		cut, out := errors.AsType[*broker.RangeError](err)
		switch {
		case out:
			k := 1
			for k < n && next+uint64(k) < cut.First {
				k++
			}
			setAside(picks[i:i+k], lost)
			i += k
		case errors.Is(err, errDeleted):
			setAside(picks[i:i+1], lost)
			i++
		case err != nil:
			return err
		case n > 0:
			setAside(picks[i:], surplus)
			return nil
		}
	}
	return nil
}

// judge decides about a message that was read.
func (b *subscription) judge(m *broker.Message) fate {
	switch now := b.s.milli(); {
	case m.Expires != 0 && m.Expires <= now:
		return expired
	case m.NotBefore > now:
		return early
	}
	return delivered
}

func setAside(picks []pick, f fate) {
	for i := range picks {
		picks[i].fate = f
	}
}
