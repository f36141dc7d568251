package jetstream

import (
	"context"
	"strings"

	"github.com/tidwall/btree"

	"millrace/broker"
)

// group is one key of a queue with FIFO groups: at most one of its messages is in
// flight. A key stays taken while its message is leased, held, or was given back,
// because a later one must not overtake it. JetStream knows no keys: what it hands
// out of one that is taken is put off, again and again, until its turn comes. So
// many messages are put off at most (Options.LookAhead), then receives wait.
type group struct {
	owner uint64            // sequence of the message in flight
	line  btree.Set[uint64] // of those that were put off
}

// keyOf returns the key of a message as far as the queue asks for it.
func (q *queue) keyOf(m *broker.Message) string {
	if !q.def.KeyedFIFO {
		return ""
	}
	return strings.Clone(m.Key)
}

// free reports whether the key of e is, or is its own.
func (q *queue) free(e *entry) bool {
	if e.key == "" {
		return true
	}
	g := q.groups[e.key]
	return g == nil || g.owner == e.seq
}

// own gives the key of e to it.
func (q *queue) own(e *entry) {
	if e.key == "" {
		return
	}
	if g := q.groups[e.key]; g != nil {
		g.owner = e.seq
		return
	}
	q.groups[e.key] = &group{owner: e.seq}
}

// block puts e off, which is not free.
func (q *queue) block(e *entry) {
	q.groups[e.key].line.Insert(e.seq)
	e.set(q, blocked)
	q.watch(e)
	e.putOff(q, holdFor, nil)
}

// passOn gives the key of e, which left, to the next in its line.
func (q *queue) passOn(e *entry) {
	g := q.groups[e.key]
	if g == nil || g.owner != e.seq {
		return
	}
	seq, ok := g.line.Min()
	if !ok {
		delete(q.groups, e.key)
		q.attendParts() // who asks for a part may have it now
		return
	}
	g.owner = seq
	q.passBack(q.entries[seq])
}

// unown gives the key of e free, which was handed to nobody, if no other waits for it.
func (q *queue) unown(e *entry) {
	if g := q.groups[e.key]; g != nil && g.owner == e.seq && g.line.Len() == 0 && e.attempt() == 0 {
		delete(q.groups, e.key)
	}
}

// meet makes entries of what was handed out before a crash, so that keys which
// are in flight stay taken. When JetStream hands one out again is its business;
// attempts are counted anew.
func (q *queue) meet(ctx context.Context) error {
	for from := uint64(1); ; {
		list, err := q.next(ctx, from)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, m := range list {
			if from = m.Seq + 1; m.Seq > q.delivered {
				return nil
			}
			d, err := q.delivery(m.Data, m.header, m.Time)
			if err != nil {
				return err
			}
			e := &entry{
				seq: m.Seq, id: d.ID, queued: d.Queued, expires: d.Expires, size: sizeOf(&d.Message, m.Data), key: q.keyOf(&d.Message), met: true,
			}
			if q.entries[m.Seq] != nil {
				continue
			}
			q.keep(e)
			if q.free(e) {
				q.own(e)
			} else {
				q.block(e)
			}
		}
	}
}
