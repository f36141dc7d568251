package broker

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"millrace/broker/auth"
)

// holder is the node that a client with a session is connected to. Its start
// tells it from what had its name before.
type holder struct {
	node  string
	start uint64
}

// tenure is what is known of the record of a session in a shared store. Whoever
// writes it names the revision that it goes by, so that of two nodes that take a
// session one is refused, and one that lost a session cannot write it any more.
type tenure struct {
	holder       holder
	rev, willRev uint64 // RevNone: there is none
	wrote        []byte // last, by this node
	lost         bool   // another node has it: what is in memory is not true any more
	missed       int    // events about it while it was held
	moved        bool   // it came from another node
	connected    bool   // a connection has it, which ends when it is lost
}

// errLost is why nothing is written of a session that another node has.
var errLost = errorf(Conflict, ClientSubject, "the client is connected to another node")

// newTenure is nil where no other node is.
func (ss *sessions) newTenure() *tenure {
	if ss.b.cluster == nil {
		return nil
	}
	return &tenure{rev: RevNone, willRev: RevNone}
}

// revision is what a Put of the session's record names. The caller holds mu.
func (s *Session) revision() uint64 {
	if s.tenure == nil {
		return 0
	}
	return s.tenure.rev
}

// willRevision is the same of its will. The caller holds mu.
func (s *Session) willRevision() uint64 {
	if s.tenure == nil {
		return 0
	}
	return s.tenure.willRev
}

// heldBy is who has the session, if that is written down. The caller holds mu.
func (s *Session) heldBy() holder {
	if s.tenure == nil {
		return holder{}
	}
	return s.tenure.holder
}

// write hands over what fill puts, which is called with mu held, and waits. In a
// shared store the next one has its turn after the outcome, whose revision it
// names.
func (s *Session) write(ctx context.Context, level Level, fill func(*Batch)) error {
	c := newCommit()
	turn := s.b.sessions.turn(s)
	turn.Lock()
	s.lock()
	if s.tenure != nil && s.tenure.lost {
		s.mu.Unlock()
		turn.Unlock()
		c.release()
		return errLost
	}
	fill(&c.Batch)
	s.noteWritten(&c.Batch)
	s.mu.Unlock()
	c.hand(s.b.store, level)
	if s.tenure == nil {
		turn.Unlock()
		return c.outcome(ctx)
	}
	defer turn.Unlock()
	err := c.outcome(ctx)
	if errors.Is(err, ErrConflict) {
		s.b.sessions.lose(s) //nolint:contextcheck // the connection's end outlives the caller
		return errLost
	}
	return err
}

// noteWritten remembers what is written of the record, so that it is known when
// it is told. The caller holds mu.
func (s *Session) noteWritten(b *Batch) {
	if s.tenure == nil {
		return
	}
	for i := range b.Ops {
		if op := &b.Ops[i]; op.Kind == OpPut && op.Key == s.id {
			s.tenure.wrote = op.Value
		}
	}
}

// lose says that another node has the session: its connection here ends.
func (ss *sessions) lose(s *Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.lost(s)
}

// lost is lose for who holds mu.
func (ss *sessions) lost(s *Session) {
	s.mu.Lock()
	first, connected := !s.tenure.lost, s.tenure.connected
	s.tenure.lost = true
	s.mu.Unlock()
	if first && ss.release != nil && connected && s.wait == nil && !ss.alone && !ss.closed {
		f := ss.release
		ss.done.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
			defer cancel()
			f(ctx, s.id, TakenElsewhere)
		})
	}
}

// follow goes by what was recorded of a session, on this node or another.
func (ss *sessions) follow(e Entry) error {
	id, kind, rest := splitSessionKey(e.Key)
	if kind != 0 && kind != keyWill {
		return ss.followSubscription(id, rest, e.Value)
	}
	l := sessionLoader{b: ss.b, ctx: context.Background(), byID: map[string]*Session{}, released: releasedIDs{}}
	if e.Value != nil {
		if err := l.entry(e); err != nil {
			return err
		}
	}
	f := l.byID[id]
	f.decide()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.byID[id]
	if s != nil && !s.held && kind == 0 && !s.durable { // what there was is gone
		ss.remove(s)
		s = nil
	}
	switch {
	case s == nil && f == nil:
	case s == nil:
		ss.add(f)
		s = f
	case s.held:
		ss.followHeld(s, kind, e, f)
	case kind == keyWill:
		ss.followWill(s, e, f)
	case f == nil:
		ss.remove(s)
	default:
		s.adopt(f, f.small)
		ss.schedule(s)
	}
	if f != nil && !s.held && s.durable && kind == 0 && ss.moved != nil {
		ss.moved(s)
	}
	return nil
}

// followHeld hears about a session that this node holds. What it wrote itself is
// true already, and so is what it has read. The caller holds sessions.mu.
func (ss *sessions) followHeld(s *Session, kind byte, e Entry, f *Session) {
	s.lock()
	t := s.tenure
	t.missed++
	if known := t.revision(kind); known != RevNone && e.Rev <= known {
		s.mu.Unlock()
		return
	}
	ours := f != nil && f.tenure.holder == ss.self
	if kind == keyWill {
		if f == nil {
			ours = !s.willStored
			t.willRev = RevNone
		} else {
			ours = ours || s.willStored
			t.willRev = e.Rev
		}
	} else {
		ours = ours && s.wait == nil || bytes.Equal(t.wrote, e.Value)
		if t.rev = e.Rev; f == nil {
			t.rev, ours = RevNone, s.ending
		}
	}
	s.mu.Unlock()
	if !ours {
		ss.lost(s)
	}
}

// revision is that of what is known of the session itself, or of its will.
func (t *tenure) revision(kind byte) uint64 {
	if kind == keyWill {
		return t.willRev
	}
	return t.rev
}

// followWill hears about the will of a session that nobody here holds. The caller
// holds sessions.mu.
func (ss *sessions) followWill(s *Session, e Entry, f *Session) {
	if f == nil && !s.durable {
		ss.remove(s)
		return
	}
	s.lock()
	if f == nil {
		s.will, s.willStored, s.willDue, s.tenure.willRev = nil, false, 0, RevNone
	} else {
		s.will, s.willStored, s.willDue, s.tenure.willRev = f.will, true, f.willDue, e.Rev
		if !s.durable {
			s.tenure.holder = f.tenure.holder
		}
		s.timeWill()
	}
	s.mu.Unlock()
	s.rest()
	ss.schedule(s)
}

// followSubscription hears about one subscription of a session.
func (ss *sessions) followSubscription(id, filter string, value []byte) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.byID[id]
	if s == nil || s.held {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.find(filter)
	if value == nil {
		if known {
			s.leaveOut(i)
		}
		return nil
	}
	o, err := decodeOptions(value)
	if err != nil || known && s.subs[i].o == o {
		return err
	}
	d := &sessionSub{s: s, filter: filter, o: o}
	d.decide(s.owner)
	s.place(d, i, known)
	return nil
}

// add makes a session known that another node made. The caller holds mu.
func (ss *sessions) add(f *Session) {
	ss.byID[f.id] = f
	if t, ok := ss.loose[f.id]; ok {
		f.target.Store(uint64(t))
		delete(ss.loose, f.id)
	}
	f.mu.Lock()
	f.time()
	for i, d := range f.subs {
		if i > 0 {
			f.multi.Store(true)
		}
		if d.routed() {
			f.b.tree.Insert(d.filter, d)
			f.b.joined.Add(1)
		}
	}
	f.mu.Unlock()
	f.owner.Rest()
	f.rest()
	ss.schedule(f)
}

// remove forgets a session that another node ended. The caller holds mu.
func (ss *sessions) remove(s *Session) {
	s.mu.Lock()
	for len(s.subs) > 0 {
		s.leaveOut(len(s.subs) - 1)
	}
	s.mu.Unlock()
	delete(ss.byID, s.id)
	s.due = 0
	if t := Target(s.target.Load()); t != 0 {
		ss.loosen(s.id, t)
	}
	if ss.ended != nil {
		ss.ended(s)
	}
}

// adopt has s be what f, which was read, is; subs says that its subscriptions are
// among that. The caller holds sessions.mu.
func (s *Session) adopt(f *Session, subs bool) {
	s.lock()
	s.expiry, s.since, s.small, s.owner = f.expiry, f.since, f.small, f.owner
	s.tenure.holder, s.tenure.rev = f.tenure.holder, f.tenure.rev
	s.time()
	if subs {
		s.adoptSubs(f.subs)
	}
	s.mu.Unlock()
	s.owner.Rest()
	s.rest()
}

// adoptSubs makes the subscriptions what they are in a record. The caller holds mu.
func (s *Session) adoptSubs(now []*sessionSub) {
	wanted := make(map[string]bool, len(now))
	for _, d := range now {
		wanted[d.filter] = true
		i, known := s.find(d.filter)
		if known && s.subs[i].o == d.o {
			s.subs[i].asked.Store(d.asked.Load())
			continue
		}
		d.s = s
		s.place(d, i, known)
	}
	for i, d := range slices.Backward(s.subs) {
		if !wanted[d.filter] {
			s.leaveOut(i)
		}
	}
}

// place puts d at i, for the one with its filter if known. The caller holds mu.
func (s *Session) place(d *sessionSub, i int, known bool) {
	if known || len(s.subs) > 0 {
		s.multi.Store(true) // before a message can match both
	}
	if d.routed() {
		s.b.tree.Insert(d.filter, d)
		s.b.joined.Add(1)
	}
	if !known {
		s.subs = append(s.subs, nil)
		copy(s.subs[i+1:], s.subs[i:])
		s.subs[i] = d
		return
	}
	old := s.subs[i]
	if old.routed() {
		s.b.tree.Remove(old.filter, old)
	}
	old.disconnect()
	s.subs[i] = d
}

// leaveOut takes the subscription at i out. The caller holds mu.
func (s *Session) leaveOut(i int) *sessionSub {
	d := s.subs[i]
	if d.routed() {
		s.b.tree.Remove(d.filter, d)
	}
	d.disconnect()
	s.subs = append(s.subs[:i], s.subs[i+1:]...)
	if d.shared() {
		s.b.sessions.suspect(groupTarget(d.filter))
	}
	return d
}

// decide finds what the owner of a session that was read may have of what its
// subscriptions match.
func (s *Session) decide() {
	if s == nil {
		return
	}
	for _, d := range s.subs {
		d.decide(s.owner)
	}
}

func (d *sessionSub) decide(owner *auth.Principal) {
	dec := d.s.b.auth.Decide(owner, auth.Subscribe, auth.TopicResource(d.filter))
	d.asked.Store(dec.Overlap || !dec.Allowed)
}

// time sets when the session and its will end, by its record. The caller holds mu.
func (s *Session) time() {
	s.endDue = 0
	if s.durable && s.since != 0 && s.expiry != NeverExpires {
		s.endDue = s.since + lifetime(s.expiry).Milliseconds()
	}
	s.timeWill()
}

// timeWill sets when a will is due of which that was not recorded. The caller
// holds mu.
func (s *Session) timeWill() {
	if s.affairs == nil || s.will == nil {
		return
	}
	if s.tenure.holder != (holder{}) || s.durable && s.since == 0 {
		s.willDue = 0 // its client is connected
		return
	}
	if s.willDue == 0 {
		s.willDue = s.b.sessions.now() + max(s.willDelay(), willGrace).Milliseconds()
	}
}
