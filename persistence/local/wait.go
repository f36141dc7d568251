package local

import (
	"sync/atomic"
	"time"

	"millrace/broker"
)

// Where a wait is. Receive inside Deliver, or by another goroutine before
// Deliver has returned, only leaves a note: the goroutine that delivers goes
// on with it. So a sink that asks again at once costs no stack.
const (
	atRest int32 = iota
	registered
	delivering
	again
)

// waiter is what the store knows of a broker.Wait; it stays with it for reuse.
type waiter struct {
	w     *broker.Wait
	phase atomic.Int32
	hurry atomic.Bool // Cancel came while it was being served: it does not wait again
	q     atomic.Pointer[queue]
	p     atomic.Pointer[partition] // one of the two is nil
	picks []pick
	load  loader
	from  uint64 // of a partition: the offset that comes next,
	since int64  // and nothing before that time;
	loose bool   // no offset was asked for
	until int64  // Unix milliseconds; 0: not in the list

	prev, next *waiter // in queue.waits, or (next) in a waitQueue
	index      int     // in waitList.until
	listed     bool
}

// waitingOf returns what belongs to w.
func waitingOf(w *broker.Wait) *waiter {
	if wt, ok := w.Priv.(*waiter); ok && wt.w == w {
		return wt
	}
	wt := &waiter{w: w}
	w.Priv = wt
	return wt
}

// Receive registers w.
func (s *Store) Receive(w *broker.Wait) {
	wt := waitingOf(w)
	for {
		if wt.phase.CompareAndSwap(delivering, again) {
			return
		}
		if wt.phase.CompareAndSwap(atRest, registered) {
			break
		}
	}
	wt.hurry.Store(false)
	var l waitQueue
	s.register(wt, &l)
	s.handOut(&l)
}

// register serves wt now, or lets it wait. Those that were served are in l.
func (s *Store) register(wt *waiter, l *waitQueue) {
	w := wt.w
	w.Got, w.Err = w.Got[:0], nil
	wt.picks = wt.picks[:0]
	t, err := s.target(w.Target)
	if err == nil {
		err = s.closed()
	}
	if err == nil && t.st != nil {
		err = s.registerRead(wt, t.st, l)
	}
	if err != nil {
		w.Err = err
		l.push(wt)
		return
	}
	q := t.q
	if q == nil {
		return
	}
	wt.p.Store(nil)
	wt.q.Store(q)
	now := s.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.advance(now.UnixMilli(), l)
	switch {
	case q.dropped || s.ended.Load():
		w.Err = broker.ErrGone
		if !q.dropped {
			w.Err = s.closed()
		}
		l.push(wt)
	case q.waits.first == nil && q.pick(wt, now.UnixMilli()) > 0:
		l.push(wt)
	case !w.Until.After(now) || wt.hurry.Load():
		l.push(wt)
	default:
		// Rounded up: a wait never ends before its time.
		wt.until = w.Until.Add(time.Millisecond - 1).UnixMilli()
		q.waits.add(wt)
		q.serve(now.UnixMilli(), l)
	}
	q.schedule()
}

// Cancel withdraws w.
func (s *Store) Cancel(w *broker.Wait) bool {
	wt, ok := w.Priv.(*waiter)
	if !ok || wt.w != w {
		return false
	}
	if wt.phase.CompareAndSwap(again, delivering) {
		return true
	}
	if p := wt.p.Load(); p != nil {
		return p.cancel(wt)
	}
	q := wt.q.Load()
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !wt.listed {
		wt.hurry.Store(true)
		return false
	}
	q.waits.remove(wt)
	q.schedule()
	wt.phase.Store(atRest)
	return true
}

// waitList holds the waits of a queue in order of arrival, and by their end.
type waitList struct {
	first, last *waiter
	until       []*waiter // a heap
}

func (wl *waitList) add(wt *waiter) {
	wt.listed, wt.prev, wt.next = true, wl.last, nil
	if wl.last != nil {
		wl.last.next = wt
	} else {
		wl.first = wt
	}
	wl.last = wt
	wt.index = len(wl.until)
	wl.until = append(wl.until, wt)
	wl.up(wt.index)
}

func (wl *waitList) remove(wt *waiter) {
	if wt.prev != nil {
		wt.prev.next = wt.next
	} else {
		wl.first = wt.next
	}
	if wt.next != nil {
		wt.next.prev = wt.prev
	} else {
		wl.last = wt.prev
	}
	wt.listed, wt.prev, wt.next = false, nil, nil
	n := len(wl.until) - 1
	i := wt.index
	wl.swap(i, n)
	wl.until[n] = nil
	wl.until = wl.until[:n]
	if i < n {
		wl.down(i)
		wl.up(i)
	}
}

func (wl *waitList) swap(i, j int) {
	u := wl.until
	u[i], u[j] = u[j], u[i]
	u[i].index, u[j].index = i, j
}

func (wl *waitList) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if wl.until[p].until <= wl.until[i].until {
			return
		}
		wl.swap(i, p)
		i = p
	}
}

func (wl *waitList) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(wl.until) {
			return
		}
		if c+1 < len(wl.until) && wl.until[c+1].until < wl.until[c].until {
			c++
		}
		if wl.until[i].until <= wl.until[c].until {
			return
		}
		wl.swap(i, c)
		i = c
	}
}

// waitQueue collects waits that are served, in order, while a lock is held.
type waitQueue struct{ head, tail *waiter }

func (l *waitQueue) push(wt *waiter) {
	wt.next = nil
	if l.tail != nil {
		l.tail.next = wt
	} else {
		l.head = wt
	}
	l.tail = wt
}

func (l *waitQueue) pop() *waiter {
	wt := l.head
	if wt == nil {
		return nil
	}
	if l.head = wt.next; l.head == nil {
		l.tail = nil
	}
	wt.next = nil
	return wt
}
