package broker

import (
	"context"
	"maps"
)

// The packet ids of deliveries whose message is still there, where they do not
// follow from its place: that id was taken. One that was sent keeps its id for
// good, MQTT 5 section 4.4, so that each is recorded.

// Renumber records under which packet id a message of the session's goes to the
// client. done is called once that is recorded: only then may it be sent.
func (s *Settlements) Renumber(of *Session, seq uint64, packet uint16, done func(error)) {
	of.lock()
	if of.numbers == nil {
		of.numbers = make(map[uint64]uint16)
	}
	of.numbers[seq] = packet
	of.mu.Unlock()
	s.batch.Put(SpaceSessions, numberKey(of.id, seq), []byte{byte(packet >> 8), byte(packet)}, 0)
	s.end(done)
}

// Unnumber forgets the packet id of a message that the client has.
func (s *Settlements) Unnumber(of *Session, seq uint64) {
	of.lock()
	delete(of.numbers, seq)
	of.mu.Unlock()
	s.batch.Put(SpaceSessions, numberKey(of.id, seq), nil, 0)
	s.end(nil)
}

// Numbers are the packet ids that were recorded, by the sequence of their
// messages. Those of messages that are gone are forgotten.
func (s *Session) Numbers(ctx context.Context) (map[uint64]uint16, error) {
	s.lock()
	all := maps.Clone(s.numbers)
	s.mu.Unlock()
	var gone []uint64
	for seq := range all {
		ds, err := s.read(ctx, Pos{Seq: seq, States: Ready | Delayed | Leased}, 1, nil)
		if err != nil {
			return nil, err
		}
		if len(ds) == 0 || ds[0].Seq != seq {
			gone = append(gone, seq)
		}
	}
	if len(gone) == 0 {
		return all, nil
	}
	st := s.b.NewSettlements()
	for _, seq := range gone {
		delete(all, seq)
		st.Unnumber(s, seq)
	}
	st.Submit()
	return all, nil
}
