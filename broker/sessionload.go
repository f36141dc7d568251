package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/broker/auth"
)

// SessionPolicy says what a full backlog of a session does.
type SessionPolicy string

// The policies.
const (
	SessionDropOldest SessionPolicy = "drop-oldest"
	SessionDropNewest SessionPolicy = "drop-newest"
	SessionRefuse     SessionPolicy = "refuse-publisher" // the publish fails as a whole
)

// sessionDef is the backlog of a client's session.
func (b *Broker) sessionDef(id string) Def {
	o := b.tuned.Load()
	return Def{
		Name: id, Kind: SessionTarget, MaxMessages: o.SessionMessages, MaxBytes: o.SessionBytes,
		// What is larger than all that may wait never costs its publisher.
		DropOldest: o.SessionPolicy == SessionDropOldest, DropNewest: o.SessionPolicy != SessionRefuse,
	}
}

// loadSessions brings the sessions back as they were recorded.
func (b *Broker) loadSessions(ctx context.Context, defs []Definition) error {
	ss := &b.sessions
	targets := make(map[string]Definition)
	for _, d := range defs {
		if d.Def.Kind == SessionTarget {
			targets[d.Def.Name] = d
		}
	}
	l := sessionLoader{b: b, ctx: ctx, byID: ss.byID, released: releasedIDs{}}
	err := b.store.List(ctx, SpaceSessions, "", func(e Entry) bool {
		l.err = l.entry(e)
		return l.err == nil
	})
	if err = errors.Join(err, l.err); err != nil {
		return err
	}
	if b.cluster != nil {
		b.loadShared(targets)
		return nil
	}
	groups := make(map[string]int)
	for _, s := range ss.byID {
		for _, d := range s.subs {
			if d.shared() {
				groups[d.filter]++
			}
		}
		l.released.give(s)
		if d, ok := targets[s.id]; ok {
			delete(targets, s.id)
			s.target.Store(uint64(d.Target))
			if err := errors.Join(b.adjustSession(ctx, d), b.settleHanded(ctx, d.Target, l.released[s.id])); err != nil {
				return err
			}
		}
		b.restoreSession(s)
	}
	if err := b.loadGroups(ctx, groups, targets); err != nil {
		return err
	}
	for _, d := range targets { // a session that was being made or ended
		if err := b.store.Drop(ctx, d.Target); err != nil {
			return fmt.Errorf("backlog of session %q: %w", d.Def.Name, err)
		}
	}
	return nil
}

// loadGroups brings the shared subscriptions back that sessions have.
func (b *Broker) loadGroups(ctx context.Context, members map[string]int, targets map[string]Definition) error {
	for filter, n := range members {
		name := groupTarget(filter)
		d, ok := targets[name]
		if !ok { // it was just being made
			t, err := b.store.Define(ctx, b.sessionDef(name))
			if err != nil {
				return err
			}
			d = Definition{Target: t, Def: b.sessionDef(name)}
		}
		delete(targets, name)
		if err := b.restoreGroup(ctx, filter, n, d); err != nil {
			return fmt.Errorf("shared subscription %s: %w", filter, err)
		}
	}
	return nil
}

// adjustSession gives the backlog of a session the limits of now.
func (b *Broker) adjustSession(ctx context.Context, d Definition) error {
	want, old := b.sessionDef(d.Def.Name), d.Def
	if old.MaxMessages == want.MaxMessages && old.MaxBytes == want.MaxBytes && old.DropOldest == want.DropOldest && old.DropNewest == want.DropNewest {
		return nil
	}
	_, err := b.store.Define(ctx, want)
	return err
}

// restoreSession puts a session that was read to work.
func (b *Broker) restoreSession(s *Session) {
	ss := &b.sessions
	if s.since == 0 { // connected when the process ended, which is not known better
		s.since = ss.now()
	}
	if s.durable && s.expiry != NeverExpires {
		s.endDue = s.since + lifetime(s.expiry).Milliseconds()
	}
	s.decide()
	for _, d := range s.subs {
		if d.routed() {
			b.tree.Insert(d.filter, d)
		}
	}
	s.owner.Rest()
	s.rest()
	s.multi.Store(len(s.subs) > 1)
	ss.mu.Lock()
	ss.schedule(s)
	ss.mu.Unlock()
}

// sessionLoader reads the entries of SpaceSessions, in order of key: first a
// session, then what is its.
type sessionLoader struct {
	b        *Broker
	ctx      context.Context //nolint:containedctx // of one call
	byID     map[string]*Session
	released releasedIDs
	err      error
}

func (l *sessionLoader) entry(e Entry) error {
	id, kind, rest := splitSessionKey(e.Key)
	s := l.byID[id]
	if kind != 0 && kind != keyWill && s == nil {
		return nil // left over from a session whose end was not written to the end
	}
	var err error
	switch kind {
	case 0:
		err = l.session(strings.Clone(id), e)
	case keySubscription:
		d := &sessionSub{s: s, filter: strings.Clone(rest)}
		d.o, err = decodeOptions(e.Value)
		s.subs = append(s.subs, d) // in order of key, which is that of the filter
	case keyReceived:
		s.restoreReceived(packetID(rest), e.Value)
	case keyReleased:
		seq, _ := binary.Uvarint(e.Value)
		l.released[id] = append(l.released[id], releasedID{e.Rev, packetID(rest), seq})
	case keyNumber:
		if len(rest) != 8 || len(e.Value) != 2 {
			err = errSession
			break
		}
		s.lock()
		if s.numbers == nil {
			s.numbers = make(map[uint64]uint16)
		}
		s.numbers[binary.BigEndian.Uint64([]byte(rest))] = binary.BigEndian.Uint16(e.Value)
		s.mu.Unlock()
	case keyWill:
		err = l.will(strings.Clone(id), e)
	default:
		err = fmt.Errorf("kind %q is not known; a newer release wrote it", kind)
	}
	if err != nil {
		return fmt.Errorf("session of client %q: %w", id, err)
	}
	return nil
}

// restoreReceived reads a record of a publish of QoS 2: it was stored, or, with
// the id of its message, may have been.
func (s *Session) restoreReceived(packet uint16, value []byte) {
	var id ID
	if copy(id[:], value) < len(id) {
		s.receive(packet)
		return
	}
	s.lock()
	if s.claimed == nil {
		s.claimed = make(map[uint16]ID)
	}
	s.claimed[packet] = id
	s.mu.Unlock()
}

func (l *sessionLoader) session(id string, e Entry) error {
	r, err := decodeSession(e.Value)
	if err != nil {
		return err
	}
	s := &Session{b: l.b, id: id, durable: true, expiry: r.expiry, since: r.since, affairs: new(affairs)}
	s.small = r.small
	for i := range r.subs {
		s.subs = append(s.subs, &sessionSub{s: s, filter: r.subs[i].filter, o: r.subs[i].o})
	}
	if s.tenure = l.b.sessions.newTenure(); s.tenure != nil {
		s.tenure.holder, s.tenure.rev = r.holder, e.Rev
	}
	l.own(s, r.owner)
	l.byID[id] = s
	return nil
}

// own finds the identity that s belongs to. A session of one that is gone ends, once
// no client is connected.
func (l *sessionLoader) own(s *Session, who string) {
	p, err := l.b.auth.Identity(l.ctx, who, s.id)
	if err != nil {
		p = &auth.Principal{Kind: auth.Anonymous, Name: who}
		if s.heldBy() == (holder{}) {
			s.expiry, s.since, s.will = 0, 1, nil
		}
	}
	s.owner = p
}

// will reads a will: that of a session, or of a client that had none.
func (l *sessionLoader) will(id string, e Entry) error {
	r, err := decodeWill(e.Value)
	if err != nil {
		return err
	}
	s := l.byID[id]
	if s == nil {
		s = &Session{b: l.b, id: id, since: 1, affairs: new(affairs)}
		if s.tenure = l.b.sessions.newTenure(); s.tenure != nil {
			s.tenure.holder = r.holder
		}
		l.own(s, r.owner)
		l.byID[id] = s
	}
	s.will, s.willStored, s.willDue = &r.will, true, r.due
	switch {
	case s.tenure != nil:
		s.tenure.willRev = e.Rev
	case r.due == 0: // connected when the process ended
		s.willDue = l.b.sessions.now() + max(s.willDelay(), willGrace).Milliseconds()
	}
	return nil
}

// willDelay is how long after the end of the connection the will is due. The
// caller holds mu, or knows s alone.
func (s *Session) willDelay() time.Duration {
	if s.expiry == NeverExpires {
		return s.will.Delay
	}
	return min(s.will.Delay, lifetime(s.expiry))
}

// releasedIDs are packet ids with the revisions of their records, which are in
// the order in which the client acknowledged.
type releasedIDs map[string][]releasedID

type releasedID struct {
	rev uint64
	id  uint16
	seq uint64 // of the delivery, if the store may have it still
}

func (all releasedIDs) give(s *Session) {
	ids := all[s.id]
	slices.SortFunc(ids, func(a, b releasedID) int { return cmp.Compare(a.rev, b.rev) })
	for _, r := range ids {
		s.released = append(s.released, r.id)
	}
}
