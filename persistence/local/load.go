package local

import (
	"slices"

	"millrace/broker"
	"millrace/persistence/journal"
)

// loader reads picked messages. Neighbours in the journal that are no longer in
// memory are read together: a deep backlog costs hardly more than a short queue.
type loader struct{ places []journal.Place } // none: the picks bring their bodies

// loadMax is how many picks a caller without a bound of its own loads at once.
const loadMax = 256

// begin reads the records of picks, until end.
func (l *loader) begin(s *Store, volatile bool, picks []pick) {
	if volatile {
		return
	}
	l.places = slices.Grow(l.places[:0], len(picks))
	for i := range picks {
		l.places = append(l.places, journal.Place{Pos: journal.Position(picks[i].pos), Size: picks[i].size})
	}
	s.wal.ReadAll(l.places)
}

// message decodes the message of picks[i].
func (l *loader) message(picks []pick, i int, m *broker.Message) error {
	if len(l.places) == 0 {
		return broker.DecodeMessage(picks[i].body, m)
	}
	p := &l.places[i]
	if p.Err != nil {
		return p.Err
	}
	if p.Type != recMessage {
		return errRecord
	}
	f := fields{b: p.Body}
	f.num()
	for n := f.num(); n > 0 && !f.bad; n-- {
		f.num()
		f.num()
		f.num()
	}
	if f.bad {
		return errRecord
	}
	return broker.DecodeMessage(f.b, m)
}

// end lets go of the records, so that no idle wait keeps them in memory.
func (l *loader) end() {
	clear(l.places)
	l.places = l.places[:0]
}
