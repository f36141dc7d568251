package local

import (
	"slices"

	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// Compaction moves the messages of sparse segments to the end of the log, so
// that a few that stay do not hold what was around them.
const (
	// A segment with less than a quarter alive is sparse; with less than three
	// fifths if the log holds more than twice of what lives in it.
	sparseAlways  = 0.25
	sparseCrowded = 0.60
	crowded       = 2
	// With so little alive it is not worth waiting for the rest to be consumed.
	sparseNow = 1.0 / 64

	moveBytes = 256 << 10 // moved at once, between two pauses
	moveCount = 256
)

// compact empties the sparse ones of full segments.
func (s *Store) compact(sealed []journal.Segment) error {
	sparse := s.sparse(sealed)
	if len(sparse) == 0 {
		return nil
	}
	spots := s.livingIn(sparse)
	for len(spots) > 0 && !s.upkeep.stopped() {
		n, bytes := 0, int64(0)
		for n < len(spots) && n < moveCount && (n == 0 || bytes+int64(spots[n].Size) <= moveBytes) {
			bytes += int64(spots[n].Size)
			n++
		}
		if err := s.moveAll(spots[:n]); err != nil {
			return err
		}
		if spots = spots[n:]; len(spots) > 0 && !s.upkeep.pause(2*bytes) { // read and written
			break
		}
	}
	return nil
}

// sparse returns which segments to empty. One that is being consumed just now
// is left alone: it will be empty by itself.
func (s *Store) sparse(sealed []journal.Segment) map[uint32]bool {
	var used, alive int64
	for _, seg := range sealed {
		used += int64(seg.End)
		alive += s.live.of(seg.Number)
	}
	limit := sparseAlways
	if used > crowded*alive {
		limit = sparseCrowded
	}
	sparse, seen := map[uint32]bool{}, map[uint32]int64{}
	for _, seg := range sealed {
		lives := s.live.of(seg.Number)
		share := float64(lives) / float64(seg.End)
		if lives == 0 || share >= limit || seg.Number > s.upkeep.copied {
			continue
		}
		seen[seg.Number] = lives
		before, again := s.upkeep.seen[seg.Number]
		if share < sparseNow || again && lives > before/2 {
			sparse[seg.Number] = true
		}
	}
	s.upkeep.seen = seen
	return sparse
}

// livingIn returns where the messages lie that queues have in some segments.
func (s *Store) livingIn(segments map[uint32]bool) []journal.Spot {
	var spots []journal.Spot
	order := sortSegments(segments)
	for _, t := range s.all() {
		if t.q == nil || t.q.volatile {
			continue
		}
		t.q.mu.Lock()
		for _, c := range t.q.chunks.list {
			if i, _ := slices.BinarySearch(order, c.lo); i == len(order) || order[i] > c.hi {
				continue
			}
			for i := range c.entries {
				e := &c.entries[i]
				if e.state() != gone && segments[journal.Position(e.pos).Segment()] {
					spots = append(spots, journal.Spot{Pos: journal.Position(e.pos), Size: e.size})
				}
			}
		}
		t.q.mu.Unlock()
	}
	slices.SortFunc(spots, func(a, b journal.Spot) int {
		switch {
		case a.Pos < b.Pos:
			return -1
		case a.Pos > b.Pos:
			return 1
		}
		return 0
	})
	return slices.Compact(spots) // several queues may have one message
}

// moveAll writes the messages at some positions anew.
func (s *Store) moveAll(spots []journal.Spot) error {
	recs := make([]journal.Record, 0, len(spots))
	err := s.journal.ReadEach(spots, nil, func(i int, typ byte, body []byte) error {
		recs = append(recs, journal.Record{Pos: spots[i].Pos, Size: spots[i].Size, Type: typ, Body: body})
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.wal.Lock(); err != nil {
		return unavailable(err)
	}
	var moves []moved
	for i := range recs {
		if moves, err = s.move(&recs[i], moves); err != nil {
			break
		}
	}
	s.wal.Unlock(journal.Lazy, nil) // nobody waits: the old ones are there until this is on disk
	for i := range moves {
		moves[i].apply()
	}
	return err
}

// moved is what a queue is to be told of a move.
type moved struct {
	q        *queue
	seq      uint64
	old, pos uint64
	size     uint32
}

// move writes one message anew for the queues in which it is still at its old
// place. The append lock is held: an acknowledgement is recorded either before,
// and then the message is not there any more, or behind the move.
func (s *Store) move(r *journal.Record, moves []moved) ([]moved, error) {
	m, err := s.parse(r)
	if err != nil {
		return moves, recordError(r, err)
	}
	p := &m.placed
	if err := s.reserve(journal.RecordHeader+maxSmall+routeBound*len(p.routes)+len(m.body), true); err != nil {
		return moves, err
	}
	routes := m.routes[:0]
	for _, to := range m.routes {
		// One that is gone is passed over, and so is a stream, which has its copy.
		if q := s.targets[to.id].q; q != nil && !q.volatile && q.liesAt(to.seq, uint64(r.Pos)) {
			routes = append(routes, to)
		}
	}
	if len(routes) == 0 {
		return moves, nil
	}
	b := fields.AppendUints(s.wal.Start(recMove), uint64(r.Pos), uint64(m.time), uint64(len(routes)))
	p.routes = p.routes[:0]
	for _, to := range routes {
		b = fields.AppendUints(b, uint64(to.id), uint64(to.partition), to.seq)
		p.routes = append(p.routes, seqOf{to.id, to.seq})
	}
	pos, size := s.wal.End(append(b, m.body...), false)
	for _, to := range routes {
		moves = append(moves, moved{q: s.targets[to.id].q, seq: to.seq, old: uint64(r.Pos), pos: uint64(pos), size: size})
	}
	p.moved, p.size = true, size
	p.overhead = size - uint32(len(m.m.Payload))
	s.hints.add(uint64(pos), p)
	s.upkeep.moved.Add(1)
	return moves, nil
}

// liesAt reports whether a message is there, at a position.
func (q *queue) liesAt(seq, pos uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, i := q.chunks.find(seq)
	return c != nil && c.entries[i].state() != gone && c.entries[i].pos == pos
}

// apply tells a queue the new place, where readers find the message only now.
func (m *moved) apply() {
	m.q.mu.Lock()
	defer m.q.mu.Unlock()
	if c, i := m.q.chunks.find(m.seq); c != nil && c.entries[i].state() != gone && c.entries[i].pos == m.old {
		m.q.moved(c, i, m.pos, m.size)
	}
}

// where returns where a message is now, for one who was told another place.
func (q *queue) where(seq uint64) (spot journal.Spot, there bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, i := q.chunks.find(seq)
	if c == nil || c.entries[i].state() == gone {
		return journal.Spot{}, false
	}
	return journal.Spot{Pos: journal.Position(c.entries[i].pos), Size: c.entries[i].size}, true
}
