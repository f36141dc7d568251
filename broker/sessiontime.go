package broker

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// willGrace is how long after a start the wills of clients that were connected
// when the process ended wait for them to come back.
const willGrace = 5 * time.Second

// sessionStep is how long the end of one session may take.
const sessionStep = 30 * time.Second

// wake is a session and a time at which it is to be looked at. It is stale when
// the session's due differs.
type wake struct {
	at int64
	s  *Session
}

// wakes is a heap of them, the earliest first.
type wakes []wake

func (w wakes) Len() int           { return len(w) }
func (w wakes) Less(i, j int) bool { return w[i].at < w[j].at }
func (w wakes) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *wakes) Push(x any)        { *w = append(*w, x.(wake)) }
func (w *wakes) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = wake{}
	*w = (*w)[:last]
	return x
}

// now is the time that due counts in: that of messages.
func (ss *sessions) now() int64 { return ss.b.Now().UnixMilli() }

// schedule has s looked at when its will or its end is due. The caller holds mu.
func (ss *sessions) schedule(s *Session) {
	s.mu.Lock()
	var due int64
	if s.affairs != nil {
		due = s.willDue
	}
	if due == 0 || s.endDue != 0 && s.endDue < due {
		due = s.endDue
	}
	s.mu.Unlock()
	if s.due = due; due == 0 {
		return
	}
	if len(ss.wakes) > 2*len(ss.byID)+64 { // of clients that came and went
		ss.wakes = slices.DeleteFunc(ss.wakes, func(w wake) bool { return w.s.due != w.at })
		heap.Init(&ss.wakes)
	}
	heap.Push(&ss.wakes, wake{due, s})
	if ss.wakes[0].s == s {
		ss.poke()
	}
}

// next takes a session that is due, or returns nil and how long until the next.
func (ss *sessions) next() (*Session, time.Duration) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for len(ss.wakes) > 0 && ss.b.leads() {
		w := ss.wakes[0]
		if w.s.due != w.at || w.s.held || w.s.ending {
			heap.Pop(&ss.wakes)
			continue
		}
		if wait := w.at - ss.now(); wait > 0 {
			return nil, time.Duration(wait) * time.Millisecond
		}
		heap.Pop(&ss.wakes)
		w.s.held, w.s.due, w.s.wait = true, 0, make(chan struct{})
		return w.s, 0
	}
	return nil, time.Hour
}

func (ss *sessions) start() {
	ss.stopped = make(chan struct{})
	ss.stop = sync.OnceFunc(func() { close(ss.stopped) })
	ss.done.Go(ss.run)
}

func (ss *sessions) close() {
	ss.mu.Lock()
	ss.closed = true
	ss.mu.Unlock()
	ss.stop()
	ss.done.Wait()
}

// run publishes wills and ends sessions when they are due, on one node for all, and
// gives sessions what they are owed.
func (ss *sessions) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		ss.pay()
		wait := ss.sweepBacklogs()
		if left := ss.mend(); ss.takeIn() || left {
			wait = brokenRetry
		}
		s, next := ss.next()
		wait = min(wait, next)
		if s != nil {
			ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
			s.dueNow(ctx)
			cancel()
		}
		timer.Reset(wait)
		select {
		case <-ss.stopped:
			ss.pay()
			return
		case <-ss.wake:
		case <-timer.C:
		}
	}
}

// dueNow does what was scheduled for s, which the caller holds.
func (s *Session) dueNow(ctx context.Context) {
	ss := &s.b.sessions
	s.lock()
	ended := !s.durable || s.expired()
	will := ended || s.willDue != 0 && s.willDue <= ss.now()
	s.mu.Unlock()
	if ended {
		ss.ending(s)
		if s.durable {
			ss.expired.Add(1)
		}
		s.report("session was not ended", s.end(ctx, will))
		return
	}
	if will {
		s.publishWill(ctx)
	}
	ss.letGo(s)
}
