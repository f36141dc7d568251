package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
)

// lead is what the node that leads does for all: it has the store open, does what
// the others ask for, and tells everybody what changed.
type lead struct {
	s     *Store
	inner broker.Store
	ready atomic.Bool // what waited for a leader is done

	// changing is held while a change is told: changes are in one order.
	changing sync.Mutex

	mu        sync.Mutex
	followers map[string]*follower // by name
	sessions  uint64
	number    uint64 // of the newest change
	waiting   []barrier
	closing   bool // it takes nothing more
}

// follower is another node, as the leader knows it.
type follower struct {
	node    broker.Node
	session uint64    // changes whenever it joins; 0 = it has not joined yet
	heard   time.Time // when it was heard of last
	joined  uint64    // the change that told the others of it
	acked   uint64    // it knows all changes up to this one
	taken   uint64    // its newest operation that was taken
	waits   map[uint64]*served
	goesOn  bool // it was one when it joined, and knew
	met     bool // it was heard of since it joined: it has the answer to that
	gone    bool
}

// barrier is a change that all nodes have to know before somebody goes on.
type barrier struct {
	number uint64
	then   func()
}

func newLead(s *Store, inner broker.Store) *lead {
	return &lead{s: s, inner: inner, followers: map[string]*follower{}}
}

// size is how many nodes there are.
func (l *lead) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.followers) + 1
}

// bind begins to tell the broker what happens to messages.
func (l *lead) bind(e broker.Events) { l.inner.Bind(e) }

// submit hands b over; then is called when it is done, and every node knows what
// it changed.
func (l *lead) submit(b *broker.Batch, level broker.Level, then func()) {
	l.inner.Submit(b, level, &submitted{l, then})
}

type submitted struct {
	l    *lead
	then func()
}

// Done implements broker.Completion.
func (x *submitted) Done(b *broker.Batch) {
	heard := x.l.s.followed.Load()
	if heard == nil {
		x.then()
		return
	}
	var changed []event
	for i := range b.Units {
		if b.Units[i].Result.Err != nil {
			continue
		}
		ops := b.OpsOf(i)
		for j := range ops {
			if op := &ops[j]; op.Kind == broker.OpPut && heard.Wants(op.Space, op.Key) {
				changed = append(changed, event{kind: recorded, space: op.Space, entry: broker.Entry{Key: op.Key, Rev: b.Units[i].Result.Rev}})
			}
		}
	}
	if len(changed) == 0 {
		x.then()
		return
	}
	x.l.changed(changed, x.then)
}

// changed tells all nodes of changes, and calls then when all know them.
func (l *lead) changed(es []event, then func()) {
	l.changing.Lock()
	for i := range es {
		e := &es[i]
		// What it is by now: others may have written since. A deletion has the revision
		// of its unit.
		if e.kind == recorded {
			now, err := l.inner.Get(context.Background(), e.space, e.entry.Key)
			if err == nil {
				e.entry = now
			}
		}
		l.tell(e)
	}
	l.mu.Lock()
	n := l.number
	l.mu.Unlock()
	l.changing.Unlock()
	l.await(n, then)
}

// tell tells all nodes, this one too, of one change. The caller holds changing.
func (l *lead) tell(e *event) {
	l.mu.Lock()
	l.number++
	n := l.number
	to := make([]*follower, 0, len(l.followers))
	for _, f := range l.followers {
		if f.session != 0 {
			to = append(to, f)
		}
	}
	l.mu.Unlock()
	if len(to) > 0 { // else this node is alone
		body := e.append(nil)
		for _, f := range to {
			// What is lost is missed by its number.
			_ = l.s.w.send(f.node.Name, eventLane, n, "", append(fields.AppendUints(nil, f.session), body...), "")
		}
	}
	l.s.hear(e)
}

// await calls then when all nodes know the changes up to n.
func (l *lead) await(n uint64, then func()) {
	l.mu.Lock()
	if l.known() >= n {
		l.mu.Unlock()
		then()
		return
	}
	l.waiting = append(l.waiting, barrier{n, then})
	l.mu.Unlock()
}

// known is the newest change that all nodes know. The lock is held.
func (l *lead) known() uint64 {
	n := l.number
	for _, f := range l.followers {
		n = min(n, f.acked)
	}
	return n
}

// pass lets go on who waited for changes that all know by now.
func (l *lead) pass() {
	l.mu.Lock()
	n := l.known()
	var over []func()
	rest := l.waiting[:0]
	for _, b := range l.waiting {
		if b.number <= n {
			over = append(over, b.then)
		} else {
			rest = append(rest, b)
		}
	}
	clear(l.waiting[len(rest):])
	l.waiting = rest
	l.mu.Unlock()
	for _, then := range over {
		then()
	}
}

// wait is await, for a caller that waits.
func (l *lead) wait(ctx context.Context, es ...event) error {
	end := make(chan struct{})
	l.changed(es, func() { close(end) }) //nolint:contextcheck // others go by it, also when ctx ends
	select {
	case <-end:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", broker.ErrUnknown, ctx.Err())
	}
}

// define is Define, of which every node knows when it returns.
func (l *lead) define(ctx context.Context, d broker.Def) (broker.Target, error) {
	t, err := l.inner.Define(ctx, d)
	if err != nil || l.s.followed.Load() == nil {
		return t, err
	}
	now, err := l.definition(ctx, t)
	if err != nil {
		return t, err
	}
	return t, l.wait(ctx, event{kind: defined, def: now})
}

// drop is Drop, of which every node knows when it returns.
func (l *lead) drop(ctx context.Context, t broker.Target) error {
	all, err := l.inner.Definitions(ctx)
	if err != nil {
		return err
	}
	if err := l.inner.Drop(ctx, t); err != nil || l.s.followed.Load() == nil {
		return err
	}
	var gone []event
	for _, d := range all { // a stream goes with its subscriptions
		if d.Target == t || d.Def.Source == t {
			gone = append(gone, event{kind: dropped, def: d})
		}
	}
	return l.wait(ctx, gone...)
}

// definition returns that of a target as it is now.
func (l *lead) definition(ctx context.Context, t broker.Target) (broker.Definition, error) {
	all, err := l.inner.Definitions(ctx)
	for _, d := range all {
		if d.Target == t {
			return d, nil
		}
	}
	if err == nil {
		err = broker.ErrGone // dropped meanwhile
	}
	return broker.Definition{}, err
}

// operate takes an operation of another node: in the order in which it sent them,
// and none without the one before.
func (s *Store) operate(p parcel) {
	l := s.lead.Load()
	r := fields.Reader{Rest: p.body}
	session, before := r.Uint(), r.Uint()
	if l == nil || r.Bad {
		s.w.answer(&p, nil, false, errAway)
		return
	}
	f := l.take(p, session, before)
	if f == nil {
		s.w.answer(&p, nil, false, errAway)
		return
	}
	switch p.kind {
	case kindSubmit:
		b, level, err := readBatch(r.Rest)
		if err != nil {
			s.w.answer(&p, nil, false, err)
			return
		}
		l.submit(b, level, func() {
			if l.undone(b) {
				s.w.answer(&p, nil, false, errAway)
				return
			}
			s.w.answer(&p, appendResults(nil, b), false, nil)
		})
	case kindReceive:
		l.receive(f, p, r)
	case kindCancel:
		l.cancel(f, r.Uint())
		s.w.answer(&p, nil, false, nil)
	default:
		s.serve(&p, func(p *parcel) ([]byte, error) {
			answer, err := l.serve(s.ctx, p, r)
			if l.passesOn(err) {
				err = errAway
			}
			return answer, err
		})
	}
}

// take notes an operation of a follower; it is nil if that is not one, or if an
// operation before this one was lost.
func (l *lead) take(p parcel, session, before uint64) *follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.followers[p.from]
	if l.closing || f == nil || f.session != session || f.node.Start != p.start || f.taken != before {
		return nil
	}
	f.taken, f.met = p.id, true
	return f
}

// passesOn reports whether err is that this node stops leading: nothing was done, and
// the next leader does it.
func (l *lead) passesOn(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing && (isClosed(err) || errors.Is(err, context.Canceled)) && !errors.Is(err, broker.ErrUnknown)
}

// undone reports whether a batch is the next leader's as a whole.
func (l *lead) undone(b *broker.Batch) bool {
	for i := range b.Units {
		if !l.passesOn(b.Units[i].Result.Err) {
			return false
		}
	}
	return len(b.Units) > 0
}

// serve does an operation that takes its time, and returns the answer.
func (l *lead) serve(ctx context.Context, p *parcel, r fields.Reader) ([]byte, error) {
	switch p.kind {
	case kindDefinitions:
		ds, err := l.inner.Definitions(ctx)
		return marshal(ds, err)
	case kindDefine:
		var d broker.Def
		if err := json.Unmarshal(r.Rest, &d); err != nil {
			return nil, err
		}
		t, err := l.define(ctx, d)
		return binary.AppendUvarint(nil, uint64(t)), err
	case kindDrop:
		return nil, l.drop(ctx, broker.Target(r.Uint()))
	case kindRead:
		t, limit, at := broker.Target(r.Uint()), int(r.Uint()), readPos(&r)
		ds, err := l.inner.Read(ctx, t, at, limit, nil)
		return appendDeliveries(nil, ds), err
	case kindFind:
		var id broker.ID
		t := broker.Target(r.Uint())
		copy(id[:], r.Rest)
		ref, err := l.inner.Find(ctx, t, id)
		return appendRef(nil, ref), err
	case kindInfo:
		in, err := l.inner.Info(ctx, broker.Target(r.Uint()))
		return marshal(in, err)
	case kindGet:
		space := broker.Space(r.Byte())
		e, err := l.inner.Get(ctx, space, r.Text())
		return appendEntry(nil, &e), err
	case kindList:
		space := broker.Space(r.Byte())
		return l.list(ctx, p, space, r.Text())
	default:
		return nil, fmt.Errorf("%w: operation %q is not known: the nodes are of different releases", broker.ErrConflict, p.kind)
	}
}

// list answers with pages, each with its number; the last is returned.
func (l *lead) list(ctx context.Context, p *parcel, space broker.Space, prefix string) ([]byte, error) {
	n := uint64(0)
	page := binary.AppendUvarint(nil, n)
	err := l.inner.List(ctx, space, prefix, func(e broker.Entry) bool {
		if page = appendEntry(page, &e); len(page) > listPage {
			l.s.w.answer(p, page, true, nil)
			n++
			page = binary.AppendUvarint(page[:0], n)
		}
		return true
	})
	return page, err
}

func marshal(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}
