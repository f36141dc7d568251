package local

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// seqEpoch spaces the sequences of volatile queues: nothing tells a start how
// far the one before it came, and a sequence must not be used twice.
const seqEpoch = 1 << 40

// kinds is how many kinds of target there are.
const kinds = broker.SubscriptionTarget

// knownKind reports whether there are targets of a kind.
func knownKind(k broker.TargetKind) bool { return k >= broker.QueueTarget && k <= kinds }

// Definitions lists what was defined.
func (s *Store) Definitions(context.Context) ([]broker.Definition, error) {
	if err := s.closed(); err != nil {
		return nil, err
	}
	s.targetMu.RLock()
	defer s.targetMu.RUnlock()
	list := make([]broker.Definition, 0, len(s.targets))
	for id, t := range s.targets {
		list = append(list, broker.Definition{Target: id, Def: t.def()})
	}
	return list, nil
}

// def returns the definition of t.
func (t target) def() broker.Def {
	if t.q != nil {
		t.q.mu.Lock()
		defer t.q.mu.Unlock()
		d := *t.q.def
		d.Name = t.q.name
		return d
	}
	t.st.mu.RLock()
	defer t.st.mu.RUnlock()
	return t.st.def
}

// Define creates or alters a target.
func (s *Store) Define(ctx context.Context, d broker.Def) (broker.Target, error) {
	if !knownKind(d.Kind) {
		return 0, fmt.Errorf("define %q: no kind of target has the number %d", d.Name, d.Kind)
	}
	d.Meta = slices.Clone(d.Meta)
	if d.Kind == broker.StreamTarget {
		d.Partitions = max(d.Partitions, 1)
	}
	if err := s.wal.Lock(); err != nil {
		return 0, unavailable(err)
	}
	if d.Kind == broker.SubscriptionTarget {
		source := s.targets[d.Source]
		if source.st == nil {
			s.wal.Unlock(journal.Lazy, nil)
			if source.q != nil {
				return 0, broker.ErrNotFound
			}
			return 0, s.missing(d.Source)
		}
		d.Volatile, d.Start = source.st.volatile, slices.Clone(d.Start)
	}
	id, known := s.names[d.Kind-broker.QueueTarget][d.Name]
	var now *broker.Def
	if known {
		have := s.targets[id].def()
		now = &have
	}
	if err := d.Check(id, now); err != nil {
		s.wal.Unlock(journal.Lazy, nil)
		return 0, err
	}
	if known {
		if !s.targets[id].alterable(&d) {
			s.wal.Unlock(journal.Lazy, nil)
			return 0, broker.ErrConflict
		}
	} else {
		if s.short(s.milli()) {
			s.wal.Unlock(journal.Lazy, nil)
			return 0, broker.ErrFull
		}
		id = s.nextTarget
	}
	if !s.mem {
		body := encodeDef(nil, id, &d)
		if err := s.reserve(journal.RecordHeader+len(body), !known); err != nil {
			s.wal.Unlock(journal.Lazy, nil)
			return 0, err
		}
		s.wal.End(append(s.wal.Start(recDefine), body...), false)
	}
	s.define(id, d)
	return id, s.wait(ctx)
}

// wait gives the append lock back and waits until everything before is safe.
func (s *Store) wait(ctx context.Context) error {
	c := confirmation{s: s, done: make(chan error, 1)}
	s.outstanding.Add(1)
	s.wal.Unlock(journal.Durable, c)
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return unknown(context.Cause(ctx))
	}
}

// confirmation is the completion of one who waits.
type confirmation struct {
	s    *Store
	done chan error
}

// Done ends the wait.
func (w confirmation) Done(err error) {
	if err != nil {
		w.s.failed(err)
		err = unknown(err)
	}
	w.done <- err
	w.s.completed()
}

// alterable reports whether t can become d.
func (t target) alterable(d *broker.Def) bool {
	old := t.def()
	if old.Kind != d.Kind || old.Volatile != d.Volatile {
		return false
	}
	if t.st != nil {
		return d.Partitions >= old.Partitions
	}
	return old.KeyedFIFO == d.KeyedFIFO && old.Source == d.Source
}

// define makes id what d says. The append lock is held.
func (s *Store) define(id broker.Target, d broker.Def) {
	s.targetMu.Lock()
	s.nextTarget = max(s.nextTarget, id+1)
	s.targetMu.Unlock()
	if d.Kind == broker.SubscriptionTarget && s.targets[d.Source].st == nil {
		return // replayed: its stream was dropped later
	}
	t, known := s.targets[id]
	if !known {
		t = s.newTarget(id, d)
	}
	s.targetMu.Lock()
	s.targets[id] = t
	s.names[d.Kind-broker.QueueTarget][d.Name] = id
	s.targetMu.Unlock()
	switch {
	case !known:
	case t.q != nil:
		s.alter(t.q, d)
	default:
		t.st.alter(d)
	}
}

// newTarget returns an empty queue or stream.
func (s *Store) newTarget(id broker.Target, d broker.Def) target {
	volatile := s.mem || d.Volatile
	switch d.Kind {
	case broker.StreamTarget:
		return target{st: s.newStream(id, d, volatile)}
	case broker.SubscriptionTarget:
		return target{q: s.newSubscription(id, d)}
	case broker.QueueTarget, broker.SessionTarget:
	}
	q := &queue{s: s, id: id, name: d.Name, def: s.shape(d), volatile: volatile, keyed: d.KeyedFIFO, next: 1}
	if volatile {
		q.next += uint64(s.epoch) * seqEpoch
	}
	q.mu.q = q
	if d.Kind != broker.SessionTarget || !s.bound.Load() { // what is read at the start takes no lock
		q.contents, q.flow = &contents{shown: q.next, cursor: q.next}, new(flow)
	}
	if q.keyed {
		q.busy = map[uint64]*group{}
	}
	return target{q: q}
}

// shape returns what a queue keeps of d. Sessions share it as long as they are
// alike. The append lock is held.
func (s *Store) shape(d broker.Def) *broker.Def {
	d.Name = ""
	if d.Kind == broker.SessionTarget && s.session != nil && reflect.DeepEqual(*s.session, d) {
		return s.session
	}
	if d.Kind == broker.SessionTarget {
		s.session = &d
	}
	return &d
}

// alter gives q a new definition. The ends of messages that came back are noted
// anew when the time to live changed.
func (s *Store) alter(q *queue, d broker.Def) {
	q.mu.Lock()
	ttl := q.def.TTL
	q.def = s.shape(d)
	if d.TTL != ttl {
		q.expiries.filter(func(x expiry) bool { return !x.ttl })
		for i := range q.slots.all {
			c, j := q.find(q.slots.all[i].seq)
			if c == nil {
				continue
			}
			switch c.entries[j].state() {
			case returned, blocked, delayed:
				q.noteTTL(c, j)
			default:
			}
		}
	}
	q.mu.Unlock()
	if s.bound.Load() {
		s.timers.set(q, 1) // now: what was waiting for the old definition may go on
	}
}

// Drop removes a target with all that is in it.
func (s *Store) Drop(ctx context.Context, id broker.Target) error {
	if err := s.wal.Lock(); err != nil {
		return unavailable(err)
	}
	if _, ok := s.targets[id]; !ok {
		s.wal.Unlock(journal.Lazy, nil)
		return s.missing(id)
	}
	if !s.mem {
		if err := s.reserve(journal.RecordHeader+maxSmall, false); err != nil {
			s.wal.Unlock(journal.Lazy, nil)
			return err
		}
		s.wal.End(fields.AppendUints(s.wal.Start(recDrop), uint64(id)), false)
	}
	dropped := s.drop(id)
	err := s.wait(ctx)
	for _, t := range dropped {
		s.endWaitsAt(t, broker.ErrGone)
	}
	return err
}

// drop forgets a target, and of a stream its subscriptions. The append lock is
// held.
func (s *Store) drop(id broker.Target) []target {
	t := s.targets[id]
	dropped := []target{t}
	if t.st != nil {
		for _, q := range t.st.subscriptions() {
			dropped = append(dropped, s.drop(q.id)...)
		}
	}
	d := t.def()
	s.targetMu.Lock()
	delete(s.targets, id)
	if names := s.names[d.Kind-broker.QueueTarget]; names[d.Name] == id {
		delete(names, d.Name) // when the journal is read, another one may have it already
	}
	s.targetMu.Unlock()
	if t.q != nil {
		t.q.mu.Lock()
		t.q.dropped = true
		t.q.wake = 0
		t.q.untold = nil
		for _, n := range t.q.bytes {
			t.q.weigh(-n)
		}
		s.orphans.add(t.q)
		t.q.chunks = chunks{}
		t.q.topics = nil
		if src := t.q.source; src != nil {
			src.lanes = nil
			src.st.unsubscribe(t.q)
		}
		t.q.slots = slots{}
		t.q.forgetSlots()
		t.q.expiries = expiries{}
		t.q.unshown = 0
		s.timers.set(t.q, 0)
		t.q.mu.Unlock()
	} else {
		t.st.drop()
	}
	return dropped
}

// used reports whether id was a target of this store once.
func (s *Store) used(id broker.Target) bool { return id >= s.firstOwn && id < s.nextTarget }

// target returns a target, or why there is none. No lock is needed.
func (s *Store) target(id broker.Target) (target, error) {
	s.targetMu.RLock()
	defer s.targetMu.RUnlock()
	if t, ok := s.targets[id]; ok {
		return t, nil
	}
	return target{}, s.missing(id)
}

// missing is the error of a target that is not there.
func (s *Store) missing(id broker.Target) error {
	if s.used(id) {
		return broker.ErrGone
	}
	return broker.ErrNotFound
}

// queueOf returns a queue. No lock is needed.
func (s *Store) queueOf(id broker.Target) (*queue, error) {
	t, err := s.target(id)
	if err == nil && t.q == nil {
		err = broker.ErrNotFound
	}
	return t.q, err
}

// all returns the targets there are.
func (s *Store) all() []target {
	s.targetMu.RLock()
	defer s.targetMu.RUnlock()
	list := make([]target, 0, len(s.targets))
	for _, t := range s.targets {
		list = append(list, t)
	}
	return list
}
