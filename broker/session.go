package broker

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"millrace/broker/auth"
)

// NeverExpires as SessionOptions.Expiry keeps a session until it is ended.
const NeverExpires = math.MaxUint32

// SessionOptions are what a client says when it connects.
type SessionOptions struct {
	ClientID  string // 1 to 256 bytes without control characters
	Principal *auth.Principal
	Clean     bool   // ends a session that is there
	Expiry    uint32 // seconds that the session outlives its connection; NeverExpires
	Will      *Will  // nil for none
	Since     int64  // when the client connected, Unix milliseconds, of which the newest counts on several nodes
	// Here reports whether the client is still connected; nil says that it is. It must
	// not wait. One that left, and may be connected to another node by now, takes
	// nothing from there.
	Here func() bool
}

// Session is what the broker keeps for a client: subscriptions, the messages
// of QoS 1 and 2 that they matched, packet ids of QoS 2 on both sides, and a
// will. It belongs to a client id and the identity that made it.
//
// One connection holds it at a time, from OpenSession to Close, and calls its
// methods. One that does not outlive its connection has nothing but a will.
type Session struct {
	b     *Broker
	id    string
	owner *auth.Principal
	// target is where its messages wait; 0 until a subscription wants some.
	target atomic.Uint64
	// multi says that it had two subscriptions at a time, ever, so that a
	// message may match more than one of them.
	multi   atomic.Bool
	durable bool

	// Under sessions.mu.
	held   bool          // by a connection
	ending bool          // for good
	wait   chan struct{} // not nil while it is ending, or the broker holds it; closed after that
	due    int64         // when its will or its end is, Unix milliseconds; 0 = not

	mu     sync.Mutex // protects what follows
	small  bool       // its subscriptions are in its own record
	expiry uint32
	since  int64         // when its connection ended, Unix milliseconds; 0 = it has one
	subs   []*sessionSub // by filter
	endDue int64         // when the session ends, Unix milliseconds; 0 = not
	tenure *tenure       // nil where no other node is
	*affairs
}

// affairs are what most sessions do not have while their clients are away: who
// holds lock finds them, and rest gives them back. There are many sessions.
type affairs struct {
	changes    []sessionPut // of subscriptions, to be recorded by Commit
	received   map[uint16]struct{}
	claimed    map[uint16]ID     // of messages that may have been stored, and of received ones until that is recorded
	released   []uint16          // oldest first
	numbers    map[uint64]uint16 // packet ids by sequence, see Renumber
	will       *Will
	willStored bool
	willDue    int64 // when a delayed one is to be published, Unix milliseconds
}

// lock locks mu for one who looks at affairs.
func (s *Session) lock() {
	s.mu.Lock()
	if s.affairs == nil {
		s.affairs = new(affairs)
	}
}

// rest gives back affairs that are settled.
func (s *Session) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.affairs
	if a != nil && len(a.changes)+len(a.received)+len(a.claimed)+len(a.released)+len(a.numbers) == 0 && a.will == nil && !a.willStored && a.willDue == 0 {
		s.affairs = nil
	}
}

// sessionPut is a key to be written, or deleted if value is nil.
type sessionPut struct {
	key   string
	value []byte
}

// sessions are all of them.
type sessions struct {
	b *Broker

	mu    sync.Mutex // protects what follows, and the fields of a Session that say so
	byID  map[string]*Session
	wakes wakes
	owed  []owedRetained
	clustered

	turns [64]sync.Mutex
	seed  maphash.Seed

	wake    chan struct{} // holds one: look at wakes and owed
	stop    func()
	stopped chan struct{}
	done    sync.WaitGroup
	// ended is told of each session that is forgotten; under mu.
	ended      func(*Session)
	suspects   suspects
	overflowed second // when an alarm about full sessions was raised last
	// expired counts sessions whose time was over.
	expired atomic.Int64
	// wills counts those published, and those that could not be.
	wills, lostWills atomic.Int64
}

func (ss *sessions) len() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.byID)
}

// ClientID is the client's name.
func (s *Session) ClientID() string { return s.id }

// Durable reports whether the session is one that outlives its connection, or
// was when the connection came back to it.
func (s *Session) Durable() bool { return s.durable }

// OpenSession gives a connection its session, and says whether it was there
// before. Everything that has to be on disk is when it returns. The session is
// nil for a client that has neither one that lasts nor a will.
//
// Errors: Conflict if the id belongs to another identity; Unavailable while another
// connection holds its session; Full for a new session while the store is.
func (b *Broker) OpenSession(ctx context.Context, o SessionOptions) (s *Session, present bool, err error) {
	switch {
	case b.closed.Load():
		return nil, false, errClosed
	case b.cluster != nil:
		return b.openMoving(ctx, &o)
	default:
		return b.openSession(ctx, &o)
	}
}

// openSession is OpenSession where no other node has the session.
func (b *Broker) openSession(ctx context.Context, o *SessionOptions) (s *Session, present bool, err error) {
	for {
		s, err := b.sessions.hold(ctx, o)
		if err != nil {
			return nil, false, err
		}
		switch {
		case s == nil:
			s, err := b.newSession(ctx, o)
			return s, false, err
		case !s.ending: // read by the one who holds it
			return s, true, s.resume(ctx, o)
		default: // the will of a client that came back in time is not sent
			err = s.end(ctx, s.durable || !sameIdentity(s.owner, o.Principal))
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// hold finds the session of o's client and takes it, or nil if there is none.
// One that is ending is waited for.
func (ss *sessions) hold(ctx context.Context, o *SessionOptions) (*Session, error) {
	for {
		ss.mu.Lock()
		s := ss.byID[o.ClientID]
		if s == nil {
			ss.mu.Unlock()
			return nil, nil
		}
		wait := s.wait
		if wait == nil {
			err := s.takeable(o)
			if err == nil {
				s.held, s.due = true, 0
				if !s.resumable(o) {
					s.wait, s.ending = make(chan struct{}), true
				}
			}
			ss.mu.Unlock()
			return s, err
		}
		ss.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, gaveUp(ctx)
		}
	}
}

// takeable reports why o's connection may not have s. An identity that does
// not exist any more holds nothing back. The caller holds sessions.mu.
func (s *Session) takeable(o *SessionOptions) error {
	switch {
	case s.held:
		return errorf(Unavailable, ClientSubject, "client id %q is connected, and that connection has not ended yet", s.id)
	case s.durable && s.another(o.Principal):
		return errorf(Conflict, ClientSubject, "client id %q has a session of another identity", s.id)
	case s.tenure != nil: // from now on it is noticed when another node takes s
		return o.left()
	}
	return nil
}

// another reports whether the session is kept for another identity than p.
func (s *Session) another(p *auth.Principal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !sameIdentity(s.owner, p) && s.b.auth.Valid(s.owner) && !s.expired()
}

// resumable reports whether o's connection, which may have s, goes on with it.
func (s *Session) resumable(o *SessionOptions) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable && !o.Clean && sameIdentity(s.owner, o.Principal) && !s.expired()
}

// expired reports whether the session's time is over. The caller holds mu.
func (s *Session) expired() bool { return s.endDue != 0 && s.endDue <= s.b.sessions.now() }

// sameIdentity reports whether a and b are one: a session belongs to an identity.
func sameIdentity(a, b *auth.Principal) bool { return a.Kind == b.Kind && a.Name == b.Name }

// newSession makes what o's client needs.
func (b *Broker) newSession(ctx context.Context, o *SessionOptions) (*Session, error) {
	durable := o.Expiry > 0
	switch {
	case !durable && o.Will == nil:
		return nil, nil
	case durable && b.store.State().Full:
		return nil, storeError(ErrFull)
	}
	s := &Session{b: b, id: o.ownID(), owner: o.Principal, durable: durable, small: true, expiry: o.Expiry, affairs: &affairs{will: o.Will}, held: true}
	ss := &b.sessions
	if s.tenure = ss.newTenure(); s.tenure != nil {
		s.tenure.holder = ss.self
	}
	ss.mu.Lock()
	if ss.byID[s.id] != nil {
		ss.mu.Unlock()
		return nil, errorf(Unavailable, ClientSubject, "client id %q connects twice at once", s.id)
	}
	ss.byID[s.id] = s
	ss.mu.Unlock()
	err := s.record(ctx, Durable)
	if KindOf(err) == Full && !durable {
		return s, nil // a client that only has a will is not turned away
	}
	if errors.Is(err, errLost) { // made on another node at once
		ss.letGo(s)
		return nil, err
	}
	if err != nil {
		ss.forget(s)
		return nil, err
	}
	return s, nil
}

// ownID is the client id in memory of its own: the principal's, if it is that.
func (o *SessionOptions) ownID() string {
	if o.Principal.ClientID == o.ClientID {
		return o.Principal.ClientID
	}
	return strings.Clone(o.ClientID)
}

// resume gives s, which is held, to a connection of its owner.
func (s *Session) resume(ctx context.Context, o *SessionOptions) error {
	s.lock()
	s.owner = o.Principal
	// A record that says when the connection ended counts towards an expiry.
	same := s.expiry == NeverExpires && o.Expiry == NeverExpires && o.Will == nil && !s.willStored && s.tenure == nil
	s.expiry, s.since = o.Expiry, 0
	s.will, s.willDue, s.endDue = o.Will, 0, 0
	if s.tenure != nil {
		s.tenure.holder = s.b.sessions.self
	}
	s.mu.Unlock()
	if same {
		return nil
	}
	err := s.record(ctx, Durable)
	if KindOf(err) == Full && s.tenure == nil { // what is there may be taken although the disk is full
		return nil
	}
	if err != nil {
		s.b.sessions.letGo(s)
	}
	return err
}

// record writes the session's own key and its will.
func (s *Session) record(ctx context.Context, level Level) error {
	return s.write(ctx, level, func(b *Batch) {
		if s.durable {
			b.Put(SpaceSessions, s.id, s.encode(), s.revision())
			s.confirm(b)
		}
		had := s.willStored
		switch s.willStored = s.will != nil; {
		case s.willStored:
			b.Put(SpaceSessions, willKey(s.id), s.encodeWill(), s.willRevision())
		case had:
			b.Put(SpaceSessions, willKey(s.id), nil, s.willRevision())
		}
	})
}

// turn is held by one who writes down what a session is now, until that is
// handed to the store: nobody's older view of it comes behind.
func (ss *sessions) turn(s *Session) *sync.Mutex {
	return &ss.turns[maphash.String(ss.seed, s.id)%uint64(len(ss.turns))]
}

// SetExpiry changes how long the session outlives its connection.
func (s *Session) SetExpiry(seconds uint32) {
	s.mu.Lock()
	s.expiry = seconds
	s.mu.Unlock()
}

// Expiry is how long the session outlives its connection, in seconds.
func (s *Session) Expiry() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry
}

// CancelWill takes the will back.
func (s *Session) CancelWill() {
	s.lock()
	s.will = nil
	s.mu.Unlock()
}

// report logs what went wrong where nobody can be told.
func (s *Session) report(what string, err error) {
	if err != nil {
		s.b.log.Warn().Str("client", s.id).Err(err).Msg(what)
	}
}
