package broker

import (
	"container/heap"
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// sweepRetry is how long after it failed a removal is tried again.
const sweepRetry = time.Minute

// expiry is a topic and when its retained message ends, Unix milliseconds.
type expiry struct {
	topic string
	at    int64
	place int // in the heap
}

// expiries is a heap of them, the earliest first.
type expiries []*expiry

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].at < e[j].at }
func (e expiries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].place, e[j].place = i, j
}

func (e *expiries) Push(x any) {
	x.(*expiry).place = len(*e)
	*e = append(*e, x.(*expiry))
}

func (e *expiries) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	return x
}

// sweep knows when retained messages end that have an expiry, so that they go
// although nobody reads them. It holds a topic for each of those, and nothing
// for the others. The store has the last word: what is noted here may be older.
type sweep struct {
	mu  sync.Mutex // protects due and of
	due expiries
	of  map[string]*expiry // by topic

	wake    chan struct{} // holds one
	stopped chan struct{}
	stop    func()
	done    sync.WaitGroup
}

func (s *sweep) init() {
	s.of, s.wake, s.stopped = make(map[string]*expiry), make(chan struct{}, 1), make(chan struct{})
	s.stop = sync.OnceFunc(func() { close(s.stopped) })
}

// set notes when the message of a topic ends; 0 = never, or there is none.
func (s *sweep) set(topic string, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of[topic]
	switch {
	case at == 0:
		if e != nil {
			s.drop(e)
		}
		return
	case e == nil:
		// The topic may share its bytes with a whole read buffer.
		e = &expiry{topic: strings.Clone(topic), at: at}
		s.of[e.topic] = e
		heap.Push(&s.due, e)
	default:
		e.at = at
		heap.Fix(&s.due, e.place)
	}
	if e.place == 0 {
		s.look()
	}
}

// look has what is due looked at anew.
func (s *sweep) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// drop forgets e. The caller holds mu.
func (s *sweep) drop(e *expiry) {
	heap.Remove(&s.due, e.place)
	delete(s.of, e.topic)
}

// take forgets up to removalPage topics that are due and returns them, or none
// and how long until the next is.
func (s *sweep) take(now int64) (topics []string, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && s.due[0].at <= now && len(topics) < removalPage {
		topics = append(topics, s.due[0].topic)
		s.drop(s.due[0])
	}
	if len(topics) > 0 || len(s.due) == 0 {
		return topics, time.Hour
	}
	return nil, time.Duration(min(s.due[0].at-now, time.Hour.Milliseconds())) * time.Millisecond
}

func (r *retained) start() { r.sweep.done.Go(r.run) }

func (r *retained) close() {
	r.sweep.stop()
	r.sweep.done.Wait()
}

// run removes what ends, on one node for all.
func (r *retained) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		topics, wait := []string(nil), time.Hour
		if r.b.leads() {
			topics, wait = r.sweep.take(r.now())
		}
		if len(topics) > 0 {
			if !r.removeExpired(topics) {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-r.sweep.stopped:
			return
		case <-r.sweep.wake:
		case <-timer.C:
		}
	}
}

// removeExpired removes the messages of topics, unless they were replaced, and
// notes when those end that were. It waits for the store, and reports false when
// the broker closes meanwhile.
func (r *retained) removeExpired(topics []string) bool {
	x := newRemovals(r, len(topics))
	for _, topic := range topics {
		m, rev, err := r.read(context.Background(), topic)
		switch now := r.now(); {
		case err != nil: // it is gone, or its readers are told
		case m.Expires == 0 || m.Expires > now:
			r.sweep.set(topic, m.Expires)
		default:
			x.add(topic, rev)
		}
	}
	x.submit(Lazy)
	select {
	case <-x.done:
	case <-r.sweep.stopped:
		return false
	}
	for i := range x.list {
		if err := x.list[i].Units[0].Result.Err; err != nil && !errors.Is(err, ErrConflict) {
			r.sweep.set(x.list[i].topic, r.now()+sweepRetry.Milliseconds())
		}
	}
	return true
}
