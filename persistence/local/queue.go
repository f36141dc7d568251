package local

import (
	"iter"
	"sync"

	"millrace/broker"
	"millrace/persistence/ref"
)

// queue is one queue. Its sequences grow with every message and are never used
// again; gaps between them mean nothing.
//
// The fields below mu are under it. Those that only Submit changes (next, and
// what a unit notes) are changed under the append lock as well, so that the
// holder of either may read them.
type queue struct {
	s        *Store
	id       broker.Target
	volatile bool
	keyed    bool
	locked   bool // the unit at hand holds mu; under the append lock
	dropped  bool

	source *source // of a subscription

	mu   queueLock
	name string
	def  *broker.Def // without the name, and shared by those that are alike: never changed

	next uint64 // sequence of the next message

	*flow
	*contents
}

// flow counts what went through a queue. One that was never used has none.
type flow struct {
	in    uint64
	out   [broker.Reasons]uint64
	since broker.Activity
}

// contents are what a queue that holds nothing does not need.
type contents struct {
	shown   uint64 // sequences from here on are not committed yet: nobody sees them
	unshown int64  // messages there
	clock   int64  // when the newest message was queued
	cursor  uint64 // no entry before it is in the state waiting
	wake    int64  // when the timers will look here; 0: they will not
	telling bool
	unit    unitNotes

	chunks   chunks
	slots    slots
	ready    heap // by place
	delayed  heap // by time
	leases   heap // by time
	dead     heap // by time
	expiries expiries
	busy     map[uint64]*group // of a keyed queue: keys in flight
	topics   *topics           // while parts of the queue are asked for

	count   [states]int64
	bytes   [states]int64 // as stored
	payload [states]int64

	waits  waitList
	untold []uint64
	dropt  [broker.Reasons]int // dropped, and Events not told yet
}

// queueLock is the lock of a queue. Whoever holds it finds contents and flow,
// which a session that needs them not gives back: there are many of those.
type queueLock struct {
	sync.Mutex
	q *queue
}

// Lock locks.
func (l *queueLock) Lock() {
	l.Mutex.Lock()
	if l.q.contents == nil {
		l.q.contents = &contents{shown: l.q.next}
	}
	if l.q.flow == nil {
		l.q.flow = new(flow)
	}
}

// Unlock unlocks.
func (l *queueLock) Unlock() {
	if l.q.def.Kind == broker.SessionTarget && l.q.bare() {
		l.q.contents = nil
		if *l.q.flow == (flow{}) {
			l.q.flow = nil
		}
	}
	l.Mutex.Unlock()
}

// bare reports whether nothing in contents matters.
func (q *queue) bare() bool {
	if q.unshown != 0 || q.telling || q.waits.any() || len(q.untold) > 0 || !q.s.bound.Load() {
		return false
	}
	for _, n := range q.count {
		if n != 0 {
			return false
		}
	}
	return true
}

// add appends a message. It becomes visible with show.
func (q *queue) add(seq, pos uint64, size uint32, now int64, m *broker.Message, body []byte) {
	now = max(now, q.clock)
	q.clock = now
	c := q.chunks.tail(seq, now, q.volatile, q.keyed)
	i := len(c.entries)
	e := entry{pos: pos, size: size, queued: uint32(now - c.time), meta: uint32(waiting)}
	e.meta |= min(size-uint32(len(m.Payload)), maxOverhead) << overheadShift
	if m.Expires != 0 {
		e.meta |= metaExpires
	}
	if body != nil {
		c.bodies[i] = body
	}
	if q.keyed {
		c.keys[i] = keyHash(m.Key)
	}
	c.entries = append(c.entries, e)
	c.live++
	if !q.volatile {
		c.spans(pos)
		q.s.live.add(pos, int64(size))
	}
	q.next = seq + 1
	q.in++
	q.unshown++
	q.count[waiting]++
	q.bytes[waiting] += int64(size)
	q.weigh(int64(size))
	q.payload[waiting] += e.payload()
	if m.Expires != 0 {
		q.expiries.add(m.Expires, seq, false)
	}
	if due := dueOf(m, q.def, now); due > now {
		p := &c.entries[i]
		p.meta |= metaDelayed
		s := q.slotOf(c, i)
		s.place, s.rank, s.until, s.expires, s.id = 0, due, due, m.Expires, m.ID
		q.set(p, delayed)
		q.delayed.push(&q.slots, p.slot-1, uint64(due), 0)
	}
	if q.topics != nil {
		q.topics.added(c, i, m.Topic)
	}
}

// weigh counts n bytes more in all that the store holds. Those of a subscription are
// its stream's.
func (q *queue) weigh(n int64) {
	if q.source == nil {
		q.s.holds.Add(n)
	}
}

// dueOf returns when m may be delivered first from a queue with definition d.
func dueOf(m *broker.Message, d *broker.Def, now int64) int64 {
	due := m.NotBefore
	if d.Delay > 0 {
		due = max(due, now+d.Delay.Milliseconds())
	}
	return due
}

// show makes everything before upto visible.
func (q *queue) show(upto uint64) {
	for seq := q.shown; seq < upto && q.unshown > 0; {
		c := q.chunks.from(seq)
		if c == nil || c.base >= upto {
			break
		}
		seq = max(seq, c.base)
		for i := seq - c.base; i < uint64(len(c.entries)) && seq < upto; i++ {
			if c.entries[i].state() != gone {
				q.unshown--
			}
			seq++
		}
	}
	q.shown = max(q.shown, upto)
}

// slotOf returns the slot of an entry, which gets one if it has none. The
// pointer is good until the next call.
func (q *queue) slotOf(c *chunk, i int) *slot {
	e := &c.entries[i]
	if e.slot == 0 {
		seq := c.base + uint64(i)
		e.slot = q.slots.get(seq) + 1
		q.slots.all[e.slot-1].place = q.placeOf(seq)
	}
	return &q.slots.all[e.slot-1]
}

// placeOf is the place of an entry that was published without a delay. Among
// those of a subscription that came back the partitions take turns.
func (q *queue) placeOf(seq uint64) uint64 {
	if q.source != nil {
		seq &= ref.MaxOffset
	}
	return 2 * seq
}

// chunksOf returns the chunks that seq is in, if it is there at all.
func (q *queue) chunksOf(seq uint64) *chunks {
	if q.source == nil {
		return &q.chunks
	}
	return &q.source.lane(ref.Partition(seq)).chunks
}

// find returns the chunk that holds seq and the index in it, or nil.
func (q *queue) find(seq uint64) (*chunk, int) { return q.chunksOf(seq).find(seq) }

// allChunks yields the chunks in order of base.
func (q *queue) allChunks() iter.Seq[*chunk] {
	return func(yield func(*chunk) bool) {
		for _, c := range q.chunks.list {
			if !yield(c) {
				return
			}
		}
		if q.source == nil {
			return
		}
		for i := range q.source.lanes {
			for _, c := range q.source.lanes[i].chunks.list {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// queuedAt returns when an entry entered the queue, or was due.
func (q *queue) queuedAt(c *chunk, e *entry) int64 {
	if e.has(metaDelayed) && e.slot != 0 {
		return q.slots.all[e.slot-1].rank
	}
	return c.time + int64(e.queued)
}

// attempt returns how often an entry was handed out.
func (q *queue) attempt(e *entry) uint32 {
	if e.slot == 0 {
		return 0
	}
	return q.slots.all[e.slot-1].attempt
}

// set moves an entry to another state. The caller puts it into the heap of
// that state; it is taken out of the heap of the old one.
func (q *queue) set(e *entry, to state) {
	from := e.state()
	if h := q.heapOf(from); h != nil {
		h.leave(&q.slots, e.slot-1)
	} else if from == blocked {
		q.slots.all[e.slot-1].version++
	}
	e.meta = e.meta&^metaState | uint32(to)
	q.count[from]--
	q.bytes[from] -= int64(e.size)
	q.payload[from] -= e.payload()
	q.count[to]++
	q.bytes[to] += int64(e.size)
	q.payload[to] += e.payload()
}

// comeBack makes an entry that has a slot ready at its place.
func (q *queue) comeBack(c *chunk, i int) {
	e := &c.entries[i]
	s := q.slotOf(c, i)
	q.set(e, returned)
	q.ready.push(&q.slots, e.slot-1, s.place, s.rank)
	if q.topics != nil {
		q.topics.ready(c, i)
	}
}

// heapOf returns the heap that every entry of a state is in.
func (q *queue) heapOf(s state) *heap {
	switch s {
	case returned:
		return &q.ready
	case delayed:
		return &q.delayed
	case leased:
		return &q.leases
	case dead:
		return &q.dead
	default:
		return nil
	}
}

// remove takes an entry out for good.
func (q *queue) remove(c *chunk, i int, why broker.Reason) {
	e := &c.entries[i]
	if q.keyed {
		q.release(c, i)
	}
	if q.topics != nil {
		q.topics.forget(c, i)
	}
	q.set(e, gone)
	q.count[gone], q.bytes[gone], q.payload[gone] = 0, 0, 0
	q.weigh(-int64(e.size))
	q.out[why]++
	if !q.volatile && e.pos != 0 {
		q.s.live.add(e.pos, -int64(e.size))
	}
	if e.has(metaExpires) {
		q.expiries.live--
	}
	if c.base+uint64(i) >= q.shown {
		q.unshown--
	}
	if e.slot != 0 {
		q.slots.put(e.slot - 1)
		e.slot = 0
		if q.slots.used == 0 && len(q.slots.all) > 4096 {
			q.forgetSlots()
		}
	}
	if c.bodies != nil {
		c.bodies[i] = nil
	}
	if c.live--; c.live > 0 {
		return
	}
	if cs := q.chunksOf(c.base); c.full() || c != cs.list[len(cs.list)-1] {
		cs.drop(c)
	}
}

// forgetSlots gives the memory of many slots back once none is used. All nodes
// in the heaps are stale then.
func (q *queue) forgetSlots() {
	q.slots = slots{}
	q.ready, q.delayed, q.leases, q.dead = heap{}, heap{}, heap{}, heap{}
	clear(q.busy)
	if q.topics != nil {
		for _, p := range q.topics.parts {
			p.back = byPlace{}
		}
	}
}

// front returns the first entry before limit in the state waiting, and moves
// the cursor to it.
func (q *queue) front(limit uint64) (*chunk, int) {
	for q.cursor < limit {
		c := q.chunks.from(q.cursor)
		if c == nil {
			q.cursor = limit
			break
		}
		q.cursor = max(q.cursor, c.base)
		for i := int(q.cursor - c.base); i < len(c.entries) && q.cursor < limit; i++ {
			if c.entries[i].state() == waiting {
				return c, i
			}
			q.cursor++
		}
	}
	return nil, 0
}

// candidateFor is candidate of what wt asks for.
func (q *queue) candidateFor(wt *waiter, limit uint64) (*chunk, int) {
	if wt.part != nil {
		return wt.part.candidate(q, limit)
	}
	return q.candidate(limit)
}

// candidate returns the ready entry before limit with the first place, or nil.
func (q *queue) candidate(limit uint64) (*chunk, int) {
	if q.source != nil {
		return q.nextFrom()
	}
	c, i := q.front(limit)
	if n := q.ready.top(&q.slots); n != nil && n.seq < limit && (c == nil || n.key < 2*(c.base+uint64(i))) {
		return q.find(n.seq)
	}
	return c, i
}

// placeAt returns the place behind everything that was queued at due or before.
func (q *queue) placeAt(due int64) uint64 {
	list := q.chunks.list
	lo, hi := 0, len(list)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); list[mid].time <= due {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 1 // before everything
	}
	c := list[lo-1]
	i, j := 0, len(c.entries)
	for i < j {
		if mid := int(uint(i+j) >> 1); c.time+int64(c.entries[mid].queued) <= due {
			i = mid + 1
		} else {
			j = mid
		}
	}
	return 2*(c.base+uint64(i)) - 1
}

// visible counts the entries that may be shown as ready or delayed: those that
// are not committed yet are taken off, whichever of the two they are.
func (q *queue) visible() (ready, later int64) {
	ready, later = q.count[waiting]+q.count[returned]+q.count[blocked], q.count[delayed]
	hidden := q.unshown
	if hidden > 0 {
		n := min(hidden, q.count[waiting])
		ready, hidden = ready-n, hidden-n
		later -= min(hidden, later)
	}
	return ready, later
}
