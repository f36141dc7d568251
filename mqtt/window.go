package mqtt

import "millrace/broker"

// outState is where a delivery to a client stands, MQTT 5 section 4.3.
type outState uint8

const (
	wantPuback outState = iota + 1
	wantPubrec
	wantPubcomp
)

// flight is one delivery on its way.
type flight struct {
	state outState
	// recorded says that the id of a QoS 2 delivery outlives the connection.
	recorded bool
	cargo    cargo // nil for a message that nobody else waits for
	m        *broker.Message
	serial   uint64 // in the order of sending
}

// cargo is a message that belongs somewhere else until the client has settled it.
type cargo interface {
	// settled takes the reason code of the client's PUBACK or PUBREC for a packet
	// id. done, if not nil, is to be called once an ack is as durable as it gets.
	// The reader of s calls it, without a lock.
	settled(s *session, id uint16, code reason, done func(error))
}

// window is the QoS > 0 messages on their way to one client. Their ids are of
// a space of their own: those that the client gives its publishes have nothing
// to do with them. Guarded by session.mu.
type window struct {
	size  int
	out   map[uint16]flight
	last  uint16
	first uint16 // of the ids that go round, but for 0
	sent  uint64 // deliveries so far
	// promised are ids of messages that are not on their way yet.
	promised map[uint16]struct{}
}

func (w *window) init(size int) { w.size = size }

// share leaves the ids below sharedFrom to the messages that have theirs from
// the backlog of a durable session.
func (w *window) share() {
	w.first = sharedFrom
	w.size = min(w.size, 1<<16-sharedFrom)
}

func (w *window) full() bool { return len(w.out) >= w.size }

// take returns the next free id. Ids are given at the moment of sending, and
// go round, so that a late ack does not meet a new message under its id.
func (w *window) take(f flight) uint16 {
	id := w.next()
	w.put(id, f)
	return id
}

// next finds the id.
func (w *window) next() uint16 {
	for {
		if w.last++; w.last == 0 || w.last < w.first {
			w.last = max(1, w.first)
		}
		if _, promised := w.promised[w.last]; !promised && !w.has(w.last) {
			return w.last
		}
	}
}

// promise keeps an id for a message that will be put under it.
func (w *window) promise(id uint16) {
	if w.promised == nil {
		w.promised = make(map[uint16]struct{})
	}
	w.promised[id] = struct{}{}
}

// has reports whether an id is in use.
func (w *window) has(id uint16) bool {
	_, used := w.out[id]
	return used
}

// put notes a delivery under an id that is free.
func (w *window) put(id uint16, f flight) {
	if w.out == nil {
		w.out = make(map[uint16]flight)
	}
	delete(w.promised, id)
	w.sent++
	f.serial = w.sent
	w.out[id] = f
}

// puback settles a QoS 1 delivery, section 3.4. An id that we do not know is
// nothing: the client may be late.
func (s *session) puback(a ack) *faultError {
	s.mu.Lock()
	f := s.window.out[a.id]
	if f.state == wantPuback {
		delete(s.window.out, a.id)
	}
	s.mu.Unlock()
	switch f.state {
	case wantPuback:
		s.c.srv.stats.acked.Add(1)
		if f.cargo != nil {
			f.cargo.settled(s, a.id, a.code, nil)
		}
		s.pump()
	case wantPubrec, wantPubcomp:
		return broken(protocolError, "PUBACK for a QoS 2 delivery")
	default:
		s.c.srv.stats.missed[0].Add(1)
	}
	return nil
}

// pubrec moves a QoS 2 delivery on, section 3.5: the client has it, or
// refuses it.
func (s *session) pubrec(a ack) *faultError {
	s.mu.Lock()
	f := s.window.out[a.id]
	refused := a.code >= unspecified
	if f.state == wantPubrec {
		if refused {
			delete(s.window.out, a.id)
		} else {
			s.window.out[a.id] = flight{state: wantPubcomp, recorded: f.cargo != nil && s.durable()}
		}
	}
	s.mu.Unlock()
	code := success
	switch {
	case f.state == wantPuback:
		return broken(protocolError, "PUBREC for a QoS 1 delivery")
	case f.state == wantPubrec && refused:
		if f.cargo != nil {
			f.cargo.settled(s, a.id, a.code, nil)
		}
		s.pump()
		return nil
	case f.state == wantPubrec && f.cargo != nil: // PUBREL says that it is gone for good
		f.cargo.settled(s, a.id, a.code, func(err error) { s.released(a.id, err) })
		return nil
	case f.state == 0:
		code = unknownPacketID
		s.c.srv.stats.missed[1].Add(1)
	}
	s.c.send(appendAck(nil, typePubrel, a.id, code, s.c.v5))
	return nil
}

// released sends the PUBREL of a delivery whose ack was committed, or could
// not be.
func (s *session) released(id uint16, err error) {
	if err != nil {
		s.c.end(&faultError{unspecified, "ack of a message failed", closeQuota})
		return
	}
	s.c.send(appendAck(nil, typePubrel, id, success, s.c.v5))
}

// pubcomp settles a QoS 2 delivery, section 3.7.
func (s *session) pubcomp(a ack) *faultError {
	s.mu.Lock()
	f := s.window.out[a.id]
	st := f.state
	if st == wantPubcomp {
		delete(s.window.out, a.id)
	}
	s.mu.Unlock()
	switch st {
	case wantPubcomp:
		s.c.srv.stats.acked.Add(1)
		if f.recorded {
			s.settlements().Complete(s.kept, a.id)
		}
		s.pump()
	case wantPuback, wantPubrec:
		return broken(protocolError, "PUBCOMP before PUBREC")
	default:
		s.c.srv.stats.missed[3].Add(1)
	}
	return nil
}

// pending is a message that waits for its turn.
type pending struct {
	m      *broker.Message
	ids    []uint32 // Subscription Identifiers
	qos    byte
	retain bool
	dup    bool   // it was sent before
	id     uint16 // packet id; 0 = the next that is free
	size   int32  // bytes, in a backlog
	cargo  cargo
}

// pendingOverhead is what a waiting message costs beside its bytes.
const pendingOverhead = 256

func (p *pending) bytes() int { return len(p.m.Payload) + len(p.m.Topic) + pendingOverhead }

// backlog is a queue of waiting messages, a ring. Guarded by session.mu. It drops
// the oldest without a look at the message, which no cache holds any more.
type backlog struct {
	ring   []pending
	head   int
	n      int
	bytes  int
	popped uint64 // so far, less what was put back
}

func (b *backlog) len() int { return b.n }

func (b *backlog) push(p pending) {
	if b.n == len(b.ring) {
		grown := make([]pending, max(16, 2*b.n))
		k := copy(grown, b.ring[b.head:])
		copy(grown[k:], b.ring[:b.head])
		b.ring, b.head = grown, 0
	}
	p.size = int32(p.bytes())
	b.ring[(b.head+b.n)%len(b.ring)] = p
	b.n++
	b.bytes += int(p.size)
}

// pushFront puts p back where the oldest is.
func (b *backlog) pushFront(p pending) {
	b.push(p) // makes the room
	b.head = (b.head + len(b.ring) - 1) % len(b.ring)
	last := (b.head + b.n) % len(b.ring) // where push has put it
	p = b.ring[last]
	b.ring[last] = pending{}
	b.ring[b.head] = p
	b.popped--
}

func (b *backlog) pop() pending {
	p := b.ring[b.head]
	b.ring[b.head] = pending{}
	b.head = (b.head + 1) % len(b.ring)
	b.n--
	b.popped++
	b.bytes -= int(p.size)
	if b.n == 0 && len(b.ring) > 1024 {
		b.ring, b.head = nil, 0
	}
	return p
}
