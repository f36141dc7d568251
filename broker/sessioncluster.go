package broker

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// clustered is what sessions need where other nodes are; under sessions.mu.
type clustered struct {
	self    holder // this node, fixed
	release func(ctx context.Context, clientID string, why Parting)
	moved   func(*Session)
	led     func()
	shared  func(filter string) // told of each that gets a backlog
	alone   bool
	// loose are backlogs of sessions that are not there: just being made, or ended.
	loose  map[string]Target
	broken []*Session // that were lost, and are not read yet
	// orphans are sessions of nodes that are gone, not yet taken in.
	orphans []orphan
	closed  bool // no goroutine begins any more
}

// backlogLinger is how long a backlog that nobody has waits before it is removed:
// who defines one has recorded for whom by then.
const backlogLinger = 10 * time.Second

// brokenRetry is how long after the store had no answer it is asked again.
const brokenRetry = time.Second

// suspects are backlogs that may have nobody any more, and shared subscriptions
// that may have no backlog. The leader looks at them after a while.
type suspects struct {
	mu  sync.Mutex
	due map[string]int64 // by the name of the target, Unix milliseconds
}

// init prepares ss for its broker.
func (ss *sessions) init(b *Broker) {
	ss.b, ss.byID, ss.wake = b, make(map[string]*Session), make(chan struct{}, 1)
	ss.seed = maphash.MakeSeed()
	if b.cluster == nil {
		return
	}
	ss.loose, ss.suspects.due = make(map[string]Target), make(map[string]int64)
	for _, n := range b.cluster.Nodes() {
		if n.Name == b.cluster.Self() {
			ss.self = holder{n.Name, n.Start}
		}
	}
	b.cluster.Answer(askRelease, ss.answerRelease)
}

// poke has run look at what there is to do.
func (ss *sessions) poke() {
	select {
	case ss.wake <- struct{}{}:
	default:
	}
}

// suspect has the leader look at a backlog after a while.
func (ss *sessions) suspect(name string) {
	if ss.b.cluster == nil {
		return
	}
	ss.suspects.mu.Lock()
	ss.suspects.due[name] = ss.now() + backlogLinger.Milliseconds()
	ss.suspects.mu.Unlock()
	ss.poke()
}

// loosen notes a backlog whose session is not there. The caller holds mu.
func (ss *sessions) loosen(name string, t Target) {
	ss.loose[name] = t
	ss.suspect(name)
}

// bindBacklog makes a backlog known that some node defined.
func (b *Broker) bindBacklog(t Target, name string) {
	ss := &b.sessions
	if name[:1] == "\x00" {
		if g := b.groupNamed(name[1:]); g == nil || g.target != t {
			b.unbindGroup(name[1:])
			b.bindGroup(name[1:], t, 0)
			ss.mu.Lock()
			f := ss.shared
			ss.mu.Unlock()
			if f != nil {
				f(name[1:])
			}
		}
		ss.suspect(name)
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s := ss.byID[name]; s != nil && s.durable {
		s.target.Store(uint64(t))
		return
	}
	ss.loosen(name, t)
}

// unbindBacklog forgets one that was dropped.
func (b *Broker) unbindBacklog(t Target, name string) {
	ss := &b.sessions
	if name[:1] == "\x00" {
		if g := b.groupNamed(name[1:]); g != nil && g.target == t {
			b.unbindGroup(name[1:])
		}
		ss.suspect(name)
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s := ss.byID[name]; s != nil {
		s.target.CompareAndSwap(uint64(t), 0)
	}
	if ss.loose[name] == t {
		delete(ss.loose, name)
	}
}

// loadShared puts to work what was read of a store that others use as well.
func (b *Broker) loadShared(backlogs map[string]Definition) {
	ss := &b.sessions
	ss.mu.Lock()
	all := ss.byID
	ss.byID = make(map[string]*Session, len(all))
	for name, d := range backlogs {
		if name[:1] != "\x00" {
			ss.loose[name] = d.Target
		}
	}
	for _, s := range all {
		s.decide()
		ss.add(s)
	}
	for name := range ss.loose {
		ss.suspect(name)
	}
	ss.mu.Unlock()
	ss.bury(holder{})
	for name, d := range backlogs {
		if name[:1] == "\x00" {
			b.bindBacklog(d.Target, name)
		}
	}
}

// putAway readies a session of a connection that has ended for whatever node takes
// it next. It reports false for one that was lost: that has to be read first.
func (ss *sessions) putAway(s *Session) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.lock()
	defer s.mu.Unlock()
	if !s.tenure.lost {
		s.tenure.wrote, s.tenure.moved, s.tenure.connected = nil, false, false
		s.changes, s.received, s.claimed, s.released, s.numbers = nil, nil, nil, nil, nil
		return true
	}
	if s.wait == nil {
		s.wait = make(chan struct{})
	}
	ss.broken = append(ss.broken, s)
	ss.poke()
	return false
}

// orphan is a session whose node is gone, as it was recorded then, and since when.
type orphan struct {
	s            *Session
	rev, willRev uint64
	since        int64 // Unix milliseconds
}

// bury notes the sessions of a node that is gone, or for the zero value of all that
// are not there. The leader alone does: who leads next looks at all.
func (ss *sessions) bury(of holder) {
	if !ss.b.leads() {
		return
	}
	there := make(map[holder]bool)
	for _, n := range ss.b.cluster.Nodes() {
		there[holder{n.Name, n.Start}] = true
	}
	now := ss.now()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.byID {
		s.mu.Lock()
		if h := s.heldBy(); !s.held && h != (holder{}) && h != ss.self && (h == of || of == (holder{}) && !there[h]) {
			ss.orphans = append(ss.orphans, orphan{s, s.tenure.rev, s.tenure.willRev, now})
		}
		s.mu.Unlock()
	}
	ss.poke()
}

// takeIn ends what nodes that are gone had of sessions: their clients count as
// disconnected since then. It reports whether some are left.
func (ss *sessions) takeIn() (left bool) {
	ss.mu.Lock()
	all := ss.orphans
	ss.orphans = nil
	ss.mu.Unlock()
	for _, o := range all {
		if !ss.b.leads() {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
		if !o.takeIn(ctx) {
			ss.mu.Lock()
			ss.orphans = append(ss.orphans, o)
			ss.mu.Unlock()
			left = true
		}
		cancel()
	}
	return left
}

// lead tells that this node leads.
func (ss *sessions) lead() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.led != nil {
		ss.done.Go(ss.led)
	}
}

// takeIn records that the connection of a session ended with its node. It reports
// false if that is to be tried again.
func (o *orphan) takeIn(ctx context.Context) bool {
	s := o.s
	ss := &s.b.sessions
	if free, err := ss.borrow(ctx, s); err != nil || !free {
		return err == nil // somebody has it, or nothing is left of it
	}
	s.lock()
	same := s.tenure.rev == o.rev && s.tenure.willRev == o.willRev // else somebody took it since
	if same {
		s.tenure.holder = holder{}
		if s.since == 0 {
			s.since = o.since
		}
		if s.will != nil && s.willDue == 0 {
			s.willDue = o.since + s.willDelay().Milliseconds()
		}
		s.time()
	}
	s.mu.Unlock()
	var err error
	if same {
		if err = s.record(ctx, Durable); err != nil {
			ss.lose(s) //nolint:contextcheck // what is recorded counts, and nobody waits for it
		}
	}
	ss.letGo(s)
	return err == nil || err == errLost //nolint:errorlint // it is returned bare
}

// sweepBacklogs removes backlogs that nobody has, and makes those again that
// somebody misses. It returns how long until there is something to look at.
func (ss *sessions) sweepBacklogs() time.Duration {
	if ss.b.cluster == nil {
		return time.Hour
	}
	now, wait := ss.now(), time.Hour
	var names []string
	ss.suspects.mu.Lock()
	for name, due := range ss.suspects.due {
		if left := due - now; left > 0 {
			wait = min(wait, time.Duration(left)*time.Millisecond)
			continue
		}
		names = append(names, name)
		delete(ss.suspects.due, name)
	}
	ss.suspects.mu.Unlock()
	if len(names) == 0 || !ss.b.leads() {
		return wait
	}
	members := ss.members()
	for _, name := range names {
		if err := ss.sweepBacklog(name, members); err != nil && !isGone(err) {
			ss.b.log.Warn().Str("backlog", name).Err(err).Msg("backlog of a session was not tidied")
			ss.suspect(name)
		}
	}
	return min(wait, backlogLinger)
}

// members are the shared subscriptions that sessions have.
func (ss *sessions) members() map[string]bool {
	all := make(map[string]bool)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.byID {
		s.mu.Lock()
		for _, d := range s.subs {
			if d.shared() {
				all[d.filter] = true
			}
		}
		s.mu.Unlock()
	}
	return all
}

func (ss *sessions) sweepBacklog(name string, members map[string]bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
	defer cancel()
	if name[:1] != "\x00" {
		ss.mu.Lock()
		t, loose := ss.loose[name]
		ss.mu.Unlock()
		if !loose {
			return nil
		}
		return ss.b.store.Drop(ctx, t)
	}
	g := ss.b.groupNamed(name[1:])
	switch {
	case g == nil && members[name[1:]]:
		_, err := ss.b.store.Define(ctx, ss.b.sessionDef(name))
		return err
	case g != nil && !members[name[1:]]:
		return ss.b.store.Drop(ctx, g.target)
	default:
		return nil
	}
}

// dropLoose removes the backlog that a session of the client had which has ended.
func (ss *sessions) dropLoose(ctx context.Context, id string) error {
	ss.mu.Lock()
	t, loose := ss.loose[id]
	ss.mu.Unlock()
	if !loose {
		return nil
	}
	if err := ss.b.store.Drop(ctx, t); err != nil && !isGone(err) {
		return storeError(err)
	}
	return nil
}
