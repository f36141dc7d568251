package jetstream

import (
	"encoding/json"
	"errors"

	"millrace/broker"
)

// once is what the bucket dedup holds of a key.
type once struct {
	ID   broker.ID `json:"id"`
	Hash uint64    `json:"hash"`
	Done bool      `json:"done,omitempty"` // it is wherever it was to go
	Seq  uint64    `json:"seq,omitempty"`  // where it is in the first of these, 0 if nobody knows
}

// claim takes the de-duplication key of e, then publishes. A repeat of one that is not
// known to have been stored is published with the id of the first, which JetStream tells
// as a duplicate: if the first was cut off between the key and the stream, this one stores
// it. JetStream forgets ids of messages that have left when its servers start again.
func (e *entering) claim(s *Store) {
	m := e.op.Message
	mine, err := json.Marshal(once{ID: m.ID, Hash: m.BodyHash})
	if err != nil {
		e.refuse(err)
		e.u.sub.gate.open(s)
		return
	}
	s.dedup.start(&put{key: m.DedupKey, value: mine, rev: broker.RevNone, done: func(_ uint64, err error) {
		switch {
		case err == nil:
			e.publish(s, m.ID)
		case errors.Is(err, broker.ErrConflict):
			s.work.Go(func() { e.repeat(s); e.u.sub.gate.open(s) })
			return
		default:
			e.refuse(err)
		}
		e.u.sub.gate.open(s)
	}})
}

// refuse ends e, which was not sent.
func (e *entering) refuse(err error) {
	e.stored(pubAck{}, e.op.Message.ID, err)
	e.u.done(err)
}

// repeat publishes e as the first message of its key.
func (e *entering) repeat(s *Store) {
	m := e.op.Message
	encoded, _ := encodeKey(m.DedupKey)
	var first once
	have, err := s.fetch(s.ctx, s.dedup.stream, getRequest{Last: s.dedup.subject + encoded})
	if err == nil {
		err = json.Unmarshal(have.Data, &first)
	}
	if err == nil && first.Hash != m.BodyHash {
		err = broker.ErrConflict
	}
	if err != nil {
		e.refuse(err)
		return
	}
	if first.Done {
		e.op.First = first.ID
		e.stored(pubAck{Seq: first.Seq, Duplicate: true}, first.ID, nil)
		e.u.done(nil)
		return
	}
	again := *m
	again.ID = first.ID
	e.body = broker.AppendMessage(nil, &again)
	e.op.First = first.ID
	e.publish(s, first.ID)
}

// markDone notes under the de-duplication key of a publish that it is stored. Nobody waits
// for that: without it a repeat is published again, and told as a duplicate by its id.
func (u *unit) markDone(op *broker.Op) {
	o := once{ID: op.Message.ID, Hash: op.Message.BodyHash, Done: true}
	for _, e := range u.reserved {
		if e.op == op && e.first {
			o.Seq = e.at
		}
	}
	value, err := json.Marshal(o)
	if err == nil {
		u.sub.s.dedup.start(&put{key: op.Message.DedupKey, value: value, done: func(uint64, error) {}})
	}
}
