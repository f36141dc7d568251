package local

import (
	"errors"
	"slices"

	"millrace/broker"
	"millrace/persistence/journal"
)

// loader reads picked messages. Neighbours in the journal that are no longer in
// memory are read together: a deep backlog costs hardly more than a short queue.
type loader struct {
	spots []journal.Spot
	found []loaded // none: the picks bring their bodies
}

// loaded is the record of a pick: its message, and the tag of its route.
type loaded struct {
	body []byte
	tag  uint32
	err  error
}

// loadMax is how many picks a caller without a bound of its own loads at once.
const loadMax = 256

// begin reads the records of picks, until end.
func (l *loader) begin(q *queue, picks []pick) {
	l.end()
	if q.volatile {
		return
	}
	l.spots, l.found = slices.Grow(l.spots, len(picks)), slices.Grow(l.found, len(picks))
	for i := range picks {
		l.spots = append(l.spots, journal.Spot{Pos: journal.Position(picks[i].pos), Size: picks[i].size})
	}
	for len(l.found) < len(picks) {
		err := q.s.journal.ReadEach(l.spots[len(l.found):], func(_ int, typ byte, body []byte) error {
			body, tag, err := messageFor(typ, body, q.id)
			l.found = append(l.found, loaded{body, tag, err})
			return nil
		})
		if err != nil && !l.moved(q, picks, err) {
			l.found = append(l.found, loaded{err: err})
		}
	}
}

// moved reports whether the message that could not be read lies elsewhere by
// now; then it is to be read there. One that went meanwhile is passed over.
func (l *loader) moved(q *queue, picks []pick, err error) bool {
	if !errors.Is(err, journal.ErrNoSegment) {
		return false
	}
	i := len(l.found)
	spot, there := q.where(picks[i].seq)
	switch {
	case !there:
		l.found = append(l.found, loaded{err: broker.ErrGone})
		return true
	case spot == l.spots[i]:
		return false
	}
	l.spots[i] = spot
	return true
}

// message decodes the message of picks[i] into d, and finds its tag. It is
// broker.ErrGone if the message went after it was picked.
func (l *loader) message(picks []pick, i int, d *broker.Delivery) error {
	if len(l.found) == 0 {
		d.Tag = uint32(picks[i].pos)
		return broker.DecodeMessage(picks[i].body, &d.Message)
	}
	f := &l.found[i]
	if f.err != nil {
		return f.err
	}
	d.Tag = f.tag
	return broker.DecodeMessage(f.body, &d.Message)
}

// end lets go of the records, so that no idle wait keeps them in memory.
func (l *loader) end() {
	clear(l.found)
	l.spots, l.found = l.spots[:0], l.found[:0]
}
