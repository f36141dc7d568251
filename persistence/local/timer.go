package local

import (
	"errors"
	"sync"
	"time"

	"millrace/broker"
	"millrace/persistence/ref"
)

// timers wakes queues and partitions at their earliest event: one goroutine and
// one timer for the whole store, and none that runs while nothing is due.
type timers struct {
	mu   sync.Mutex
	heap []timed // by time
	at   map[sleeper]int
	kick chan struct{} // holds one: look again
}

// sleeper is woken by the timers: a *queue or a *partition.
type sleeper interface{ tick(s *Store) }

// timed is a sleeper and when it is due.
type timed struct {
	q    sleeper
	time int64
}

// set has q woken at the given time; 0 forgets it.
func (t *timers) set(q sleeper, at int64) {
	t.mu.Lock()
	i, ok := t.at[q]
	switch {
	case at == 0 && ok:
		t.removeAt(i)
	case at == 0:
	case ok:
		t.heap[i].time = at
		t.fix(i)
	default:
		t.heap = append(t.heap, timed{q: q})
		i = len(t.heap) - 1
		t.heap[i].time = at
		t.at[q] = i
		t.fix(i)
	}
	first := len(t.heap) > 0 && t.heap[0].q == q
	t.mu.Unlock()
	if first {
		t.wake()
	}
}

// wake makes the goroutine look again.
func (t *timers) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// pop returns a sleeper that is due at now, or nil and how long until the next.
func (t *timers) pop(now int64) (sleeper, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.heap) == 0 {
		return nil, 0
	}
	if first := t.heap[0]; first.time <= now {
		t.removeAt(0)
		return first.q, 0
	}
	return nil, time.Duration(t.heap[0].time-now) * time.Millisecond
}

func (t *timers) removeAt(i int) {
	delete(t.at, t.heap[i].q)
	last := len(t.heap) - 1
	if i != last {
		t.heap[i] = t.heap[last]
		t.at[t.heap[i].q] = i
	}
	t.heap[last] = timed{}
	t.heap = t.heap[:last]
	if i < last {
		t.fix(i)
	}
}

// fix moves element i to where it belongs.
func (t *timers) fix(i int) {
	h := t.heap
	for i > 0 && h[i].time < h[(i-1)/2].time {
		i = t.swap(i, (i-1)/2)
	}
	for {
		c := 2*i + 1
		if c+1 < len(h) && h[c+1].time < h[c].time {
			c++
		}
		if c >= len(h) || h[i].time <= h[c].time {
			return
		}
		i = t.swap(i, c)
	}
}

// swap exchanges two elements and returns where the first went.
func (t *timers) swap(i, j int) int {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.at[t.heap[i].q], t.at[t.heap[j].q] = i, j
	return j
}

// run is the goroutine of the timers: it also tells the broker what happened.
func (s *Store) run() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		s.tellAll()
		q, wait := s.timers.pop(s.milli())
		if q != nil {
			q.tick(s)
			continue
		}
		var due <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-s.timers.kick:
		case <-s.stop:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// tick does what is due in q.
func (q *queue) tick(s *Store) {
	var l waitQueue
	now := s.milli()
	q.mu.Lock()
	q.wake = 0
	if !q.dropped {
		q.attend(now, &l)
	}
	q.mu.Unlock()
	s.handOut(&l)
}

// attend does what is due in q, and serves the waits; those served go to l.
func (q *queue) attend(now int64, l *waitQueue) {
	q.advance(now, l)
	q.serve(now, l)
	q.schedule()
}

// teller lists the queues of which the broker must be told something.
type teller struct {
	mu   sync.Mutex
	list []*queue
	s    *Store
}

// add lists q once; q.mu is held.
func (t *teller) add(q *queue) {
	if q.telling {
		return
	}
	q.telling = true
	t.mu.Lock()
	t.list = append(t.list, q)
	t.mu.Unlock()
	t.s.timers.wake()
}

// tellAll calls Events for all that is listed.
func (s *Store) tellAll() {
	s.teller.mu.Lock()
	list := s.teller.list
	s.teller.list = nil
	s.teller.mu.Unlock()
	for _, q := range list {
		s.tell(q)
	}
}

// toldAtOnce is how many messages one call of Events.Lapsed holds at most.
const toldAtOnce = 256

// tell calls Events for what happened in q.
func (s *Store) tell(q *queue) {
	for {
		q.mu.Lock()
		q.telling = false
		dropt := q.dropt
		q.dropt = [broker.Reasons]int{}
		picks, whys := q.takeUntold()
		q.mu.Unlock()
		for why, n := range dropt {
			if n > 0 {
				s.events.Dropped(q.id, broker.Reason(why), n)
			}
		}
		if len(picks) == 0 {
			return
		}
		s.tellLapsed(q, picks, whys)
	}
}

// takeUntold returns held messages that the broker was not told of. Those that
// are not committed yet stay; their commit lists the queue again.
func (q *queue) takeUntold() (picks []pick, whys []broker.Reason) {
	rest := q.untold[:0]
	for _, seq := range q.untold {
		if seq >= q.shown || len(picks) == toldAtOnce {
			rest = append(rest, seq)
			continue
		}
		c, i := q.find(seq)
		if c == nil || c.entries[i].state() != held {
			continue
		}
		p, why := q.look(c, i)
		picks = append(picks, p)
		whys = append(whys, why)
	}
	if q.untold = rest; len(rest) == 0 {
		q.untold = nil
	}
	return picks, whys
}

// look returns an entry as a pick, without taking it.
func (q *queue) look(c *chunk, i int) (pick, broker.Reason) {
	e := &c.entries[i]
	p := pick{seq: c.base + uint64(i), pos: e.pos, size: e.size, queued: q.queuedAt(c, e), attempt: q.attempt(e)}
	p.epoch = q.era(p.seq)
	if c.bodies != nil {
		p.body = c.bodies[i]
	}
	if e.slot != 0 {
		p.until = q.slots.all[e.slot-1].until
	}
	return p, broker.Reason(e.meta & reasonMask >> reasonShift)
}

// tellLapsed calls Events.Lapsed, for each reason apart.
func (s *Store) tellLapsed(q *queue, picks []pick, whys []broker.Reason) {
	var l loader
	for len(picks) > 0 {
		n := min(len(picks), loadMax)
		s.tellSome(q, &l, picks[:n], whys[:n])
		picks, whys = picks[n:], whys[n:]
	}
}

func (s *Store) tellSome(q *queue, l *loader, picks []pick, whys []broker.Reason) {
	l.begin(q, picks, 0)
	for why := range broker.Reasons {
		var ds []broker.Delivery
		for i := range picks {
			if whys[i] != why {
				continue
			}
			d := q.shownAs(&picks[i], broker.Leased, why)
			if err := l.message(picks, i, &d); errors.Is(err, broker.ErrGone) {
				continue
			} else if err != nil {
				s.log.Error().Err(err).Str("queue", q.name).Msg("message cannot be read")
				continue
			}
			ds = append(ds, d)
		}
		if len(ds) > 0 {
			s.events.Lapsed(q.id, why, ds)
		}
	}
}

// address says in d what p is.
func (q *queue) address(d *broker.Delivery, p *pick) {
	d.Ref = broker.Ref{Target: q.id, Seq: p.seq, Attempt: p.attempt, Epoch: p.epoch}
	d.Queued = p.queued
	if q.source != nil {
		o := ref.Offset(p.seq)
		d.Partition, d.Offset = o.Partition, o.Offset
	}
}

// shownAs returns a delivery of p that leases nothing.
func (q *queue) shownAs(p *pick, state broker.EntryState, why broker.Reason) broker.Delivery {
	d := broker.Delivery{Until: p.until, State: state, Reason: why}
	q.address(&d, p)
	return d
}
