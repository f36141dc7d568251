package journal

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
)

// Remove takes a segment out of the log, whose records nobody needs any more,
// and keeps its file for reuse. Positions in it are no longer found; slices of
// its records in memory stay good. The next Open needs an Options.From behind
// it. The segment that is appended to cannot be removed.
func (j *Journal) Remove(number uint32) error {
	if err := j.poisoned(); err != nil {
		return err
	}
	j.tableMu.Lock()
	s := j.table[number]
	if s == nil {
		j.tableMu.Unlock()
		return fmt.Errorf("%w: %08x", ErrNoSegment, number)
	}
	if s.end == 0 || Position(j.durable.Load()) < position(number, s.end) {
		j.tableMu.Unlock()
		return fmt.Errorf("remove segment %08x: it is still written to", number)
	}
	delete(j.table, number)
	s.gone = true
	busy := s.refs > 0
	if !busy && s.file != nil {
		_ = s.file.Close() // nothing was written since it was synced
		s.file = nil
		j.opened--
	}
	j.tableMu.Unlock()
	if busy {
		// Somebody reads it: overwriting would show them other bytes.
		path := filepath.Join(j.o.Dir, segmentName(number))
		if err := j.o.FS.Remove(path); err != nil {
			return err
		}
		return j.o.FS.SyncDir(j.o.Dir)
	}
	return j.freeSegment(number, s.size)
}

// Segment describes a segment that holds records.
type Segment struct {
	Number     uint32
	Generation uint64 // random, another one for each use of a file
	Size       int64  // of the file
	End        uint32 // where its records end; 0 while it is appended to
}

func (s *segment) describe() Segment { return Segment{s.number, s.generation, s.size, s.end} }

// Segments lists the segments of the log in order.
func (j *Journal) Segments() []Segment {
	j.tableMu.Lock()
	defer j.tableMu.Unlock()
	list := make([]Segment, 0, len(j.table))
	for _, s := range j.table {
		list = append(list, s.describe())
	}
	slices.SortFunc(list, func(a, b Segment) int { return cmp.Compare(a.Number, b.Number) })
	return list
}
