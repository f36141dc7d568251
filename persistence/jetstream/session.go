package jetstream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"millrace/broker"
)

// backlog is a session: what waits for a client, or for the members of a shared
// subscription. Its messages are in the log of all sessions; here is where they
// stand. How far the session is, is one key in the bucket back (sessionkeep.go).
type backlog struct {
	s  *Store
	id broker.Target

	mu      sync.Mutex
	def     broker.Def
	dropped bool
	begun   bool

	list   []*place // by sequence; those that are gone go later
	gone   int      // of them
	next   int      // before it nothing is ready
	held   holding  // what is there
	taken  holding  // of it, what is not ready
	flying holding  // what is on its way into the log
	leased int64
	out    [broker.Reasons]uint64
	since  broker.Activity
	mark   uint64 // no message above it was ever handed out or settled
	untold int    // dropped, and not told yet
	waits  []*sessionWait
	timer  *time.Timer
	wake   int64 // when it fires, 0 if it does not

	was  map[uint64]*place // of the record that was found, until the log was read
	keep keeping
}

// place is a message in a backlog.
type place struct {
	at    *logged
	until int64
	tag   uint32
	tries uint32
	state state // back, leased, delayed; leaving once it is gone
}

// sessionWait is a Wait in the line of a session.
type sessionWait struct {
	w     *broker.Wait
	timer *time.Timer
}

// openBacklog makes a session known; its messages come with the log.
func (s *Store) openBacklog(id broker.Target, d broker.Def) (*backlog, error) {
	b := &backlog{s: s, id: id, def: d}
	return b, b.restore()
}

// backlogOf returns the session t, or nil if it is none, or no more. It does so also
// while the store closes: what comes out of the log then is a session's as ever.
func (s *Store) backlogOf(t broker.Target) *backlog {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, _ := s.targets[t].(*backlog)
	return b
}

func (b *backlog) definition() broker.Definition {
	b.mu.Lock()
	defer b.mu.Unlock()
	return broker.Definition{Target: b.id, Def: b.def}
}

// alter implements target.
func (b *backlog) alter(_ context.Context, d broker.Def) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.def = d
	b.serve()
	return nil
}

// begin implements target.
func (b *backlog) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun, b.was = true, nil
	b.look()
}

// drop implements target.
func (b *backlog) drop(ctx context.Context) error {
	for _, p := range b.end(broker.ErrGone) {
		if p.state != leaving {
			b.s.sessions.release(p.at)
		}
	}
	_, err := b.s.back.set(ctx, b.key(), nil, 0)
	return err
}

// end stops the timer and ends the waits; it returns what was there.
func (b *backlog) end(why error) []*place {
	b.mu.Lock()
	b.dropped = true
	waits, list := b.waits, b.list
	b.waits, b.list = nil, nil
	for _, t := range []*time.Timer{b.timer, b.keep.timer} {
		if t != nil {
			t.Stop()
		}
	}
	b.mu.Unlock()
	for _, x := range waits {
		x.end(b, why)
	}
	return list
}

// close implements target.
func (b *backlog) close(ctx context.Context) error {
	err := insist(ctx, b.save)
	b.end(broker.ErrClosed)
	return err
}

func (*backlog) reconnected() {} // it asks nobody for messages

// add puts a message of the log at the end. It reports false if the session was
// done with it before this process started, or is gone. own says that its room
// was reserved.
func (b *backlog) add(x *logged, tag uint32, own bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if own {
		b.flying.add(x.size, -1)
	}
	p := &place{at: x, tag: tag}
	if x.seq <= b.mark && !b.begun {
		was := b.was[x.seq]
		if was == nil {
			return false
		}
		p.state, p.tries, p.until = was.state, was.tries, was.until
	}
	if b.dropped {
		return false
	}
	b.list = append(b.list, p)
	b.held.add(x.size, 1)
	b.tally(p, 1)
	if x.expires != 0 {
		b.soon(x.expires)
	}
	b.serve()
	return true
}

// tally counts p among those that are not ready.
func (b *backlog) tally(p *place, by int64) {
	if p.state == back {
		return
	}
	b.taken.add(p.at.size, by)
	if p.state == leased {
		b.leased += by
	}
}

// set moves p to a state.
func (b *backlog) set(p *place, to state, until int64) {
	b.tally(p, -1)
	p.state, p.until = to, until
	b.tally(p, 1)
	if to == back {
		b.next = min(b.next, b.index(p.at.seq))
	} else {
		b.soon(until)
	}
	b.stale()
}

// index is where the message of a sequence stands, or would.
func (b *backlog) index(seq uint64) int {
	i, _ := slices.BinarySearchFunc(b.list, seq, func(p *place, seq uint64) int {
		switch {
		case p.at.seq < seq:
			return -1
		case p.at.seq > seq:
			return 1
		}
		return 0
	})
	return i
}

// place returns the message of a sequence, or nil.
func (b *backlog) place(seq uint64) *place {
	if i := b.index(seq); i < len(b.list) && b.list[i].at.seq == seq && b.list[i].state != leaving {
		return b.list[i]
	}
	return nil
}

// lose takes p out for a reason. Its place in the log is free once that is
// recorded.
func (b *backlog) lose(p *place, why broker.Reason) {
	b.tally(p, -1)
	b.held.add(p.at.size, -1)
	p.state = leaving
	b.gone++
	b.out[why]++
	if why != broker.ReasonExpired { // that is seen again, and the mark would be far ahead
		b.mark = max(b.mark, p.at.seq)
	}
	b.keep.over = append(b.keep.over, p.at)
	for len(b.list) > 0 && b.list[0].state == leaving {
		b.list[0] = nil
		b.list = b.list[1:]
		b.gone--
		b.next = max(b.next-1, 0)
	}
	if b.gone > 64 && b.gone > len(b.list)/2 {
		b.list = slices.DeleteFunc(b.list, func(p *place) bool { return p.state == leaving })
		b.gone, b.next = 0, 0
	}
	b.stale()
}

// discard takes p out and tells that it was dropped.
func (b *backlog) discard(p *place, why broker.Reason) {
	b.lose(p, why)
	b.tell(why)
}

// tell has the broker told of one more that was dropped.
func (b *backlog) tell(why broker.Reason) {
	if why != broker.ReasonOverflow {
		b.s.tell(func(e broker.Events) { e.Dropped(b.id, why, 1) })
		return
	}
	if b.untold++; b.untold > 1 {
		return
	}
	b.s.tell(func(e broker.Events) {
		b.mu.Lock()
		n := b.untold
		b.untold = 0
		b.mu.Unlock()
		e.Dropped(b.id, why, n)
	})
}

// admit reserves room for a message, as the session's policy says: in reports
// whether it is for the session at all. One that comes again may be what fills it.
func (b *backlog) admit(z size, again bool) (in bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case again, b.roomFor(b.held, z):
	case b.def.DropOldest && b.roomFor(b.taken, z):
		for i := b.next; !b.roomFor(b.held, z) && i < len(b.list); {
			p := b.list[i]
			if p.state != back {
				i++
				continue
			}
			b.discard(p, broker.ReasonOverflow)
			i = b.next
		}
	case b.def.DropNewest:
		b.tell(broker.ReasonOverflow)
		return false, nil
	default:
		return false, broker.ErrFull
	}
	b.flying.add(z, 1)
	return true, nil
}

// roomFor reports whether z fits beside what is there and what is on its way.
func (b *backlog) roomFor(there holding, z size) bool {
	d, f := &b.def, &b.flying
	over := func(limit, have, more int64) bool { return limit > 0 && have+more > limit }
	return !over(d.MaxMessages, there.n+f.n, 1) && !over(d.MaxBytes, there.bytes+f.bytes, z.bytes) && !over(d.MaxPayload, there.payload+f.payload, z.payload)
}

// yield gives back room that was reserved.
func (b *backlog) yield(z size) {
	b.mu.Lock()
	b.flying.add(z, -1)
	b.mu.Unlock()
}

// soon has look called at a time. One that never comes is none.
func (b *backlog) soon(at int64) {
	if !b.begun || b.dropped || b.wake != 0 && b.wake <= at {
		return
	}
	d := time.UnixMilli(at).Sub(b.s.Now())
	if d > never {
		return
	}
	b.wake = at
	if b.timer == nil {
		b.timer = time.AfterFunc(d, b.woken)
		return
	}
	b.timer.Reset(d)
}

const (
	never     = 50 * 365 * 24 * time.Hour
	lookEvery = 100 * time.Millisecond // a large backlog is not looked at more often
)

func (b *backlog) woken() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake = 0
	if !b.dropped {
		b.look()
	}
}

// look ends leases, delays and messages whose time is over.
func (b *backlog) look() {
	now := b.s.milli()
	next := int64(0)
	earlier := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	for _, p := range slices.Clone(b.list) {
		switch {
		case p.state == back && p.at.expires != 0 && p.at.expires <= now:
			b.discard(p, broker.ReasonExpired)
		case p.state == back && p.at.expires != 0:
			earlier(p.at.expires)
		case (p.state == leased || p.state == delayed) && p.until > now:
			earlier(p.until)
		case p.state == leased:
			b.since.Lapses++
			b.set(p, back, 0)
		case p.state == delayed:
			b.set(p, back, 0)
		default:
		}
	}
	if next != 0 {
		if len(b.list) > 1000 {
			next = max(next, now+lookEvery.Milliseconds())
		}
		b.soon(next)
	}
	b.serve()
}

// info implements target.
func (b *backlog) info(context.Context) (broker.Info, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := broker.Info{
		Ready: b.held.n - b.taken.n, Leased: b.leased, Delayed: b.taken.n - b.leased,
		Bytes: b.held.bytes, Payload: b.held.payload, In: uint64(b.held.n), Out: b.out, Activity: b.since,
	}
	for _, n := range b.out {
		in.In += n
	}
	for _, p := range b.list {
		if p.state == back {
			in.Oldest = broker.Time(p.at.queued)
			break
		}
	}
	return in, nil
}

// read implements target: it browses, leasing nothing.
func (b *backlog) read(ctx context.Context, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	b.mu.Lock()
	var found []place
	for skip, i := p.Skip, b.index(p.Seq); i < len(b.list) && len(found) < limit; i++ {
		x := b.list[i]
		if x.state == leaving || x.state.shown()&p.States == 0 {
			continue
		}
		if skip--; skip < 0 {
			found = append(found, *x)
		}
	}
	b.mu.Unlock()
	ms, err := b.s.sessions.messages(ctx, found)
	if err != nil {
		return dst, err
	}
	for i, m := range ms {
		if m != nil { // else it left meanwhile
			dst = append(dst, b.delivery(&found[i], m))
		}
	}
	return dst, nil
}

// delivery is a message in the hands of the client.
func (b *backlog) delivery(p *place, m *broker.Message) broker.Delivery {
	return broker.Delivery{
		Ref:     broker.Ref{Target: b.id, Seq: p.at.seq, Attempt: p.tries},
		Message: *m, Until: p.until, Queued: p.at.queued, Tag: p.tag, State: p.state.shown(),
	}
}

// messages returns those of places, nil for one that is not in the log any more.
func (l *sessionLog) messages(ctx context.Context, places []place) ([]*broker.Message, error) {
	ms := make([]*broker.Message, len(places))
	var far []int
	for i := range places {
		if ms[i] = places[i].at.m.Load(); ms[i] == nil {
			far = append(far, i)
		}
	}
	err := parallel(far, func(i int) (err error) {
		ms[i], err = l.message(ctx, places[i].at)
		if errors.Is(err, broker.ErrNotFound) {
			ms[i], err = nil, nil
		}
		return err
	})
	return ms, err
}
