package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream"
)

// Here is how a node finds the leader, or becomes it.

// seek finds the leader and follows it, or leads.
func (s *Store) seek(ctx context.Context) error {
	tick := time.NewTicker(seekEvery)
	defer tick.Stop()
	var seen holder
	told, warned, began := false, false, time.Now()
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
		if !told && !warned && !errors.Is(err, errNobody) && time.Since(began) > s.hold {
			warned = true
			s.log.Warn().Err(err).Str("holder", seen.name).Msg("no leader of the cluster yet; it is tried again")
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
