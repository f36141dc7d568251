package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"millrace/broker"
)

// record is a definition as it is kept in the bucket defs. Its JSON names are
// those of the fields, and stay.
type record struct {
	Format int
	ID     broker.Target // 0 in the first revision, whose number is the id
	Def    broker.Def
}

// format is the version of what is kept in JetStream.
const format = 1

// keyOfName is where a definition is.
func keyOfName(n name) string { return strconv.Itoa(int(n.kind)) + " " + n.name }

// openTargets opens what is defined.
func (s *Store) openTargets(ctx context.Context) error {
	at, err := s.state(ctx, s.defs.stream)
	if err != nil {
		return err
	}
	s.newest = at.Last
	var first, then []record // subscriptions come after their streams
	for _, e := range s.defs.list("") {
		var r record
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return fmt.Errorf("definition %q in bucket %s: %w", e.Key, s.names.bucket("defs"), err)
		}
		if r.Format > format {
			return &openError{ErrUnfit, fmt.Errorf("definition %q is of format %d, and this program knows %d: it was written by a newer one", e.Key, r.Format, format)}
		}
		if r.ID == 0 {
			r.ID = broker.Target(e.Rev)
		}
		if r.Def.Kind == broker.SubscriptionTarget {
			then = append(then, r)
		} else {
			first = append(first, r)
		}
	}
	open := func(r record) error {
		t, err := s.make(ctx, r.ID, r.Def)
		if err != nil {
			return fmt.Errorf("%q: %w", r.Def.Name, err)
		}
		s.put(t)
		return nil
	}
	if err := s.marks.verify(ctx, s.ownMarks(first)); err != nil {
		return err
	}
	if err := s.marks.settle(ctx); err != nil {
		return err
	}
	if err := parallel(first, open); err != nil {
		return err
	}
	return parallel(then, open)
}

// put makes a target known.
func (s *Store) put(t target) {
	d := t.definition()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.targets[d.Target] = t
	s.byName[name{d.Def.Kind, d.Def.Name}] = t
	s.newest = max(s.newest, uint64(d.Target))
}

// make opens a target, creating its streams where they are not there.
func (s *Store) make(ctx context.Context, id broker.Target, d broker.Def) (target, error) {
	switch d.Kind {
	case broker.QueueTarget:
		return s.openQueue(ctx, id, d)
	case broker.StreamTarget:
		return s.openStream(ctx, id, d)
	case broker.SessionTarget:
		return s.openBacklog(id, d)
	case broker.SubscriptionTarget:
		return s.openSubscription(id, d)
	default:
		return nil, fmt.Errorf("%w: targets of kind %d are not known", broker.ErrConflict, d.Kind)
	}
}

// Definitions implements broker.Store.
func (s *Store) Definitions(context.Context) ([]broker.Definition, error) {
	var list []broker.Definition
	for _, t := range s.all() {
		list = append(list, t.definition())
	}
	return list, nil
}

// Define implements broker.Store.
func (s *Store) Define(ctx context.Context, d broker.Def) (broker.Target, error) {
	if d.Kind == broker.StreamTarget && d.Partitions == 0 {
		d.Partitions = 1
	}
	defer s.turnFor(&d)()
	s.mu.RLock()
	have, closed := s.byName[name{d.Kind, d.Name}], s.closing
	s.mu.RUnlock()
	if closed {
		return 0, broker.ErrClosed
	}
	var id broker.Target
	var now *broker.Def
	if have != nil {
		is := have.definition()
		id, now = is.Target, &is.Def
	}
	if err := d.Check(id, now); err != nil {
		return 0, err
	}
	if have != nil {
		return s.alter(ctx, have, d)
	}
	if d.Kind == broker.SubscriptionTarget {
		if _, err := s.streamOf(d.Source); err != nil {
			return 0, err
		}
	}
	rev, err := s.record(ctx, 0, d, broker.RevNone)
	if err != nil {
		return 0, err
	}
	t, err := s.make(ctx, broker.Target(rev), d)
	if err != nil {
		_, undo := s.defs.set(ctx, keyOfName(name{d.Kind, d.Name}), nil, rev)
		return 0, errors.Join(err, undo)
	}
	s.put(t)
	if s.events.Load() != nil {
		t.begin()
	}
	return t.definition().Target, nil
}

// alter changes a target that is there.
func (s *Store) alter(ctx context.Context, t target, d broker.Def) (broker.Target, error) {
	have := t.definition()
	switch {
	case have.Def.Volatile != d.Volatile:
		return 0, fmt.Errorf("%w: the driver of %q cannot change", broker.ErrConflict, d.Name)
	case have.Def.KeyedFIFO != d.KeyedFIFO:
		return 0, fmt.Errorf("%w: FIFO groups of queue %q cannot change", broker.ErrConflict, d.Name)
	case d.Partitions < have.Def.Partitions:
		return 0, fmt.Errorf("%w: stream %q has %d partitions, and they only grow", broker.ErrConflict, d.Name, have.Def.Partitions)
	case have.Def.Source != d.Source:
		return 0, fmt.Errorf("%w: the stream of subscription %q cannot change", broker.ErrConflict, d.Name)
	}
	d.Start = have.Def.Start // only a new one begins somewhere
	rev, err := s.record(ctx, have.Target, d, 0)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.newest = max(s.newest, rev)
	s.mu.Unlock()
	return have.Target, t.alter(ctx, d)
}

// record writes a definition and returns its revision.
func (s *Store) record(ctx context.Context, id broker.Target, d broker.Def, rev uint64) (uint64, error) {
	value, err := json.Marshal(record{format, id, d})
	if err != nil {
		return 0, err
	}
	return s.defs.set(ctx, keyOfName(name{d.Kind, d.Name}), value, rev)
}

// Drop implements broker.Store.
func (s *Store) Drop(ctx context.Context, id broker.Target) error {
	t, err := s.lookup(id)
	if err != nil {
		return err
	}
	d := t.definition().Def
	defer s.turnFor(&d)()
	if t, err = s.lookup(id); err != nil { // dropped meanwhile
		return err
	}
	if st, ok := t.(*stream); ok { // first, so that none is left without its stream
		for _, b := range st.subscriptions() {
			if err := s.discard(ctx, b); err != nil {
				return err
			}
		}
	}
	return s.discard(ctx, t)
}

// discard forgets a target, then what is kept of it.
func (s *Store) discard(ctx context.Context, t target) error {
	d := t.definition()
	n := name{d.Def.Kind, d.Def.Name}
	if _, err := s.defs.set(ctx, keyOfName(n), nil, 0); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.targets, d.Target)
	delete(s.byName, n)
	s.mu.Unlock()
	return t.drop(ctx)
}
