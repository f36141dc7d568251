package local

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"millrace/persistence/journal"
)

// upkeep is the work behind the scenes that keeps the store bounded. It is done
// when a segment is full, or a full one is empty, and never because time passes.
type upkeep struct {
	kick    chan struct{} // holds one
	stop    chan struct{}
	running sync.WaitGroup
	unfit   bool // the store was not opened: nothing is written

	mu     sync.Mutex       // held while it works
	rate   int64            // bytes a second that compaction moves
	copied uint32           // streams need no segment up to this one
	seen   map[uint32]int64 // what lived in sparse segments at the last look
	moved  atomic.Int64     // messages that compaction moved
}

// compactRate is the default of Options.CompactRate.
const compactRate = 32 << 20

func newUpkeep(o Options) upkeep {
	rate := o.CompactRate
	if rate <= 0 {
		rate = compactRate
	}
	return upkeep{kick: make(chan struct{}, 1), stop: make(chan struct{}), rate: rate}
}

// wake has the goroutine look; it never blocks.
func (u *upkeep) wake() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// end stops the goroutine and waits for it.
func (u *upkeep) end() {
	close(u.stop)
	u.running.Wait()
}

// stopped reports whether the store is being closed.
func (u *upkeep) stopped() bool {
	select {
	case <-u.stop:
		return true
	default:
		return false
	}
}

// pause waits for as long as n bytes may take, and reports whether to go on.
func (u *upkeep) pause(n int64) bool {
	t := time.NewTimer(time.Duration(float64(n) / float64(u.rate) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-u.stop:
		return false
	}
}

// keepUp is the goroutine.
func (s *Store) keepUp() {
	for {
		select {
		case <-s.upkeep.stop:
			return
		case <-s.upkeep.kick:
			s.tidy()
		}
	}
}

// tidy does for the full segments what is to be done, in the order in which one
// step makes the next one possible. An error leaves things as they are, and the
// next full segment is the occasion to try again.
func (s *Store) tidy() {
	s.upkeep.mu.Lock()
	defer s.upkeep.mu.Unlock()
	s.orphans.forget(&s.live)
	if err := s.barrier(); err != nil {
		return
	}
	sealed := s.sealed()
	if err := s.barrier(); err != nil { // what is in them is shown from here on
		return
	}
	s.copyOutOf(sealed)
	s.writeHints(sealed)
	if err := s.compact(sealed); err != nil {
		s.complain(err, "compaction stopped")
	}
	if !s.upkeep.stopped() && (s.checkpointDue() || s.spaceDue()) {
		if err := s.checkpoint(); err != nil {
			s.complain(err, "no checkpoint was written")
		}
	}
	if err := s.reclaim(); err != nil {
		s.complain(err, "segments could not be freed")
	}
}

// complain logs what went wrong, unless the store ends.
func (s *Store) complain(err error, what string) {
	if s.closed() == nil {
		s.log.Warn().Err(err).Msg(what)
	}
}

// barrier returns when all that was done before it is on disk and shown.
func (s *Store) barrier() error {
	if err := s.wal.Lock(); err != nil {
		return unavailable(err)
	}
	s.flushNotes()
	if h := s.hints.cur; h != nil && h.segment < s.journal.State().End.Segment() {
		s.hints.close()
	}
	s.wal.Unlock(journal.Lazy, nil)
	return s.journal.Sync()
}

// sealed lists the segments that are full.
func (s *Store) sealed() []journal.Segment {
	durable := s.journal.State().Durable.Segment()
	return slices.DeleteFunc(s.journal.Segments(), func(seg journal.Segment) bool {
		return seg.End == 0 || seg.Number >= durable
	})
}

// copyOutOf copies what full segments hold for streams.
func (s *Store) copyOutOf(sealed []journal.Segment) {
	if len(sealed) == 0 {
		return
	}
	last := sealed[len(sealed)-1].Number
	if last <= s.upkeep.copied {
		return
	}
	if err := s.copyStreams(last); err != nil {
		s.complain(err, "streams were not copied out of the log")
		return
	}
	s.upkeep.copied = last
}
