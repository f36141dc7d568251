package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/jetstream"
)

// ownKind begins the kinds of what the broker sends, so that they are none of ours.
const ownKind = "broker/"

// handlers are those of a broker, by kind.
type handlers[F any] struct {
	mu sync.RWMutex
	by map[string]F
}

func (h *handlers[F]) set(kind string, f F) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.by == nil {
		h.by = map[string]F{}
	}
	h.by[ownKind+kind] = f
}

func (h *handlers[F]) get(kind string) (f F, ok bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	f, ok = h.by[kind]
	return f, ok
}

// Self implements broker.Cluster.
func (s *Store) Self() string { return s.self.Name }

// Leads implements broker.Cluster.
func (s *Store) Leads() bool { return s.lead.Load() != nil }

// certain notes that this node was one of the cluster at a time: nobody had given it
// up.
func (s *Store) certain(at time.Time) {
	now := int64(at.Sub(s.born))
	for {
		was := s.sure.Load()
		if now <= was || s.sure.CompareAndSwap(was, now) {
			return
		}
	}
}

// unsure is for how long it is not certain any more.
func (s *Store) unsure() time.Duration { return time.Since(s.born) - time.Duration(s.sure.Load()) }

// current reports whether this node knows all that any node has answered. Others
// wait until it knows, for a whole Hold.
func (s *Store) current() bool {
	return s.caught.Load() && s.unsure() < time.Duration(float64(s.hold)*fenceAt)
}

// Current implements broker.Cluster.
func (s *Store) Current() (waited bool, err error) {
	if s.current() {
		return false, nil
	}
	tick := time.NewTicker(seekEvery)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < s.patience(); {
		s.mu.Lock()
		alone, closed := s.alone, s.closed
		s.mu.Unlock()
		if alone || closed {
			break
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
		}
		if s.current() {
			return true, nil
		}
	}
	return true, errOut
}

// patience is how long somebody waits for a leader. Without a sign of one it is short:
// that nothing was done is worth more to a client than to wait for nobody. A node that
// has taken the prefix, and says so again and again, is reading the store and leads when
// it has, which takes as long as there is much to read and the servers are busy: a
// device that is refused then comes again at once, as do all others, and finds the same
// at every node. So it is let wait, for less than the 30 s after which clients hang up.
func (s *Store) patience() time.Duration {
	at := time.Duration(s.sign.Load())
	if s.opening.Load() || at != 0 && time.Since(s.born)-at < s.hold {
		return forOpening
	}
	return forLeader
}

// opens notes that a node is about to lead.
func (s *Store) opens() { s.sign.Store(max(int64(time.Since(s.born)), 1)) }

// errOut is the answer of a node that may not know what others know.
var errOut = &broker.Error{Kind: broker.Unavailable, Message: "this node does not reach the others just now, and nothing was done; go to another node, or try again"}

// Nodes implements broker.Cluster.
func (s *Store) Nodes() []broker.Node {
	if l := s.lead.Load(); l != nil {
		return l.nodes()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.nodes)
}

// Ask implements broker.Cluster.
func (s *Store) Ask(ctx context.Context, node, kind string, body []byte) ([]byte, error) {
	ctx, end := s.asks.begin(ctx, node)
	defer end()
	err := errAway
	var answer []byte
	if s.has(node) { // if it leaves from now on, ctx ends
		answer, err = s.w.wait(ctx, node, askLane, ownKind+kind, body)
	}
	switch {
	case errors.Is(err, errAway):
		return nil, &broker.Error{Kind: broker.Unavailable, Message: fmt.Sprintf("node %q is not there; nothing was done", node), Err: err}
	case errors.Is(err, broker.ErrUnknown):
		return nil, &broker.Error{Kind: broker.Unknown, Message: fmt.Sprintf("node %q did not answer in time: it may have happened", node), Err: err}
	}
	return answer, err
}

// Answer implements broker.Cluster.
func (s *Store) Answer(kind string, f func(ctx context.Context, from string, body []byte) ([]byte, error)) {
	s.answers.set(kind, f)
}

// Tell implements broker.Cluster.
func (s *Store) Tell(node, kind string, body []byte) {
	_ = s.w.send(node, tellLane, 0, ownKind+kind, body, "") // at most once
}

// Heed implements broker.Cluster.
func (s *Store) Heed(kind string, f func(from string, body []byte)) { s.heeds.set(kind, f) }

// asked gets requests.
func (s *Store) asked(p parcel) { s.serve(&p, s.reply) }

// serve answers a request on a goroutine of its own. Where none begins any more, this
// node has nothing under way, and says that it is gone: nobody waits for its answer.
func (s *Store) serve(p *parcel, reply func(*parcel) ([]byte, error)) {
	if !s.spawn(func() {
		answer, err := reply(p)
		s.w.answer(p, answer, false, err)
	}) {
		s.w.answer(p, nil, false, errAway)
	}
}

func (s *Store) reply(p *parcel) ([]byte, error) {
	l := s.lead.Load()
	switch p.kind {
	case kindJoin, kindBeat, kindLeave:
		if l == nil {
			return nil, errAway
		}
		return l.reply(p)
	}
	f, ok := s.answers.get(p.kind)
	if !ok {
		return nil, errAway // it has just started, or is of another release
	}
	return f(s.ctx, p.from, p.body)
}

// told gets what others tell.
func (s *Store) told(p parcel) {
	switch p.kind {
	case kindKnown:
		if l := s.lead.Load(); l != nil {
			r := fields.Reader{Rest: p.body}
			session := r.Uint()
			r.Uint()
			l.acked(p.from, session, r.Uint())
		}
	case kindOver:
		s.mu.Lock()
		to := s.to
		s.past = process{p.from, p.start}
		s.mu.Unlock()
		if to != nil && to.process() == (process{p.from, p.start}) {
			s.lostFrom(to, errStops)
		}
	default:
		if f, ok := s.heeds.get(p.kind); ok {
			f(p.from, p.body)
		}
	}
}

// nodes are the members, by name.
func (l *lead) nodes() []broker.Node {
	self := l.s.self
	self.Leads = true
	l.mu.Lock()
	all := []broker.Node{self}
	for _, f := range l.followers {
		all = append(all, f.node)
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b broker.Node) int { return compareNames(a.Name, b.Name) })
	return all
}

// reply answers what nodes ask of their leader.
func (l *lead) reply(p *parcel) ([]byte, error) {
	if p.kind == kindJoin {
		var n broker.Node
		if err := json.Unmarshal(p.body, &n); err != nil {
			return nil, err
		}
		return l.join(n)
	}
	r := fields.Reader{Rest: p.body}
	session := r.Uint()
	l.mu.Lock()
	f := l.followers[p.from]
	if f == nil || f.session != session || f.node.Start != p.start {
		l.mu.Unlock()
		return nil, errAway
	}
	f.heard, f.met = time.Now(), true
	l.mu.Unlock()
	if p.kind == kindLeave {
		l.expel(f, "it stops")
		return nil, nil
	}
	return l.standing(f), nil
}

// standing is what a follower is told of the leader.
func (l *lead) standing(f *follower) []byte {
	st := standing{Start: l.s.self.Start, Session: f.session, GoesOn: f.goesOn, Now: l.s.Now().UnixNano(), State: l.inner.State(), Stored: l.inner.Stored()}
	if st.State.Err != nil {
		st.Failed, st.State.Err = st.State.Err.Error(), nil
	}
	l.mu.Lock()
	st.Number, st.Taken = l.number, f.taken
	l.mu.Unlock()
	st.Nodes = l.nodes() // as of that change, or newer
	return appendJSON(nil, st)
}

// join takes a node in, or in again. All changes from here on are told to it. It has
// its answer once all others know that it is there: whoever leads next waits for it.
func (l *lead) join(n broker.Node) ([]byte, error) {
	f, err := l.enter(n)
	if err != nil {
		return nil, err
	}
	known := make(chan struct{})
	l.await(f.joined, func() { close(known) })
	select {
	case <-known:
		return l.standing(f), nil
	case <-l.s.ctx.Done():
		return nil, errAway
	}
}

// enter makes a node a follower, with a new session.
func (l *lead) enter(n broker.Node) (*follower, error) {
	l.changing.Lock()
	l.mu.Lock()
	old := l.followers[n.Name]
	switch {
	case l.closing:
		l.mu.Unlock()
		l.changing.Unlock()
		return nil, errAway
	case n.Name == l.s.self.Name, old != nil && old.node.Start > n.Start, old != nil && old.node.Start != n.Start && time.Since(old.heard) < l.s.hold*3/beats:
		l.mu.Unlock()
		l.changing.Unlock()
		return nil, &broker.Error{Kind: broker.Conflict, Message: fmt.Sprintf("a node named %q is in the cluster already: each needs a name of its own", n.Name)}
	case old != nil && old.node.Start != n.Start: // it was started again
		l.mu.Unlock()
		l.changing.Unlock()
		l.expel(old, "it was started again")
		return l.enter(n)
	}
	l.sessions++
	f := &follower{node: n, session: l.sessions, heard: time.Now(), acked: l.number, waits: map[uint64]*served{}}
	var waits map[uint64]*served
	if old != nil { // it goes on
		f.acked, f.taken, f.joined, waits, old.gone = old.acked, old.taken, old.joined, old.waits, true
		f.goesOn = old.goesOn || old.met
		old.waits = nil
	}
	l.followers[n.Name] = f
	l.mu.Unlock()
	if old == nil {
		l.s.log.Info().Str("node", n.Name).Msg("joined the cluster")
		l.tell(&event{kind: joined, node: n})
		l.mu.Lock()
		f.joined, f.acked = l.number, l.number // itself it knows
		l.mu.Unlock()
	}
	l.changing.Unlock()
	l.withdraw(waits)
	return f, nil
}

// acked notes that a node knows all changes up to one.
func (l *lead) acked(node string, session, number uint64) {
	l.mu.Lock()
	if f := l.followers[node]; f != nil && f.session == session {
		f.acked, f.met = max(f.acked, number), true
	}
	l.mu.Unlock()
	l.pass()
}

// expel gives a node up: nobody waits for it any more.
func (l *lead) expel(f *follower, why string) {
	l.mu.Lock()
	if f.gone || l.followers[f.node.Name] != f {
		l.mu.Unlock()
		return
	}
	f.gone = true
	delete(l.followers, f.node.Name)
	waits := f.waits
	f.waits = nil
	l.mu.Unlock()
	l.s.log.Info().Str("node", f.node.Name).Str("why", why).Msg("left the cluster")
	l.withdraw(waits)
	l.changing.Lock()
	l.tell(&event{kind: left, node: f.node})
	l.changing.Unlock()
	l.pass()
}

// look gives up nodes that were not heard of for as long as a hold lasts.
func (l *lead) look() {
	if r, ok := l.inner.(interface{ Renewed() time.Time }); ok {
		l.s.certain(r.Renewed())
	}
	var over []*follower
	l.mu.Lock()
	for _, f := range l.followers {
		if time.Since(f.heard) > l.s.hold {
			over = append(over, f)
		}
	}
	l.mu.Unlock()
	for _, f := range over {
		l.expel(f, "it was not heard of")
	}
}

// promote opens the store, taking it over from a holder of revision over that is
// given up, and leads.
func (s *Store) promote(ctx context.Context, over uint64) error {
	o := s.o.Store
	o.Over = over
	begun := time.Now()
	s.opening.Store(true)
	inner, err := jetstream.Open(ctx, o)
	s.opening.Store(false)
	if err != nil {
		return err
	}
	l := newLead(s, inner)
	s.mu.Lock()
	for _, n := range s.nodes { // they are there, until they do not join in time
		if n.Name != s.self.Name && n.Name != s.gone && !n.Leads {
			l.followers[n.Name] = &follower{node: n, heard: time.Now(), waits: map[uint64]*served{}}
		}
	}
	s.to = nil
	s.caught.Store(false)
	s.certain(begun)
	s.lead.Store(l)
	e := s.events.Load()
	s.mu.Unlock()
	if err := s.catchUp(ctx); err != nil {
		s.fail(err)
		return nil
	}
	s.caught.Store(true)
	if e != nil {
		l.bind(e)
	}
	s.takeOver(l)
	if h := s.followed.Load(); h != nil {
		s.calling.Lock()
		h.known = nil // it was told all that it missed, and misses nothing from now on
		h.Led()
		s.calling.Unlock()
	}
	s.log.Info().Dur("after", time.Since(begun)).Msg("leads the cluster")
	s.watchAlone()
	return nil
}

// close gives the lead up.
func (l *lead) close(ctx context.Context) error {
	l.mu.Lock()
	l.closing = true
	var to []string
	for _, f := range l.followers {
		to = append(to, f.node.Name)
	}
	l.mu.Unlock()
	err := l.inner.Close(ctx)
	for _, name := range to {
		_ = l.s.w.send(name, tellLane, 0, kindOver, nil, "") // it finds out anyway
	}
	return err
}
