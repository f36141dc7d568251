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
	part  *part                     // of the queue; nil: all of it
	picks []pick
	load  loader
	from  uint64 // of a partition: the offset that comes next,
	since int64  // and nothing before that time;
	loose bool   // no offset was asked for
	until int64  // Unix milliseconds; 0: not in the list

	line       *waitLine
	prev, next *waiter // in line, or (next) in a waitQueue
	arrival    uint64  // which came before which in a waitList
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
	case w.Filter != "" && q.source != nil:
		w.Err = broker.ErrNotSelective
		l.push(wt)
	default:
		q.admit(wt, now, l)
	}
	q.schedule()
}

// admit serves wt now, lets it wait, or ends it.
func (q *queue) admit(wt *waiter, now time.Time, l *waitQueue) {
	w, line, until := wt.w, &q.waits.waitLine, wt.w.Until
	if wt.part = nil; w.Filter != "" {
		wt.part = q.partFor(w.Filter, now.UnixMilli())
		line = &wt.part.waits
		if soon := now.Add(lookMax); wt.part.next != complete && until.Before(soon) {
			until = soon // see answerHasty
		}
	}
	if q.waits.any() {
		q.serve(now.UnixMilli(), l) // those who came before
	}
	if line.first == nil && q.pick(wt, now.UnixMilli()) > 0 || !until.After(now) || wt.hurry.Load() {
		l.push(wt)
		return
	}
	// Rounded up: a wait never ends before its time.
	wt.until = until.Add(time.Millisecond - 1).UnixMilli()
	q.waits.add(wt, line)
	if wt.part != nil && !wt.part.dry(q) { // what is there can be had later
		q.topics.roused.add(wt.part)
	}
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

// waitLine holds waits in order of arrival.
type waitLine struct{ first, last *waiter }

// waitList holds the waits of a queue by their end, and in a line each those for
// the whole queue and, elsewhere, those for a part of it.
type waitList struct {
	waitLine
	until    []*waiter // a heap
	arrivals uint64
}

// any reports whether anybody waits.
func (wl *waitList) any() bool { return len(wl.until) > 0 }

func (wl *waitList) add(wt *waiter, ln *waitLine) {
	wl.arrivals++
	wt.line, wt.arrival = ln, wl.arrivals
	wt.listed, wt.prev, wt.next = true, ln.last, nil
	if ln.last != nil {
		ln.last.next = wt
	} else {
		ln.first = wt
	}
	ln.last = wt
	wt.index = len(wl.until)
	wl.until = append(wl.until, wt)
	wl.up(wt.index)
}

func (wl *waitList) remove(wt *waiter) {
	ln := wt.line
	if wt.prev != nil {
		wt.prev.next = wt.next
	} else {
		ln.first = wt.next
	}
	if wt.next != nil {
		wt.next.prev = wt.prev
	} else {
		ln.last = wt.prev
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
