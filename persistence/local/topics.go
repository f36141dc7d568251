package local

import (
	"math"
	"slices"
	"strings"
	"time"

	"millrace/router"
)

// topics is what a queue knows of the topics of its messages while consumers
// take parts of it, and only then: four bytes a message, and about 150 for each
// different topic. What was there before is read once, behind the scenes
// (look.go); new messages bring their topic along. It is under the queue's lock.
type topics struct {
	q       *queue
	numbers map[string]uint32 // by name
	names   []topic           // by number; 0 stands for one that is not known yet
	free    []uint32
	known   uint64 // messages before it are known, and so are
	end     uint64 // those from here on

	parts   map[string]*part // by filter
	tree    router.Tree[*part]
	most    int     // of them, then those that nobody waits for go
	gen     uint32  // counts changes of parts
	behind  []*part // that do not have all of their messages yet
	roused  roused
	looking bool  // it is in Store.looks
	check   int64 // when parts that nobody asks for are forgotten
}

// topic is one of them.
type topic struct {
	name  string
	live  int     // messages that have it
	parts []*part // that it belongs to,
	gen   uint32  // as of that change
}

// unreadable is the topic of a message that cannot be read.
const unreadable = math.MaxUint32

// A part that nobody asks for is kept for partIdle at least, if there are no more
// than partSpare of them and as many as are waited for.
const (
	partIdle  = 5 * time.Minute
	partSpare = 1024
)

// partFor returns what a filter selects, from now on if nobody asked before.
func (q *queue) partFor(filter string, now int64) *part {
	ts := q.topics
	if ts == nil {
		ts = &topics{q: q, numbers: map[string]uint32{}, names: make([]topic, 1), end: q.next, gen: 1}
		ts.parts, ts.most, ts.check = map[string]*part{}, partSpare, now+partIdle.Milliseconds()
		q.topics = ts
	}
	p := ts.parts[filter]
	if p == nil {
		if len(ts.parts) >= ts.most {
			ts.sweep(func(*part) bool { return true })
			ts.most = 2*len(ts.parts) + partSpare
		}
		p = &part{filter: strings.Clone(filter), next: complete}
		ts.parts[p.filter] = p
		ts.tree.Insert(p.filter, p)
		ts.gen++
		if len(q.chunks.list) > 0 {
			p.next = 0
			ts.behind = append(ts.behind, p)
			q.s.look(ts)
		}
	}
	p.used = true
	return p
}

// note notes the topic of an entry.
func (ts *topics) note(c *chunk, i int, name string) {
	n, ok := ts.numbers[name]
	if !ok {
		if k := len(ts.free); k > 0 {
			n = ts.free[k-1]
			ts.free = ts.free[:k-1]
		} else {
			n = uint32(len(ts.names))
			ts.names = append(ts.names, topic{})
		}
		t := &ts.names[n]
		t.name, t.gen = strings.Clone(name), 0
		ts.numbers[t.name] = n
	}
	ts.names[n].live++
	c.setTopic(i, n)
}

func (c *chunk) setTopic(i int, n uint32) {
	if c.topics == nil {
		c.topics = make([]uint32, cap(c.entries))
	}
	c.topics[i] = n
}

// topic is the number of the topic of an entry, 0 if it is not known.
func (c *chunk) topic(i int) uint32 {
	if c.topics == nil {
		return 0
	}
	return c.topics[i]
}

// forget forgets the topic of an entry that goes.
func (ts *topics) forget(c *chunk, i int) {
	n := c.topic(i)
	if n == 0 {
		return
	}
	c.topics[i] = 0
	if n == unreadable {
		return
	}
	t := &ts.names[n]
	if t.live--; t.live > 0 {
		return
	}
	delete(ts.numbers, t.name)
	t.name = ""
	clear(t.parts)
	t.parts = t.parts[:0]
	ts.free = append(ts.free, n)
}

// added takes a new entry.
func (ts *topics) added(c *chunk, i int, name string) {
	ts.note(c, i, name)
	if c.entries[i].state() == waiting {
		ts.ready(c, i)
	}
}

// ready gives an entry that is ready to the parts that it belongs to. Those
// that have not come as far find it when they do.
func (ts *topics) ready(c *chunk, i int) {
	seq := c.base + uint64(i)
	for _, p := range ts.partsOf(c.topic(i)) {
		if seq < p.next {
			ts.give(p, c, i)
		}
	}
}

// partsOf returns the parts that messages with a topic belong to.
func (ts *topics) partsOf(n uint32) []*part {
	if n == 0 || n == unreadable {
		return nil
	}
	t := &ts.names[n]
	if t.gen != ts.gen {
		t.parts, t.gen = ts.tree.Match(t.name, t.parts[:0]), ts.gen
	}
	return t.parts
}

// give gives an entry that is ready to a part.
func (ts *topics) give(p *part, c *chunk, i int) {
	if e := &c.entries[i]; e.state() == waiting {
		p.offer(ts.q, c.base+uint64(i))
	} else {
		p.comeBack(ts.q, c.base+uint64(i), e.slot-1)
	}
	ts.roused.add(p)
}

// sweep forgets the parts that nobody waits for and idle says are idle.
func (ts *topics) sweep(idle func(*part) bool) {
	for filter, p := range ts.parts {
		if p.waits.first == nil && idle(p) {
			delete(ts.parts, filter)
			ts.tree.Remove(filter, p)
			p.forgotten = true
			ts.gen++
		}
	}
	ts.behind = slices.DeleteFunc(ts.behind, func(p *part) bool { return p.forgotten })
}

// tidy forgets the parts that nobody asked for since the last time, and with
// the last one everything.
func (ts *topics) tidy(now int64) {
	ts.sweep(func(p *part) bool { return !p.used })
	for _, p := range ts.parts {
		p.used = false
	}
	ts.check = now + partIdle.Milliseconds()
	if len(ts.parts) > 0 {
		return
	}
	ts.q.topics = nil
	for _, c := range ts.q.chunks.list {
		c.topics = nil
	}
	if spare := ts.q.chunks.spare; spare != nil {
		spare.topics = nil
	}
}
