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
	found []loaded          // none: the picks bring their bodies
	read  []broker.Delivery // of a stream, for a subscription
}

// loaded is the record of a pick, or which of loader.read it is: its message,
// and the tag of its route.
type loaded struct {
	body []byte
	tag  uint32
	read int
	err  error
}

// loadMax is how many picks a caller without a bound of its own loads at once.
const loadMax = 256

// begin reads the messages of picks, until end; of a subscription only those
// whose payloads are together no more than maxBytes, but one at least.
func (l *loader) begin(q *queue, picks []pick, maxBytes int) {
	l.end()
	switch {
	case q.source != nil:
		l.fromStream(q.source.st, picks, maxBytes)
	case !q.volatile:
		l.fromJournal(q, picks)
	}
}

func (l *loader) fromJournal(q *queue, picks []pick) {
	l.spots, l.found = slices.Grow(l.spots, len(picks)), slices.Grow(l.found, len(picks))
	for i := range picks {
		l.spots = append(l.spots, journal.Spot{Pos: journal.Position(picks[i].pos), Size: picks[i].size})
	}
	for len(l.found) < len(picks) {
		err := q.s.journal.ReadEach(l.spots[len(l.found):], nil, func(_ int, typ byte, body []byte) error {
			body, tag, err := messageFor(typ, body, q.id)
			l.found = append(l.found, loaded{body: body, tag: tag, err: err})
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
	switch {
	case f.err != nil:
		return f.err
	case len(l.read) > 0:
		d.Message = l.read[f.read].Message
		return nil
	}
	d.Tag = f.tag
	return broker.DecodeMessage(f.body, &d.Message)
}

// topic returns the topic of the message of picks[i], of a queue. Errors as message.
func (l *loader) topic(picks []pick, i int) (string, error) {
	if len(l.found) == 0 {
		return broker.MessageTopic(picks[i].body)
	}
	if err := l.found[i].err; err != nil {
		return "", err
	}
	return broker.MessageTopic(l.found[i].body)
}

// end lets go of the records, so that no idle wait keeps them in memory.
func (l *loader) end() {
	clear(l.found)
	clear(l.read)
	l.spots, l.found, l.read = l.spots[:0], l.found[:0], l.read[:0]
}
