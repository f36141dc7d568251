package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"millrace/broker"
	"millrace/persistence/ref"
)

// subscription leases the messages of a stream. JetStream knows nothing of it:
// the node keeps what was handed out and is not settled, reads messages through
// the partitions, and writes to the bucket subs what must outlive it
// (subscriptionrecord.go).
//
// It has a lane for each partition. What is before lane.next and not open is
// settled, what comes after is backlog. Package ref says how a Ref names a message.
type subscription struct {
	s  *Store
	id broker.Target
	of *stream

	mu      sync.Mutex
	def     broker.Def
	begun   bool
	dropped bool

	lanes []*lane
	turn  int                         // the partition that is next
	ready btree.Map[uint64, *pending] // what came back, by turnOf
	ends  *btree.BTreeG[*pending]     // what ends by itself, by time
	timer *time.Timer                 // of the first of ends
	wake  int64                       // when it fires, 0 if it does not

	count  [states]int64
	out    [broker.Reasons]uint64
	untold [broker.Reasons]int // dropped, and Events not told yet
	since  broker.Activity

	waits []*asking
	records
}

// lane is one partition as a subscription sees it.
type lane struct {
	p     *partition
	open  btree.Map[uint64, *pending] // taken and not settled, by offset
	next  uint64                      // offset of the next one to take
	moves uint8                       // counts seeks

	changed map[uint64]bool  // windows whose record is out of date; true: it must be written
	written map[uint64]uint8 // windows that have a record, and the moves that it is of
	oldest  stamp
}

// stamp is when the message at an offset came.
type stamp struct {
	offset uint64
	at     time.Time
}

// pending is a message that was taken from its partition and is not settled.
type pending struct {
	seq     uint64 // as in a Ref
	state   state
	why     broker.Reason
	here    bool // this process handed it out
	attempt uint32
	until   int64     // end of the lease or delay, or since when it is dead
	end     int64     // when the timer has to look at it, 0 for never
	id      broker.ID // once it was handed out here
}

// earlier orders ends.
func earlier(x, y *pending) bool {
	return cmp.Or(cmp.Compare(x.end, y.end), cmp.Compare(x.seq, y.seq)) < 0
}

// turnOf orders what came back: by offset, so that the partitions take turns.
func turnOf(seq uint64) uint64 {
	o := ref.Offset(seq)
	return o.Offset<<16 | uint64(o.Partition)
}

// openSubscription opens a subscription, which begins where its definition says
// if it is new.
func (s *Store) openSubscription(id broker.Target, d broker.Def) (*subscription, error) {
	t, err := s.streamOf(d.Source)
	if err != nil {
		return nil, err
	}
	b := &subscription{s: s, id: id, of: t, def: d, ends: btree.NewBTreeGOptions(earlier, btree.Options{NoLocks: true})}
	if err := b.restore(); err != nil {
		return nil, fmt.Errorf("the record of subscription %q: %w", d.Name, err)
	}
	t.subscribe(b)
	for n, ln := range b.lanes {
		first, _ := ln.p.limits()
		b.cutTo(broker.Offset{Partition: uint32(n), Offset: first})
	}
	return b, nil
}

// streamOf is lookup of a stream.
func (s *Store) streamOf(id broker.Target) (*stream, error) {
	t, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	if st, ok := t.(*stream); ok {
		return st, nil
	}
	return nil, fmt.Errorf("%w: target %d is no stream", broker.ErrNotFound, id)
}

// subscriptionOf is lookup of a subscription.
func (s *Store) subscriptionOf(id broker.Target) (*subscription, error) {
	t, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	if b, ok := t.(*subscription); ok {
		return b, nil
	}
	return nil, fmt.Errorf("%w: target %d is no subscription", broker.ErrNotFound, id)
}

func (b *subscription) definition() broker.Definition {
	b.mu.Lock()
	defer b.mu.Unlock()
	return broker.Definition{Target: b.id, Def: b.def}
}

// alter implements target.
func (b *subscription) alter(_ context.Context, d broker.Def) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.def = d
	for _, ln := range b.lanes {
		ln.open.Scan(func(_ uint64, e *pending) bool {
			if e.state == parked {
				b.set(e, parked, e.until)
			}
			return true
		})
	}
	b.attend()
	return nil
}

// begin implements target.
func (b *subscription) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun = true
	for _, ln := range b.lanes {
		ln.open.Scan(func(_ uint64, e *pending) bool {
			if e.state == heldBack {
				b.retell(e)
			}
			return true
		})
	}
	b.plan()
	b.attend()
	b.tell()
}

// end stops the timer and ends the waits.
func (b *subscription) end(why error) {
	b.of.unsubscribe(b)
	b.mu.Lock()
	b.dropped = true
	waits := b.waits
	b.waits = nil
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	for _, a := range waits {
		a.stop()
		a.w.Err = why
		b.s.deliver(a.w)
	}
}

// drop implements target.
func (b *subscription) drop(ctx context.Context) error {
	b.end(broker.ErrGone)
	return b.forget(ctx)
}

// close implements target.
func (b *subscription) close(ctx context.Context) error {
	b.end(broker.ErrClosed)
	return insist(ctx, b.save)
}

func (b *subscription) reconnected() {}

// lane returns the lane of a partition, or nil if the stream does not have it.
func (b *subscription) lane(n uint32) *lane {
	for uint32(len(b.lanes)) <= n {
		p := b.of.partition(uint32(len(b.lanes)))
		if p == nil {
			return nil
		}
		b.lanes = append(b.lanes, &lane{p: p, changed: map[uint64]bool{}, written: map[uint64]uint8{}})
	}
	return b.lanes[n]
}

// laneOf returns that of a message that is pending.
func (b *subscription) laneOf(e *pending) *lane { return b.lanes[ref.Partition(e.seq)] }

// epoch is that of a Ref which is given out now.
func (b *subscription) epoch(ln *lane) uint32 { return ref.Epoch(uint32(b.s.own.epoch), ln.moves) }

// set moves e to a state, which holds until a time or has none. The lock is held,
// here and below.
func (b *subscription) set(e *pending, to state, until int64) {
	b.leave(e)
	e.state, e.until = to, until
	switch to {
	case leased, delayed:
		e.end = until
	case parked:
		if keep := b.def.DeadRetention.Milliseconds(); keep > 0 {
			e.end = until + keep
		}
	default:
	}
	b.enter(e)
}

// enter counts e in its state, and has the timer look at it.
func (b *subscription) enter(e *pending) {
	b.count[e.state]++
	if e.state == back {
		b.ready.Set(turnOf(e.seq), e)
	}
	if e.end != 0 {
		b.ends.Set(e)
		b.plan()
	}
	ln := b.laneOf(e)
	ln.touch(ref.Offset(e.seq).Offset, false)
}

// leave is the reverse of enter.
func (b *subscription) leave(e *pending) {
	b.count[e.state]--
	if e.state == back {
		b.ready.Delete(turnOf(e.seq))
	}
	if e.end != 0 {
		b.ends.Delete(e)
		e.end = 0
	}
}

// take takes the next message of a lane.
func (b *subscription) take(ln *lane) *pending {
	e := &pending{seq: ref.Sequence(broker.Offset{Partition: ln.p.number, Offset: ln.next})}
	ln.open.Set(ln.next, e)
	ln.next++
	b.enter(e)
	return e
}

// reach takes all messages up to one, as if they had been handed out and returned.
func (b *subscription) reach(ln *lane, offset uint64) {
	first, _ := ln.p.limits()
	b.cutOff(ln, first)
	for ln.next <= offset {
		b.take(ln)
	}
}

// remove settles e.
func (b *subscription) remove(e *pending, why broker.Reason) {
	b.leave(e)
	ln, o := b.laneOf(e), ref.Offset(e.seq).Offset
	ln.open.Delete(o)
	ln.touch(o, false)
	b.out[why]++
}

// removeBefore settles what is open before an offset, and returns how many those were.
func (b *subscription) removeBefore(ln *lane, to uint64, why broker.Reason) int {
	var list []*pending
	ln.open.Scan(func(o uint64, e *pending) bool {
		if o < to {
			list = append(list, e)
		}
		return o < to
	})
	for _, e := range list {
		b.remove(e, why)
	}
	return len(list)
}

// skip passes over what a lane has not taken before an offset.
func (b *subscription) skip(ln *lane, to uint64, why broker.Reason) int {
	if to <= ln.next {
		return 0
	}
	n := to - ln.next
	b.out[why] += n
	ln.next = to
	return int(n)
}

// cutOff counts what retention took before the lane came to it.
func (b *subscription) cutOff(ln *lane, first uint64) {
	b.untold[broker.ReasonRetention] += b.skip(ln, first, broker.ReasonRetention)
}

// cutTo removes what retention has taken from a partition. The lock is not held.
func (b *subscription) cutTo(to broker.Offset) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ln := b.lane(to.Partition)
	if ln == nil || b.dropped {
		return
	}
	b.untold[broker.ReasonRetention] += b.removeBefore(ln, to.Offset, broker.ReasonRetention)
	b.cutOff(ln, to.Offset)
	b.attend()
	b.tell()
}

// tell tells the broker what was dropped.
func (b *subscription) tell() {
	if !b.begun {
		return
	}
	for why, n := range b.untold {
		if n > 0 {
			b.s.tell(func(e broker.Events) { e.Dropped(b.id, broker.Reason(why), n) })
		}
		b.untold[why] = 0
	}
}
