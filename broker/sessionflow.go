package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// sessionLease is how long a message is the client's: until it is acknowledged.
// Nobody else receives from a session, so that a lease only tells what was sent.
const sessionLease = math.MaxInt64 / 2 * time.Nanosecond

// InFlight appends up to limit messages to dst that were sent to the client and
// are not acknowledged, in their order, from the sequence on.
func (s *Session) InFlight(ctx context.Context, from uint64, limit int, dst []Delivery) ([]Delivery, error) {
	return s.read(ctx, Pos{Seq: from, States: Leased}, limit, dst)
}

func (s *Session) read(ctx context.Context, p Pos, limit int, dst []Delivery) ([]Delivery, error) {
	t := Target(s.target.Load())
	if t == 0 {
		return dst, nil
	}
	dst, err := s.b.store.Read(ctx, t, p, limit, dst)
	return dst, storeError(err)
}

// Receive opens a consumer of what waits for the client. It is nil while no
// subscription wants messages that are kept.
func (s *Session) Receive(sink BacklogSink) *Consumer {
	t := Target(s.target.Load())
	if t == 0 {
		return nil
	}
	return s.b.newConsumer(t, nil, sink)
}

// claim returns what is recorded of a publish of QoS 2 before it is stored. In a
// store whose units are atomic it is stored with that, and nothing more is to be
// said. Otherwise a crash may come in between: the record holds the id of the
// message, and a sender that repeats it gets the same one, so that it is
// stored once.
func (s *Session) claim(packet uint16, m *Message, again bool) []byte {
	if s.b.store.State().Atomic {
		return []byte{}
	}
	s.lock()
	defer s.mu.Unlock()
	if id, ok := s.claimed[packet]; ok && again {
		m.ID = id
	}
	if s.claimed == nil {
		s.claimed = make(map[uint16]ID)
	}
	s.claimed[packet] = m.ID
	return bytes.Clone(m.ID[:])
}

// disclaim forgets a claim whose message was refused.
func (s *Session) disclaim(packet uint16) {
	s.lock()
	delete(s.claimed, packet)
	s.mu.Unlock()
}

// Received are the packet ids of publishes of QoS 2 that were stored and not
// yet released.
func (s *Session) Received() []uint16 {
	s.lock()
	defer s.mu.Unlock()
	ids := make([]uint16, 0, len(s.received))
	for id := range s.received {
		ids = append(ids, id)
	}
	return ids
}

// Released are the packet ids of deliveries of QoS 2 that the client has, and
// whose PUBCOMP is still to come, oldest first.
func (s *Session) Released() []uint16 {
	s.lock()
	defer s.mu.Unlock()
	return slices.Clone(s.released)
}

// Claimed are the packet ids of publishes of QoS 2 of which nobody knows whether
// they were stored: those that the client repeats are published again.
func (s *Session) Claimed() (ids []uint16) {
	s.lock()
	defer s.mu.Unlock()
	for id := range s.claimed {
		if _, stored := s.received[id]; !stored {
			ids = append(ids, id)
		}
	}
	return ids
}

// confirm records that what was claimed is stored, for all that is known to be.
// The caller holds mu.
func (s *Session) confirm(b *Batch) {
	for id := range s.claimed {
		if _, stored := s.received[id]; stored {
			b.Put(SpaceSessions, receivedKey(s.id, id), []byte{}, 0)
			delete(s.claimed, id)
		}
	}
}

// receive notes a publish that was stored under its packet id.
func (s *Session) receive(packet uint16) {
	s.lock()
	if s.received == nil {
		s.received = make(map[uint16]struct{})
	}
	s.received[packet] = struct{}{}
	s.mu.Unlock()
}

// Release forgets the packet id of a publish of QoS 2, MQTT 5 section 4.3.3.
// done is called once that is recorded: only then may the client be told, who
// then uses the id for another message.
func (s *Settlements) Release(of *Session, packet uint16, done func(error)) {
	s.batch.Put(SpaceSessions, receivedKey(of.id, packet), nil, 0)
	s.end(func(err error) {
		if err == nil {
			of.lock()
			delete(of.received, packet)
			delete(of.claimed, packet)
			of.mu.Unlock()
		}
		done(err)
	})
}

// Handed removes a delivery of QoS 2 that the client has, and remembers its
// packet id until Complete. done is called once that is recorded: only then may
// the id be released.
func (s *Settlements) Handed(of *Session, r Ref, packet uint16, done func(error)) {
	s.batch.Settle(r, ReasonAcked)
	s.batch.Put(SpaceSessions, releasedKey(of.id, packet), of.handed(r), 0)
	of.lock()
	of.released = append(of.released, packet)
	of.mu.Unlock()
	s.end(done)
}

// handed is what is recorded of a delivery that the client has. In a store whose units
// are not atomic a message of its own may be there still after a crash: so it says
// which. One of a queue comes again then, to whoever consumes from that.
func (s *Session) handed(r Ref) []byte {
	if r.Target != Target(s.target.Load()) || s.b.store.State().Atomic {
		return []byte{}
	}
	return binary.AppendUvarint(nil, r.Seq)
}

// settleHanded removes deliveries that the client has, by their records, which
// came before that.
func (b *Broker) settleHanded(ctx context.Context, t Target, rs []releasedID) error {
	c := newCommit()
	for _, r := range rs {
		if r.seq == 0 {
			continue
		}
		ds, err := b.store.Read(ctx, t, Pos{Seq: r.seq, States: Ready | Leased}, 1, nil)
		if err != nil {
			return err
		}
		if len(ds) == 1 && ds[0].Seq == r.seq {
			c.Settle(ds[0].Ref, ReasonAcked)
			c.End()
		}
	}
	if len(c.Units) == 0 {
		c.release()
		return nil
	}
	if err := c.submit(ctx, b.store); err != nil {
		return err
	}
	for i := range c.Units {
		if err := c.Units[i].Result.Err; err != nil && !isGone(err) {
			return err
		}
	}
	c.release()
	return nil
}

// Sent remembers the packet id of a QoS 2 delivery that is no message of the
// session's, like one of a queue: should the process end now, the id is released
// when the client is back, so that it is not taken for that message for ever.
func (s *Settlements) Sent(of *Session, packet uint16) {
	if of.b.sessions.named(of.id) != of {
		return
	}
	s.batch.Put(SpaceSessions, releasedKey(of.id, packet), []byte{}, 0)
	s.end(nil)
}

// Abandon is Sent for a delivery that was given back: the id is released when
// the client is back.
func (s *Settlements) Abandon(of *Session, packet uint16) {
	of.lock()
	of.released = append(of.released, packet)
	of.mu.Unlock()
	s.Sent(of, packet)
}

// Complete forgets the packet id of a delivery of QoS 2.
func (s *Settlements) Complete(of *Session, packet uint16) {
	of.lock()
	of.released = slices.DeleteFunc(of.released, func(id uint16) bool { return id == packet })
	of.mu.Unlock()
	s.batch.Put(SpaceSessions, releasedKey(of.id, packet), nil, 0)
	s.end(nil)
}

// Drop removes a delivery that the client must not get, for a reason that is counted.
func (s *Settlements) Drop(r Ref, why Reason) {
	s.batch.Settle(r, why)
	s.end(nil)
}

// Settled returns when everything that was handed to the store before has been
// answered.
func (b *Broker) Settled(ctx context.Context) error {
	return newCommit().store(ctx, b.store, Durable)
}
