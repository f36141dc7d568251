package jetstream

import (
	"strconv"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// enterSession reserves room for a message in a session, and adds it to those that
// the message goes to in one: e, or a new one if that is nil or has enough.
func (u *unit) enterSession(op *broker.Op, b *backlog, r broker.Route, e *entering, body []byte) (*entering, error) {
	if e == nil || len(e.to) == logRoutes {
		part := 0
		if e != nil {
			part = e.part + 1
		}
		e = &entering{u: u, op: op, first: len(u.reserved) == 0, body: body, size: sizeOf(op.Message, body), part: part}
	}
	in, err := b.admit(e.size, u.again)
	if err != nil || !in {
		return e, err
	}
	if len(e.to) == 0 {
		u.reserved = append(u.reserved, e)
	}
	e.to = append(e.to, r)
	return e, nil
}

// leaveSessions gives back the room of a message that did not come into the log,
// as far as that is known.
func (e *entering) leaveSessions(s *Store) {
	if e.to == nil || !s.sessions.disown(e) {
		return
	}
	for _, r := range e.to {
		if b := s.backlogOf(r.Target); b != nil {
			b.yield(e.size)
		}
	}
}

// arrived is called when the log was read up to e. One that was there before, as a
// repeat is, came without its room.
func (e *entering) arrived() { e.leaveSessions(e.u.sub.s) }

// expect has the tail know e as a message of ours, and returns what is written. A
// message is known to JetStream by an id of this publish, because one that is
// retained is published to new subscribers again and again; a publish that may be
// repeated with its id is known by that.
func (l *sessionLog) expect(e *entering, id *string) []byte {
	switch {
	case !e.u.repeatable(e.op):
		*id = nats.NewInbox()[len("_INBOX."):]
	case e.part > 0:
		*id += "#" + strconv.Itoa(e.part)
	}
	l.mu.Lock()
	e.known = *id
	l.own[e.known] = e
	l.mu.Unlock()
	return append(appendRoutes(nil, e.to), e.body...)
}

// disown forgets e; it reports whether its room is still reserved.
func (l *sessionLog) disown(e *entering) bool {
	if e.known == "" {
		return true // never sent
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own[e.known] != e {
		return false
	}
	delete(l.own, e.known)
	return true
}

// repeatable reports whether the publish may come again with the id of its message:
// under a de-duplication key, or, as one of QoS 2 does, with a key of its session.
func (u *unit) repeatable(op *broker.Op) bool {
	if op.Message.DedupKey != "" {
		return true
	}
	return u.key() != nil
}
