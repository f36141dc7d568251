package local

import (
	"errors"
	"slices"
	"sync"
	"time"

	"millrace/broker"
)

const (
	// lookBytes bounds what is read at once for the topics of messages.
	lookBytes = 4 << 20
	// lookAtOnce is how many messages are looked at under the queue's lock.
	lookAtOnce = 8192
	// lookMax is how long a receive of a part that does not wait may take until
	// what is there was looked through.
	lookMax = 30 * time.Second
)

// looks are the queues with parts that do not have all of their messages yet.
type looks struct {
	mu      sync.Mutex
	list    []*topics
	running bool
}

// look has what is in a queue looked through for its parts. The queue's lock is
// held, and the store has not ended.
func (s *Store) look(ts *topics) {
	if ts.looking {
		return
	}
	ts.looking = true
	s.looks.mu.Lock()
	defer s.looks.mu.Unlock()
	s.looks.list = append(s.looks.list, ts)
	if !s.looks.running {
		s.looks.running = true
		s.helpers.Go(s.lookOn)
	}
}

// lookOn goes from queue to queue, and ends when none is left.
func (s *Store) lookOn() {
	var sr searcher
	for {
		s.looks.mu.Lock()
		if len(s.looks.list) == 0 {
			s.looks.list, s.looks.running = nil, false
			s.looks.mu.Unlock()
			return
		}
		ts := s.looks.list[0]
		s.looks.list = s.looks.list[1:]
		s.looks.mu.Unlock()
		if sr.step(ts) {
			s.looks.mu.Lock()
			s.looks.list = append(s.looks.list, ts)
			s.looks.mu.Unlock()
		}
	}
}

// searcher reads topics.
type searcher struct {
	load  loader
	picks []pick
}

// step gives what is known of a queue to its parts, and reads some more topics
// when they have all of that. It reports whether there is more to do.
func (sr *searcher) step(ts *topics) bool {
	q := ts.q
	var l waitQueue
	var next uint64
	sr.picks = sr.picks[:0]
	q.mu.Lock()
	more := false
	if !ts.over() {
		done := ts.distribute()
		if more = len(ts.behind) > 0; more {
			next = sr.unknown(ts)
		}
		now := q.s.milli()
		q.attend(now, &l)
		q.answerHasty(done, now, &l)
	}
	ts.looking = more
	q.mu.Unlock()
	q.s.handOut(&l)
	if len(sr.picks) > 0 {
		sr.read(ts, next)
	}
	return more
}

// over reports whether nobody needs ts any more.
func (ts *topics) over() bool { return ts.q.topics != ts || ts.q.dropped || ts.q.s.ended.Load() }

// frontier is up to where topics are known.
func (ts *topics) frontier() uint64 {
	if ts.known >= ts.end {
		return complete
	}
	return ts.known
}

// distribute gives entries whose topics are known to the parts that have not
// come as far, the one that is furthest behind first, and returns which of them
// have all now.
func (ts *topics) distribute() (done []*part) {
	seq := uint64(complete)
	for _, p := range ts.behind {
		seq = min(seq, p.next)
	}
	end := min(ts.frontier(), ts.q.next)
	for left := lookAtOnce; seq < end && left > 0; {
		c := ts.q.chunks.from(seq)
		if c == nil || c.base >= end {
			seq = end
			break
		}
		seq = max(seq, c.base)
		for i := int(seq - c.base); i < len(c.entries) && seq < end && left > 0; i++ {
			if st := c.entries[i].state(); st == waiting || st == returned {
				for _, p := range ts.partsOf(c.topic(i)) {
					if p.next <= seq {
						ts.give(p, c, i)
					}
				}
			}
			seq++
			left--
		}
	}
	if seq >= ts.q.next {
		seq = complete
	}
	ts.behind = slices.DeleteFunc(ts.behind, func(p *part) bool {
		if p.next = max(p.next, seq); p.next == complete {
			done = append(done, p)
		}
		return p.next == complete
	})
	return done
}

// unknown picks messages whose topics are to be read next, none while the parts
// have not all that is known, and returns up to where topics are known then.
func (sr *searcher) unknown(ts *topics) (next uint64) {
	for _, p := range ts.behind {
		if p.next < ts.known {
			return ts.known
		}
	}
	q, seq, bytes := ts.q, ts.known, 0
	for left := lookAtOnce; seq < ts.end && left > 0 && len(sr.picks) < loadMax && bytes < lookBytes; left-- {
		c := q.chunks.from(seq)
		if c == nil || c.base >= ts.end {
			seq = ts.end
			break
		}
		seq = max(seq, c.base)
		i := int(seq - c.base)
		if e := &c.entries[i]; e.state() != gone && c.topic(i) == 0 {
			p, _ := q.look(c, i)
			sr.picks = append(sr.picks, p)
			bytes += int(e.size)
		}
		seq++
	}
	if len(sr.picks) == 0 {
		ts.known = seq
	}
	return seq
}

// read reads the topics of what was picked, up to next.
func (sr *searcher) read(ts *topics, next uint64) {
	q := ts.q
	sr.load.begin(q, sr.picks, 0)
	defer sr.load.end()
	q.mu.Lock()
	defer q.mu.Unlock()
	if ts.over() {
		return
	}
	for i := range sr.picks {
		c, j := q.chunks.find(sr.picks[i].seq)
		if c == nil || c.entries[j].state() == gone || c.topic(j) != 0 {
			continue
		}
		switch name, err := sr.load.topic(sr.picks, i); {
		case err == nil:
			ts.note(c, j, name)
		case !errors.Is(err, broker.ErrGone):
			c.setTopic(j, unreadable) // whoever takes all of the queue learns why
		}
	}
	ts.known = next
}

// answerHasty answers those who did not want to wait for more than what was there.
func (q *queue) answerHasty(done []*part, now int64, l *waitQueue) {
	for _, p := range done {
		for wt, next := p.waits.first, (*waiter)(nil); wt != nil; wt = next {
			if next = wt.next; wt.w.Until.UnixMilli() <= now {
				q.waits.remove(wt)
				l.push(wt)
			}
		}
	}
}
