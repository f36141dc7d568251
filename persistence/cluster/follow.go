package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/jetstream"
)

// Kinds of requests that nodes make of the leader, beside operations.
const (
	kindJoin  = "join"
	kindBeat  = "beat"
	kindLeave = "leave"
	kindKnown = "known"
	kindOver  = "over" // from a leader: it leads no more
)

// leader is who this node follows.
type leader struct {
	name    string
	start   uint64
	session uint64
	number  uint64    // the newest change that came in order
	told    uint64    // the newest that it said there is, at the last beat
	stuck   uint64    // where we were then, if that was behind
	open    bool      // operations may be sent
	beat    time.Time // when the last beat was sent
}

// process is a node from its start to its end.
type process struct {
	name  string
	start uint64
}

func (t *leader) process() process { return process{t.name, t.start} }

// errStops is why a leader is left that says so.
var errStops = errors.New("it stops")

// head begins what is sent to the leader: who we are to it, and the operation
// before this one.
func (t *leader) head(before uint64) []byte { return fields.AppendUints(nil, t.session, before) }

// standing is what a leader tells a node that joins, and at each beat.
type standing struct {
	Start   uint64
	Session uint64
	Number  uint64 // of the newest change
	GoesOn  bool   // we were not given up since the last session of which we knew
	Taken   uint64 // the newest operation of ours that was taken, where it goes on
	Now     int64  // Unix nanoseconds
	State   broker.State
	Failed  string // the text of State.Err
	Stored  int64
	Nodes   []broker.Node
}

// seek finds the leader and follows it, or leads.
func (s *Store) seek(ctx context.Context) error {
	tick := time.NewTicker(seekEvery)
	defer tick.Stop()
	var seen holder
	told := false
	for {
		err := s.tryAll(ctx, &seen)
		if err == nil {
			return nil
		}
		full := errors.Is(err, broker.ErrFull)
		if s.followed.Load() == nil && (errors.Is(err, jetstream.ErrUnfit) || errors.Is(err, jetstream.ErrUnreachable) || errors.Is(err, ErrNamesake) || full) {
			return err
		}
		if full && !told {
			told = true
			s.log.Error().Err(err).Msg("no node can lead the cluster")
		}
		s.log.Debug().Err(err).Str("holder", seen.name).Msg("no leader of the cluster yet")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no node leads the cluster: %w", errors.Join(ctx.Err(), err))
		case <-s.ctx.Done():
			return broker.ErrClosed
		}
	}
}

// holder is who was seen to hold the prefix.
type holder struct {
	name  string
	rev   uint64
	since time.Time // since when this revision is seen, or nobody holds it
	heard time.Time // when it answered last
	ours  time.Time // since when somebody else has our name
}

// ErrNamesake is the error of a node whose name another one has that is there.
var ErrNamesake = errors.New("each node of a cluster needs a name of its own")

// namesake reports whether somebody had our name for as long as an earlier process
// of ours may be remembered.
func (h *holder) namesake(s *Store, now time.Time) error {
	if h.ours.IsZero() {
		h.ours = now
	}
	if now.Sub(h.ours) < s.hold {
		return errNobody
	}
	return fmt.Errorf("a node named %q is in the cluster already: %w", s.self.Name, ErrNamesake)
}

// tryAll is one try to follow the node that holds the prefix, or to hold it. A
// holder is given up that neither renewed its hold for as long as that is, nor
// answered.
func (s *Store) tryAll(ctx context.Context, seen *holder) error {
	asked := time.Now()
	who, rev, err := s.holder(ctx)
	if err != nil && s.followed.Load() == nil { // it says what is wrong with the servers
		return s.promote(ctx, 0)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	renewed := who == seen.name && rev != seen.rev
	if who != "" && (renewed || who != seen.name && !s.was(who)) {
		s.opens()
	}
	if who != seen.name || renewed {
		*seen = holder{name: who, rev: rev, since: now, heard: seen.heard, ours: seen.ours}
	}
	s.stays(seen, asked)
	silent := min(now.Sub(seen.since), now.Sub(s.born)-time.Duration(s.linked.Load())) // what we could not see counts for nothing
	switch {
	case who == s.self.Name && renewed, who == s.self.Name && !seen.ours.IsZero() && silent < s.hold:
		return seen.namesake(s, now)
	case who == "" && silent >= s.rank():
		return s.promote(ctx, 0)
	case who == "":
		return errNobody
	case who != s.self.Name:
		err := s.join(ctx, who)
		if err == nil || !errors.Is(err, errAway) && !errors.Is(err, broker.ErrUnknown) {
			if err != nil {
				seen.heard = now
			}
			if broker.KindOf(err) == broker.Conflict {
				return seen.namesake(s, now)
			}
			return err
		}
	}
	if silent >= s.hold+s.rank() && now.Sub(seen.heard) >= s.hold {
		s.log.Warn().Str("leader", who).Msg("the leader of the cluster is given up")
		return s.promote(ctx, rev)
	}
	return errNobody
}

// was reports whether a node is the leader that was lost: that it holds the prefix is no
// sign of it before it does so once more.
func (s *Store) was(who string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return who == s.gone
}

// stays notes that nobody has given this node up: the leader that is lost renewed its
// hold so soon after our last beat, if at all, that it can write nothing any more by
// the time it would give us up; and nobody leads in its place.
func (s *Store) stays(seen *holder, asked time.Time) {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	if s.followed.Load() == nil || seen.name != "" && seen.name != gone {
		return
	}
	if seen.since.Sub(s.born)-time.Duration(s.beaten.Load()) < time.Duration(float64(s.hold)*(1-fenceAt)) {
		s.certain(asked)
	}
}

// holder asks who holds the prefix.
func (s *Store) holder(ctx context.Context) (string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return jetstream.Holder(ctx, s.nc, &s.o.Store)
}

// rank is how long this node leaves it to others to lead, so that they do not all
// try at once: they stand in the order of their names, without the leader that is gone.
func (s *Store) rank() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := 0
	for _, n := range s.nodes {
		if n.Name < s.self.Name && n.Name != s.gone {
			before++
		}
	}
	return time.Duration(before) * 2 * seekEvery
}

// join follows the node that leads.
func (s *Store) join(ctx context.Context, who string) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	sent := time.Now()
	s.mu.Lock()
	s.joining = true // changes may come before the answer
	s.mu.Unlock()
	answer, err := s.w.wait(ctx, who, askLane, kindJoin, appendJSON(nil, s.self))
	var st standing
	if err == nil {
		err = json.Unmarshal(answer, &st)
	}
	s.mu.Lock()
	early := s.early
	s.joining, s.early = false, nil
	var to *leader
	if err == nil && s.past == (process{who, st.Start}) { // it said so before its answer came
		err = fmt.Errorf("%w: %w", errAway, errStops)
	}
	if err == nil {
		to = &leader{name: who, start: st.Start, session: st.Session, number: st.Number, beat: sent}
		s.to = to
		s.nodes = st.Nodes
		s.queue, s.ready = nil, false
		s.caught.Store(false)
		for _, p := range early {
			_ = s.queueUp(to, p) // what is missing, a later one tells
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.stand(to, sent, &st)
	s.mu.Lock()
	if to != s.to { // it is lost already
		s.mu.Unlock()
		return errAway
	}
	to.open = true
	over := s.resend(&st)
	s.mu.Unlock()
	for _, f := range over {
		f()
	}
	s.log.Info().Str("leader", who).Msg("follows the leader of the cluster")
	if s.followed.Load() == nil {
		s.settled(to, st.Number)
		return nil
	}
	s.spawn(func() { // what it misses, it reads from the leader
		if err := s.catchUp(s.ctx); err != nil {
			s.lostFrom(to, err)
			return
		}
		s.settled(to, st.Number)
		s.watchAlone()
	})
	return nil
}

// settled says that this node knows all changes of its leader up to n, and goes on
// with those after.
func (s *Store) settled(to *leader, n uint64) {
	s.mu.Lock()
	same := s.to == to
	if same {
		s.ready = true
		s.caught.Store(true)
	}
	s.mu.Unlock()
	if same {
		s.knows(to, n)
		s.drain()
	}
}

// knows tells the leader so; what is lost a later one says too.
func (s *Store) knows(to *leader, n uint64) {
	_ = s.w.send(to.name, tellLane, 0, kindKnown, fields.AppendUints(to.head(0), n), "")
}

// stand takes over what the leader tells of itself.
func (s *Store) stand(to *leader, sent time.Time, st *standing) {
	now := s.clock.Now()
	s.ahead.Store(st.Now - now.Add(-time.Since(sent)/2).UnixNano())
	s.certain(sent)
	s.beaten.Store(int64(sent.Sub(s.born)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st.State
	s.stored.Store(st.Stored)
	if st.Failed != "" {
		s.state.Err = &remote{nil, st.Failed}
	}
	if s.to == to && to != nil && st.Number >= to.number { // else changes have told of newer ones
		s.nodes = st.Nodes
	}
}

// look beats, and looks whether there is still a leader.
func (s *Store) look() {
	if l := s.lead.Load(); l != nil {
		l.look()
		return
	}
	s.mu.Lock()
	to, quiet := s.to, s.unsure()
	due := to != nil && time.Since(to.beat) >= s.hold/beats
	if due {
		to.beat = time.Now()
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
	case to == nil:
		if err := s.seek(s.ctx); err != nil && s.ctx.Err() == nil {
			s.fail(err)
		}
	case quiet > time.Duration(float64(s.hold)*quietAt):
		s.lost(fmt.Errorf("leader %q did not answer for %s", to.name, quiet.Round(time.Millisecond)))
	case due:
		s.beat(to)
	}
}

// beat tells the leader that this node is there.
func (s *Store) beat(to *leader) {
	sent := time.Now()
	id := s.w.ask(to.name, askLane, kindBeat, to.head(0), func(answer []byte, _ bool, err error) {
		var st standing
		if err == nil {
			err = json.Unmarshal(answer, &st)
		}
		if err == nil {
			s.stand(to, sent, &st)
			err = s.behind(to, st.Number)
		}
		if err != nil {
			s.lostFrom(to, err)
		}
	})
	time.AfterFunc(s.hold, func() { s.w.forget(id) })
}

// behind reports that changes were lost on their way: between two beats none of
// those came that there were at the first.
func (s *Store) behind(to *leader, newest uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	told, stuck := to.told, to.stuck
	to.told, to.stuck = newest, to.number
	if to.number < told && to.number == stuck {
		return fmt.Errorf("changes %d to %d of the cluster did not come", to.number+1, told)
	}
	return nil
}

// lost says that there is no leader any more, or that we are not known to it.
func (s *Store) lost(why error) {
	s.mu.Lock()
	to := s.to
	s.mu.Unlock()
	if to != nil {
		s.lostFrom(to, why)
	}
}

func (s *Store) lostFrom(to *leader, why error) {
	s.mu.Lock()
	if s.to != to {
		s.mu.Unlock()
		return
	}
	s.to, s.ready = nil, false
	s.gone = to.name
	over := s.endOver()
	s.mu.Unlock()
	for _, f := range over {
		f()
	}
	s.log.Warn().Err(why).Str("leader", to.name).Msg("the leader of the cluster is not there")
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// heard gets a change from the leader.
func (s *Store) heard(p parcel) {
	s.mu.Lock()
	if s.joining {
		s.early = append(s.early, p)
	}
	to := s.to
	err := s.queueUp(to, p)
	s.mu.Unlock()
	if err != nil {
		s.lostFrom(to, err)
		return
	}
	s.drain()
}

// queueUp has a change told to the broker in its turn, if it is one of the leader's.
// The lock is held.
func (s *Store) queueUp(to *leader, p parcel) error {
	r := fields.Reader{Rest: p.body}
	if session := r.Uint(); to == nil || to.session != session || to.start != p.start || p.id <= to.number {
		return nil
	}
	e, err := readEvent(p.id, r.Rest)
	if err != nil || p.id != to.number+1 {
		return fmt.Errorf("change %d of the cluster did not come: %w", to.number+1, err)
	}
	to.number = p.id
	s.queue = append(s.queue, e)
	s.count(&e)
	return nil
}

// count keeps who is there, as of the newest change: the node that leads next waits for
// all of them. The lock is held.
func (s *Store) count(e *event) {
	if e.kind != joined && e.kind != left {
		return
	}
	now := slices.DeleteFunc(slices.Clone(s.nodes), func(n broker.Node) bool { return n.Name == e.node.Name })
	if e.kind == joined {
		now = append(now, e.node)
		slices.SortFunc(now, func(a, b broker.Node) int { return compareNames(a.Name, b.Name) })
	}
	s.nodes = now
}

// drain tells the broker of changes, in their order, and the leader that they are known.
func (s *Store) drain() {
	s.mu.Lock()
	for s.ready && len(s.queue) > 0 {
		e, to := s.queue[0], s.to
		s.queue = s.queue[1:]
		s.ready = false // one at a time
		s.mu.Unlock()
		s.hear(&e)
		if to != nil {
			s.knows(to, e.number)
		}
		s.mu.Lock()
		if s.to != to {
			break // another one began
		}
		s.ready = true
	}
	s.mu.Unlock()
}

// watchAlone tells the broker when this node counts as gone, and when it is back and
// was told what it missed.
func (s *Store) watchAlone() {
	h := s.followed.Load()
	if h == nil {
		return
	}
	s.calling.Lock()
	defer s.calling.Unlock()
	s.mu.Lock()
	was := s.alone
	is := s.unsure() > s.hold && (s.lead.Load() != nil || s.to == nil || !s.ready) || was && !s.caught.Load()
	s.alone = is
	s.mu.Unlock()
	if is != was {
		h.Alone(is)
	}
}
