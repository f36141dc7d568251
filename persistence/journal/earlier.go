package journal

import (
	"errors"
	"path/filepath"
)

// Earlier is a segment, or the first part of one, before Options.From: it is not
// replayed, and its owner knows what is in it, or scans it. End is where that
// part ends.
type Earlier struct {
	Segment

	j     *Journal
	exact bool // it is known where the records end
}

// Scan calls fn for each whole group, in log order; records and bodies are
// valid only during the call. It finds out where the records end if that is
// not known, because the segment that followed was removed. Damage is an error,
// or given up with Options.AcceptLoss.
func (e *Earlier) Scan(fn func(group []Record) error) error {
	f, err := e.j.o.FS.Open(filepath.Join(e.j.o.Dir, segmentName(e.Number)))
	if err != nil {
		return err
	}
	known := int64(0)
	if e.exact {
		known = int64(e.End)
	}
	end, err := e.j.scanSegment(f, e.j.table[e.Number], pageSize, known, fn)
	e.End = uint32(end)
	return errors.Join(err, f.Close())
}

// passOver shows the owner a segment, or a part of one, that is not replayed.
func (j *Journal) passOver(s *segment, known int64) (int64, error) {
	if j.o.Earlier == nil {
		return known, nil
	}
	j.table[s.number] = s
	e := &Earlier{Segment: s.describe(), j: j, exact: known > 0}
	e.End = uint32(known)
	if err := j.o.Earlier(e); err != nil {
		return 0, err
	}
	if e.End == 0 { // its owner needs nothing of it: it has records, and none counts
		e.End = pageSize
	}
	return int64(e.End), nil
}
