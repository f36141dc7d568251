package local

import (
	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/ref"
)

// A subscription is a queue whose entries are those of a stream. It has one
// lane for each partition, and takes an entry into it when it hands the message
// out for the first time, so that only what is in flight costs memory: what is
// before lane.next and is not in a lane is settled, what comes after it is
// backlog. Messages are read through the partition, which knows where they are.
//
// Records of settlements and leases are those of a queue. One that names an
// entry which was not taken yet, because the record of a neighbour's lease was
// lost in a crash, takes it and all before it.

// source is what makes a queue a subscription. It is under the queue's lock.
type source struct {
	st    *stream
	lanes []lane // by partition; those that are missing begin at 0
	turn  int    // the partition that is next

	asof journal.Position // records before it were known to the checkpoint that was read
}

// lane is one partition as a subscription sees it.
type lane struct {
	chunks chunks // entries that were taken and are not settled
	next   uint64 // offset of the next entry to take
	gen    uint8  // counts seeks
}

// lane returns the lane of a partition, which it makes if needed.
func (src *source) lane(partition uint32) *lane {
	for uint32(len(src.lanes)) <= partition {
		src.lanes = append(src.lanes, lane{})
	}
	return &src.lanes[partition]
}

// newSubscription returns a subscription that begins where its definition says.
func (s *Store) newSubscription(id broker.Target, d broker.Def) *queue {
	st := s.targets[d.Source].st
	q := &queue{
		s: s, id: id, name: d.Name, def: s.shape(d), volatile: st.volatile, source: &source{st: st},
		flow: new(flow), contents: new(contents),
	}
	q.mu.q = q
	q.next, q.shown = 1, ^uint64(0)
	for _, o := range d.Start {
		if st.partition(o.Partition) != nil {
			q.source.lane(o.Partition).next = o.Offset
		}
	}
	st.subscribe(q)
	return q
}

// subscribe adds a subscription to those that hear of new messages.
func (st *stream) subscribe(q *queue) {
	list := append([]*queue{q}, st.subscriptions()...)
	st.subs.Store(&list)
}

// unsubscribe takes one out.
func (st *stream) unsubscribe(q *queue) {
	var list []*queue
	for _, other := range st.subscriptions() {
		if other != q {
			list = append(list, other)
		}
	}
	st.subs.Store(&list)
}

func (st *stream) subscriptions() []*queue {
	if list := st.subs.Load(); list != nil {
		return *list
	}
	return nil
}

// limits returns the first offset of a partition and the one after the last.
func (p *partition) limits() (first, shown uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.first, p.shown
}

// nextFrom returns the entry of a subscription that is handed out next, or nil.
// What came back goes first, so that each partition keeps its order.
func (q *queue) nextFrom() (*chunk, int) {
	if n := q.ready.top(&q.slots); n != nil {
		return q.find(n.seq)
	}
	src := q.source
	parts := src.st.partitions()
	for range parts {
		src.turn %= len(parts)
		p, ln := parts[src.turn], src.lane(uint32(src.turn))
		first, shown := p.limits()
		q.cutOff(ln, first)
		if ln.next < shown {
			return q.enter(ln, p.number)
		}
		src.turn++
	}
	return nil, 0
}

// enter takes the next entry of a lane.
func (q *queue) enter(ln *lane, partition uint32) (*chunk, int) {
	c := ln.chunks.tail(ref.Sequence(broker.Offset{Partition: partition, Offset: ln.next}), 0, false, false)
	c.entries = append(c.entries, entry{meta: uint32(waiting)})
	c.live++
	ln.next++
	q.in++
	q.count[waiting]++
	return c, len(c.entries) - 1
}

// reach takes all entries up to o, as if they had been handed out and returned.
func (q *queue) reach(o broker.Offset) {
	ln := q.source.lane(o.Partition)
	if p := q.source.st.partition(o.Partition); p != nil {
		first, _ := p.limits()
		q.cutOff(ln, first)
	}
	for ln.next <= o.Offset {
		c, i := q.enter(ln, o.Partition)
		q.putBack(c, i)
	}
}

// putBack makes an entry ready at its place.
func (q *queue) putBack(c *chunk, i int) {
	s := q.slotOf(c, i)
	e := &c.entries[i]
	q.set(e, returned)
	q.ready.push(&q.slots, e.slot-1, s.place, 0)
}

// known finds the entry of a sequence that a record, or a receipt, names.
func (q *queue) known(seq uint64) (*chunk, int) {
	if q.source != nil && q.reached(seqRun{first: seq, n: 1}).n == 0 {
		return nil, 0
	}
	return q.find(seq)
}

// reached takes what a run names, and returns as much of it as the stream has.
func (q *queue) reached(r seqRun) seqRun {
	o := ref.Offset(r.first)
	p := q.source.st.partition(o.Partition)
	if p == nil {
		return seqRun{}
	}
	_, shown := p.limits()
	if r.n = min(r.n, shown-min(o.Offset, shown)); r.n > 0 {
		o.Offset += r.n - 1
		q.reach(o)
	}
	return r
}

// delivered finds the entry that r is the newest delivery of.
func (q *queue) delivered(r *broker.Ref) (*chunk, int, error) {
	if q.source != nil {
		if err := q.bringUp(r); err != nil {
			return nil, 0, err
		}
	}
	c, i := q.find(r.Seq)
	switch {
	case c == nil || c.entries[i].state() == gone:
		return nil, 0, broker.ErrGone
	case !q.current(&c.entries[i], r):
		return nil, 0, broker.ErrStale
	}
	return c, i, nil
}

// bringUp takes the entries up to one that an earlier start of the process
// handed out, and whose lease was not recorded.
func (q *queue) bringUp(r *broker.Ref) error {
	o := ref.Offset(r.Seq)
	p := q.source.st.partition(o.Partition)
	if p == nil {
		return broker.ErrNotFound
	}
	ln := q.source.lane(o.Partition)
	if o.Offset < ln.next {
		return nil
	}
	if _, shown := p.limits(); r.Epoch >= q.era(r.Seq) || ref.Moves(r.Epoch) != ln.gen || o.Offset >= shown || o.Offset-ln.next >= ref.Reach {
		return broker.ErrStale
	}
	q.reach(o)
	return nil
}

// era is the epoch of a Ref that is given out now.
func (q *queue) era(seq uint64) uint32 {
	if q.source == nil {
		return q.s.epoch
	}
	return ref.Epoch(q.s.epoch, q.source.lane(ref.Partition(seq)).gen)
}

// skip passes over what a lane has not taken before an offset.
func (q *queue) skip(ln *lane, to uint64, why broker.Reason) int {
	if to <= ln.next {
		return 0
	}
	n := to - ln.next
	q.in += n
	q.out[why] += n
	ln.next = to
	return int(n)
}

// leave removes what a lane has taken before an offset.
func (q *queue) leave(ln *lane, to broker.Offset, why broker.Reason) (n int) {
	return q.removeRun(&ln.chunks, 0, ref.Sequence(to), why)
}

// settleUpTo removes everything of a partition up to and including o.
func (q *queue) settleUpTo(o broker.Offset, why broker.Reason) int {
	ln := q.source.lane(o.Partition)
	o.Offset++
	return q.leave(ln, o, why) + q.skip(ln, o.Offset, why)
}

// seek has a partition go on at o.
func (q *queue) seek(o broker.Offset) {
	ln := q.source.lane(o.Partition)
	ln.gen++
	q.leave(ln, broker.Offset{Partition: o.Partition, Offset: ln.next}, broker.ReasonSkipped)
	q.skip(ln, o.Offset, broker.ReasonSkipped)
	ln.next = o.Offset
}

// cutOff counts what retention took before the lane came to it.
func (q *queue) cutOff(ln *lane, first uint64) {
	q.toTell(broker.ReasonRetention, q.skip(ln, first, broker.ReasonRetention))
}

// cutTo removes what retention has taken from a partition.
func (q *queue) cutTo(to broker.Offset) {
	ln := q.source.lane(to.Partition)
	q.toTell(broker.ReasonRetention, q.leave(ln, to, broker.ReasonRetention))
	q.cutOff(ln, to.Offset)
}

// cutSubscriptions tells the subscriptions that the partition begins later now.
func (p *partition) cutSubscriptions(to uint64) {
	var l waitQueue
	for _, q := range p.st.subscriptions() {
		q.mu.Lock()
		if !q.dropped {
			q.cutTo(broker.Offset{Partition: p.number, Offset: to})
			q.attend(p.st.s.milli(), &l)
		}
		q.mu.Unlock()
	}
	p.st.s.handOut(&l)
}

// backlog counts what a subscription has not taken yet.
func (q *queue) backlog() (n uint64) {
	for _, p := range q.source.st.partitions() {
		first, shown := p.limits()
		next := max(q.source.lane(p.number).next, first)
		n += shown - min(next, shown)
	}
	return n
}

// bounds is where a subscription stands in each partition.
func (q *queue) bounds() (list []broker.PartitionInfo) {
	for _, p := range q.source.st.partitions() {
		ln := q.source.lane(p.number)
		first, _ := p.limits()
		b := broker.PartitionInfo{First: max(ln.next, first), Next: max(ln.next, first)}
		if c, i := ln.oldest(); c != nil {
			b.First = ref.Offset(c.base + uint64(i)).Offset
		}
		list = append(list, b)
	}
	return list
}

// oldest returns the first entry that is not settled, or nil.
func (ln *lane) oldest() (*chunk, int) {
	for _, c := range ln.chunks.list {
		for i := range c.entries {
			if c.entries[i].state() != gone {
				return c, i
			}
		}
	}
	return nil, 0
}

// oldest returns when the oldest message came that is not settled, about; 0 if
// there is none.
func (src *source) oldest(bounds []broker.PartitionInfo) (at int64) {
	for i, p := range src.st.partitions()[:len(bounds)] {
		if t := p.timeOf(bounds[i].First); t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	return at
}

// timeOf returns when the message at an offset came, or one a little before it;
// 0 if it is not there.
func (p *partition) timeOf(o uint64) int64 {
	if f, _, _, err := p.fileAt(o); err != nil || f != nil {
		if err != nil {
			return 0
		}
		return f.time
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if c := p.from(o); c != nil && o < p.shown {
		return c.time
	}
	return 0
}
