package local

import (
	"fmt"
	"sync"

	"millrace/broker"
	"millrace/persistence/journal"
)

// commit is the completion of one Submit: it makes visible what the batch
// stored, answers the batch, and serves the waits.
type commit struct {
	s      *Store
	no     uint64 // which Submit
	batch  *broker.Batch
	caller broker.Completion
	err    error // refused before anything was written

	queues  []touched
	streams []touchedStream
	puts    []pendingPut
	next    *commit // in Store.spare
}

// touched is a queue that a batch changed: entries before upto are new, and
// with upto 0 there may be something for its waits.
type touched struct {
	q      *queue
	upto   uint64
	waited bool // there are waits to serve, or the broker is to be told
}

// touchedStream is a partition with new entries before upto.
type touchedStream struct {
	p      *partition
	upto   uint64
	waited bool // there are waits to serve, or something to cut off
}

// touch notes that q is to be looked at. The append lock is held.
func (cm *commit) touch(q *queue, upto uint64) {
	if n := len(cm.queues); n > 0 && cm.queues[n-1].q == q {
		cm.queues[n-1].upto = max(cm.queues[n-1].upto, upto)
		return
	}
	if q.unit.commit == cm.no {
		t := &cm.queues[q.unit.touched]
		t.upto = max(t.upto, upto)
		return
	}
	q.unit.commit, q.unit.touched = cm.no, len(cm.queues)
	cm.queues = append(cm.queues, touched{q: q, upto: upto})
}

// touchStream notes that p has entries up to upto. The append lock is held.
func (cm *commit) touchStream(p *partition, upto uint64) {
	if n := len(cm.streams); n > 0 && cm.streams[n-1].p == p {
		cm.streams[n-1].upto = upto
		return
	}
	cm.streams = append(cm.streams, touchedStream{p: p, upto: upto})
}

// Done is called by the log. What was stored becomes visible before the caller
// is answered, so that whoever was answered finds it; the waits are served
// after that, because the answer is waited for longest.
func (cm *commit) Done(err error) {
	s := cm.s
	if err == nil {
		cm.show()
	} else {
		s.failed(err)
	}
	b := cm.batch
	for i := range b.Units {
		if r := &b.Units[i].Result; err != nil && r.Err == nil {
			*r = broker.Result{Err: unknown(err)}
		} else if cm.err != nil {
			*r = broker.Result{Err: cm.err}
		}
	}
	cm.caller.Done(b)
	if err == nil {
		cm.serve()
	}
	s.reuse(cm)
	s.completed()
}

// show makes what was stored visible.
func (cm *commit) show() {
	cm.s.keys.apply(cm.puts)
	for i := range cm.streams {
		t := &cm.streams[i]
		t.waited = t.p.show(t.upto)
	}
	for i := range cm.queues {
		t := &cm.queues[i]
		t.q.mu.Lock()
		t.q.show(t.upto)
		if t.waited = t.q.waits.any() || len(t.q.untold) > 0; !t.waited {
			t.q.schedule()
		}
		t.q.mu.Unlock()
	}
}

// serve hands what became ready to the waits for it.
func (cm *commit) serve() {
	var l waitQueue
	var now int64
	for i := range cm.streams {
		t := &cm.streams[i]
		if t.waited {
			t.p.serve(&l)
		}
		for _, q := range t.p.st.subscriptions() {
			q.mu.Lock()
			if q.waits.any() {
				q.attend(cm.s.milli(), &l)
			}
			q.mu.Unlock()
		}
	}
	for i := range cm.queues {
		t := &cm.queues[i]
		if !t.waited {
			continue
		}
		if now == 0 {
			now = cm.s.milli()
		}
		q := t.q
		q.mu.Lock()
		if !q.dropped {
			q.attend(now, &l)
			if len(q.untold) > 0 {
				cm.s.teller.add(q)
			}
		}
		q.mu.Unlock()
	}
	if l.head != nil {
		cm.s.handOut(&l)
	}
}

// newCommit returns a commit for b.
func (s *Store) newCommit(b *broker.Batch, c broker.Completion) *commit {
	s.spareMu.Lock()
	cm := s.spare
	if cm != nil {
		s.spare = cm.next
	}
	s.spareMu.Unlock()
	if cm == nil {
		cm = &commit{s: s}
	}
	cm.batch, cm.caller, cm.next = b, c, nil
	return cm
}

// reuse keeps cm for the next Submit.
func (s *Store) reuse(cm *commit) {
	clear(cm.queues)
	clear(cm.streams)
	clear(cm.puts)
	cm.queues, cm.streams, cm.puts = cm.queues[:0], cm.streams[:0], cm.puts[:0]
	cm.batch, cm.caller, cm.err = nil, nil, nil
	s.spareMu.Lock()
	cm.next, s.spare = s.spare, cm
	s.spareMu.Unlock()
}

// unknown is the error of what may or may not have been written.
func unknown(err error) error { return fmt.Errorf("%w: %w", broker.ErrUnknown, err) }

// unavailable is the error of what was not even tried.
func unavailable(err error) error {
	if err == nil {
		return broker.ErrClosed
	}
	return fmt.Errorf("%w: %w", broker.ErrClosed, err)
}

// late answers, in order, those whom the log refuses to take: after everything
// that it did take.
type late struct {
	mu      sync.Mutex
	list    []*commit
	running bool
	idle    chan struct{} // holds one: nothing is outstanding
}

// refuse answers cm with a definite error.
func (s *Store) refuse(cm *commit, err error) {
	cm.err = unavailable(err)
	s.late.mu.Lock()
	s.late.list = append(s.late.list, cm)
	start := !s.late.running
	s.late.running = true
	s.late.mu.Unlock()
	if start {
		s.helpers.Go(s.answerLate)
	}
}

// answerLate calls the completions of late.
func (s *Store) answerLate() {
	for {
		for s.outstanding.Load() > 0 {
			<-s.late.idle
		}
		s.late.mu.Lock()
		list := s.late.list
		s.late.list = nil
		s.late.running = len(list) > 0
		s.late.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, cm := range list {
			s.outstanding.Add(1)
			cm.Done(nil)
		}
	}
}

// completed counts a completion of the log that has been called.
func (s *Store) completed() {
	if s.outstanding.Add(-1) == 0 {
		select {
		case s.late.idle <- struct{}{}:
		default:
		}
	}
}

// levelOf translates a level.
func levelOf(l broker.Level) journal.Level {
	if l == broker.Lazy {
		return journal.Lazy
	}
	return journal.Durable
}
