package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"millrace/broker/auth"
	"millrace/broker/fields"
)

// Limits of a session's way from one node to another.
const (
	// releaseTime is how long the node that has a session may take to give it up.
	releaseTime = time.Second
	// lastReleaseTime is the same once the session is not its any more: until it has
	// heard that, or is expelled.
	lastReleaseTime = 10 * time.Second
)

// Kinds of what nodes tell each other of clients.
const (
	askRelease    = "session.release"  // the client id
	tellConnected = "client.connected" // when u64, client id, identity
)

// Parting says why a connection here has to end.
type Parting uint8

// The reasons.
const (
	TakenElsewhere Parting = iota // its client connected to another node
	CutOff                        // this node reaches no other, and may not keep sessions
)

// Elsewhere is a client that has connected to another node.
type Elsewhere struct {
	ClientID string
	Identity string // as Principal.String says it
	Since    int64  // when it connected, Unix milliseconds
}

// OnRelease has part called to end the connection of a client that holds a
// session, because of what happens on other nodes. It returns when Session.Close
// has, or when there is no such connection. connected is told of every client
// that connects to another node: an older connection of the same identity ends.
// It must not block. Both are never called where there is no Cluster.
func (b *Broker) OnRelease(part func(ctx context.Context, clientID string, why Parting), connected func(Elsewhere)) {
	if b.cluster == nil {
		return
	}
	b.sessions.mu.Lock()
	b.sessions.release = part
	b.sessions.mu.Unlock()
	b.cluster.Heed(tellConnected, func(_ string, body []byte) {
		f := fields.Reader{Rest: body}
		e := Elsewhere{Since: int64(f.Uint()), ClientID: f.Text(), Identity: f.Text()}
		if !f.Bad {
			connected(e)
		}
	})
}

// OnShared has f called when a shared subscription gets a backlog, on whatever node.
// It must not block, and is never called where there is no Cluster.
func (b *Broker) OnShared(f func(filter string)) {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	b.sessions.shared = f
}

// announce tells the other nodes that a client has connected here.
func (b *Broker) announce(o *SessionOptions) {
	if b.cluster == nil {
		return
	}
	body := binary.AppendUvarint(nil, uint64(o.Since))
	body = fields.AppendText(fields.AppendText(body, o.ClientID), o.Principal.String())
	for _, n := range b.cluster.Nodes() {
		if n.Name != b.cluster.Self() {
			b.cluster.Tell(n.Name, tellConnected, body)
		}
	}
}

// answerRelease gives up a session that another node wants.
func (ss *sessions) answerRelease(ctx context.Context, _ string, body []byte) ([]byte, error) {
	id := string(body)
	ss.mu.Lock()
	s, part := ss.byID[id], ss.release
	connected := s != nil && s.held && s.wait == nil
	ss.mu.Unlock()
	if connected && part != nil {
		part(ctx, id, TakenElsewhere)
	}
	if s != nil {
		return nil, ss.await(ctx, s)
	}
	return nil, nil
}

// await returns when nobody here holds s.
func (ss *sessions) await(ctx context.Context, s *Session) error {
	for {
		ss.mu.Lock()
		wait, held := s.wait, s.held && ss.byID[s.id] == s
		ss.mu.Unlock()
		switch {
		case !held:
			return nil
		case wait == nil: // the edge did not let it go
			return errorf(Unavailable, ClientSubject, "client %q is connected", s.id)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return gaveUp(ctx)
		}
	}
}

// elsewhere is the node that holds a session of a client id and may answer, or "".
func (ss *sessions) elsewhere(id string) string {
	ss.mu.Lock()
	s := ss.byID[id]
	var h holder
	if s != nil && !s.held {
		s.mu.Lock()
		h = s.heldBy()
		s.mu.Unlock()
	}
	ss.mu.Unlock()
	if h == (holder{}) || h == ss.self {
		return ""
	}
	for _, n := range ss.b.cluster.Nodes() {
		if n.Name == h.node && n.Start == h.start {
			return n.Name
		}
	}
	return ""
}

// callIn asks the node that holds the session of a client id, "" for none, to give
// it up, and returns its name if it did not answer. It is Conflict where the session
// is another identity's.
func (ss *sessions) callIn(ctx context.Context, node, id string, who *auth.Principal) (silent string, err error) {
	if node == "" {
		return "", nil
	}
	ss.mu.Lock()
	if s := ss.byID[id]; s != nil && who != nil && s.durable && s.another(who) {
		err = errorf(Conflict, ClientSubject, "client id %q has a session of another identity", id)
	}
	ss.mu.Unlock()
	if err != nil {
		return "", err
	}
	ask, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	if _, err := ss.b.cluster.Ask(ask, node, askRelease, []byte(id)); err != nil {
		ss.b.log.Warn().Str("client", id).Str("node", node).Err(err).Msg("session was not released, and is taken")
		return node, nil
	}
	return "", nil
}

// left is the error of a client that is not there any more.
func (o *SessionOptions) left() error {
	if o.Here == nil || o.Here() {
		return nil
	}
	return errorf(Unavailable, ClientSubject, "client %q left before it had its session", o.ClientID)
}

// openMoving is OpenSession where other nodes are: the one that has the session
// gives it up first. Of two nodes that take it at once one is refused, tries once
// more, and then leaves it to the other.
func (b *Broker) openMoving(ctx context.Context, o *SessionOptions) (s *Session, present bool, err error) {
	for range 2 {
		if _, err := b.cluster.Current(); err != nil {
			return nil, false, err
		}
		at := b.sessions.elsewhere(o.ClientID)
		if err := o.left(); err != nil { // it may be connected there
			return nil, false, err
		}
		silent, err := b.sessions.callIn(ctx, at, o.ClientID, o.Principal)
		if err != nil {
			return nil, false, err
		}
		s, present, err = b.openSession(ctx, o)
		if err == nil && present {
			err = s.arrive(ctx, at != "", silent)
		}
		if errors.Is(err, errLost) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if s == nil || s.connect() { // nothing of some is kept
			b.announce(o)
			return s, present, nil
		}
		s.Close(ctx, true)
	}
	return nil, false, errorf(Unavailable, ClientSubject, "client id %q connects to several nodes at once, and another one has its session", o.ClientID)
}

// connect gives the session to the connection that asked for it, which has to end
// when it is lost from now on. It reports false if that has happened already.
func (s *Session) connect() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tenure.connected = !s.tenure.lost
	return s.tenure.connected
}

// arrive reads what there is of a session that was just taken. A node that did
// not answer before has heard by now that the session is not its any more, or is
// expelled: what it had under way is recorded then, or never.
func (s *Session) arrive(ctx context.Context, moved bool, silent string) error {
	s.mu.Lock()
	s.tenure.moved = moved
	s.mu.Unlock()
	if silent != "" {
		ask, cancel := context.WithTimeout(ctx, lastReleaseTime)
		if _, err := s.b.cluster.Ask(ask, silent, askRelease, []byte(s.id)); err != nil {
			s.b.log.Warn().Str("client", s.id).Str("node", silent).Err(err).Msg("session goes on although the node that had it does not say that it has ended there")
		}
		cancel()
	}
	if err := s.fetch(ctx); err != nil {
		s.Close(ctx, true)
		return err
	}
	return nil
}

// Moved reports whether the session was taken from another node.
func (s *Session) Moved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenure != nil && s.tenure.moved
}

// fetch reads the packet ids of a session that this node holds.
func (s *Session) fetch(ctx context.Context) error {
	l, err := s.reread(ctx)
	if err != nil {
		return err
	}
	if t := Target(s.target.Load()); t != 0 {
		if err := s.b.settleHanded(ctx, t, l.released[s.id]); err != nil {
			return storeError(err)
		}
	}
	f := l.byID[s.id]
	if f == nil {
		return errLost
	}
	l.released.give(f)
	f.lock()
	s.lock()
	s.received, s.claimed, s.released, s.numbers = f.received, f.claimed, f.released, f.numbers
	s.mu.Unlock()
	f.mu.Unlock()
	return nil
}

// reread reads all that is recorded of the session.
func (s *Session) reread(ctx context.Context) (*sessionLoader, error) {
	l := &sessionLoader{b: s.b, ctx: ctx, byID: map[string]*Session{}, released: releasedIDs{}}
	e, err := s.b.store.Get(ctx, SpaceSessions, s.id)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return nil, storeError(err)
	default:
		if err := l.entry(e); err != nil {
			return nil, err
		}
	}
	err = s.b.store.List(ctx, SpaceSessions, s.id+"\x00", func(e Entry) bool {
		l.err = l.entry(e)
		return l.err == nil
	})
	return l, storeError(errors.Join(err, l.err))
}

// mend brings sessions that were lost in line with what is recorded. It reports
// whether there are some left, for which the store has no answer now.
func (ss *sessions) mend() (left bool) {
	ss.mu.Lock()
	broken := ss.broken
	ss.broken = nil
	ss.mu.Unlock()
	for _, s := range broken {
		ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
		done := ss.mendOne(ctx, s)
		cancel()
		if !done {
			ss.mu.Lock()
			ss.broken = append(ss.broken, s)
			ss.mu.Unlock()
			left = true
		}
	}
	return left
}

func (ss *sessions) mendOne(ctx context.Context, s *Session) bool {
	s.mu.Lock()
	missed := s.tenure.missed
	s.mu.Unlock()
	l, err := s.reread(ctx)
	if err != nil {
		return false
	}
	f := l.byID[s.id]
	f.decide()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.lock()
	again := s.tenure.missed != missed
	if !again {
		*s.tenure, *s.affairs = tenure{rev: RevNone, willRev: RevNone}, affairs{}
	}
	s.mu.Unlock()
	if again {
		return false
	}
	if f == nil || f.durable != s.durable {
		ss.remove(s)
		if f != nil {
			ss.add(f)
		}
	} else {
		s.lock()
		if f.affairs != nil {
			s.will, s.willStored, s.willDue = f.will, f.willStored, f.willDue
		}
		s.tenure.willRev = f.tenure.willRev
		s.mu.Unlock()
		s.adopt(f, true)
	}
	s.held = false
	if s.wait != nil {
		close(s.wait)
		s.wait = nil
	}
	s.ending = false
	ss.schedule(s)
	return true
}

func (ss *sessions) isAlone() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.alone
}

// setAlone ends the connections that hold sessions when this node counts as gone:
// others may have their clients from now on.
func (ss *sessions) setAlone(is bool) {
	ss.mu.Lock()
	ss.alone = is
	part := ss.release
	var ids []string
	for id, s := range ss.byID {
		if !is || !s.held {
			continue
		}
		s.mu.Lock()
		s.tenure.lost = true
		s.mu.Unlock()
		if s.wait == nil {
			ids = append(ids, id)
		}
	}
	defer ss.mu.Unlock()
	ss.poke()
	if part == nil || ss.closed {
		return
	}
	for _, id := range ids {
		ss.done.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), sessionStep)
			defer cancel()
			part(ctx, id, CutOff)
		})
	}
}
