package local

import (
	"context"
	"errors"

	"millrace/broker"
)

// Read appends up to limit entries of t to dst.
func (s *Store) Read(ctx context.Context, t broker.Target, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	if err := s.closed(); err != nil {
		return dst, err
	}
	tg, err := s.target(t)
	if err != nil {
		return dst, err
	}
	if tg.st != nil {
		return s.readStream(tg.st, p, limit, dst)
	}
	q := tg.q
	var picks []pick
	var states []broker.EntryState
	var whys []broker.Reason
	if q.source == nil {
		picks, states, whys = q.browse(p, limit)
	} else {
		picks, states, whys = q.browseSource(p, limit)
	}
	var l loader
	for len(picks) > 0 {
		n := min(len(picks), loadMax)
		if err := ctx.Err(); err != nil {
			return dst, err
		}
		l.begin(q, picks[:n], 0)
		for i := range picks[:n] {
			d := q.shownAs(&picks[i], states[i], whys[i])
			if err := l.message(picks, i, &d); errors.Is(err, broker.ErrGone) {
				continue
			} else if err != nil {
				return dst, err
			}
			dst = append(dst, d)
		}
		picks, states, whys = picks[n:], states[n:], whys[n:]
	}
	return dst, nil
}

// browse returns up to limit entries in the states of p, after skipping some, in
// the order in which they were published. Until of a delivery is the end of
// its lease or delay, or since when it is dead.
func (q *queue) browse(p broker.Pos, limit int) (picks []pick, states []broker.EntryState, whys []broker.Reason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	skip := p.Skip
	for _, c := range q.chunks.list {
		for i := range c.entries {
			if c.base+uint64(i) >= q.shown || len(picks) >= limit {
				return picks, states, whys
			}
			st := shownState(c.entries[i].state())
			if st&p.States == 0 || c.base+uint64(i) < p.Seq {
				continue
			}
			if skip > 0 {
				skip--
				continue
			}
			k, why := q.look(c, i)
			picks, states, whys = append(picks, k), append(states, st), append(whys, why)
		}
	}
	return picks, states, whys
}

// shownState is a state in the contract's words; 0 is not shown.
func shownState(s state) broker.EntryState {
	switch s {
	case waiting, returned, blocked:
		return broker.Ready
	case delayed:
		return broker.Delayed
	case leased:
		return broker.Leased
	case dead:
		return broker.Dead
	default:
		return 0
	}
}

// Find looks for a message that was handed out. Ids are remembered with the
// lease; of messages handed out by an earlier process they are read.
func (s *Store) Find(ctx context.Context, t broker.Target, id broker.ID) (broker.Ref, error) {
	if err := s.closed(); err != nil {
		return broker.Ref{}, err
	}
	q, err := s.queueOf(t)
	if err != nil {
		return broker.Ref{}, err
	}
	ref, unknown := q.findID(id)
	if ref.Seq != 0 {
		return ref, nil
	}
	for l := (loader{}); len(unknown) > 0; {
		n := min(len(unknown), loadMax)
		if err := ctx.Err(); err != nil {
			return broker.Ref{}, err
		}
		l.begin(q, unknown[:n], 0)
		for i := range unknown[:n] {
			var d broker.Delivery
			if err := l.message(unknown, i, &d); errors.Is(err, broker.ErrGone) {
				continue
			} else if err != nil {
				return broker.Ref{}, err
			}
			if d.ID == id {
				return broker.Ref{Target: t, Seq: unknown[i].seq, Attempt: unknown[i].attempt, Epoch: unknown[i].epoch}, nil
			}
		}
		unknown = unknown[n:]
	}
	return broker.Ref{}, broker.ErrNotFound
}

// findID returns the delivery of id, or those whose ids are not known.
func (q *queue) findID(id broker.ID) (ref broker.Ref, unknown []pick) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.slots.all {
		s := &q.slots.all[i]
		if s.seq == 0 || s.attempt == 0 {
			continue
		}
		switch s.id {
		case id:
			return broker.Ref{Target: q.id, Seq: s.seq, Attempt: s.attempt, Epoch: q.era(s.seq)}, nil
		case broker.ID{}:
			if c, j := q.find(s.seq); c != nil {
				p, _ := q.look(c, j)
				unknown = append(unknown, p)
			}
		}
	}
	return ref, unknown
}

// Info counts one target.
func (s *Store) Info(_ context.Context, t broker.Target) (broker.Info, error) {
	if err := s.closed(); err != nil {
		return broker.Info{}, err
	}
	tg, err := s.target(t)
	if err != nil {
		return broker.Info{}, err
	}
	if tg.st != nil {
		return tg.st.info(), nil
	}
	return tg.q.info(), nil
}

// info counts the queue.
func (q *queue) info() broker.Info {
	q.mu.Lock()
	defer q.mu.Unlock()
	ready, later := q.visible()
	in := broker.Info{
		Ready: ready, Delayed: later, Leased: q.count[leased], Dead: q.count[dead], Held: q.count[held],
		In: q.in - uint64(q.unshown), Out: q.out, Activity: q.since,
	}
	if q.source != nil {
		q.countBacklog(&in)
		return in
	}
	for s := waiting; s < states; s++ {
		in.Bytes += q.bytes[s]
		in.Payload += q.payload[s]
	}
	for _, c := range q.chunks.list {
		for i := range c.entries {
			if c.entries[i].state() != gone {
				in.Oldest = broker.Time(c.entries[i].time(c))
				return in
			}
		}
	}
	return in
}
