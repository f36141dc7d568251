package journal

import "slices"

// Held is a segment that stays readable until Release, also when it is removed
// from the log meanwhile.
type Held struct {
	Segment // End is where the held records end
	j       *Journal
	s       *segment
}

// Hold holds the segments of the log from its first one to the position to,
// which must be durable.
func (j *Journal) Hold(to Position) ([]*Held, error) {
	var held []*Held
	for _, s := range j.Segments() {
		if s.Number > to.Segment() {
			break
		}
		seg, err := j.acquire(s.Number)
		if err != nil {
			Release(held)
			return nil, err
		}
		h := &Held{Segment: s, j: j, s: seg}
		switch {
		case s.Number == to.Segment():
			h.End = to.Offset()
		case s.End == 0:
			h.End = uint32(s.Size) // it was not read, for nobody needs it: all of it, then
		}
		held = append(held, h)
	}
	return held, nil
}

// ReadAt reads the file as it is, from the header page to End.
func (h *Held) ReadAt(p []byte, off int64) (int, error) {
	return h.s.file.ReadAt(p[:min(int64(len(p)), max(int64(h.End)-off, 0))], off)
}

// Release lets go of the segments.
func Release(held []*Held) {
	for _, h := range slices.Backward(held) {
		h.j.unref(h.s)
	}
}
