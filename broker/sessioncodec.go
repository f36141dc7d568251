package broker

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"millrace/broker/fields"
)

// What is stored of a session, in SpaceSessions. A client id has no control
// characters, so that the first NUL ends it.
//
//	ID              the session: format u8, expiry, since, owner; in formats 3 and 4
//	                the node that its client is connected to, and the start of that;
//	                and in formats 2 and 4
//	                n × (options u8, Subscription Identifier, filter), in order
//	ID NUL s FILTER with format 1, a subscription: options u8, Subscription Identifier
//	ID NUL i ID16   a packet id of a publish of QoS 2 that is not released; nothing,
//	                or in a store that is not atomic the id of the message until it
//	                is known to be stored
//	ID NUL o ID16   a packet id of a delivery of QoS 2 that the client has; nothing,
//	                or in a store that is not atomic its sequence
//	ID NUL p SEQ64  the packet id, u16, of a message that does not have that of its place
//	ID NUL w        a will: format u8, due, delay, expiry + 1, flags u8, owner, in
//	                format 2 the node and its start as above, message
//
// Numbers are varints unless a width is given, texts have their length before
// them, times are Unix milliseconds, and 0 is none.
const (
	keySubscription = 's'
	keyReceived     = 'i'
	keyReleased     = 'o'
	keyNumber       = 'p'
	keyWill         = 'w'

	sessionFormat = 1
	sessionSmall  = 2
	// What is added to say that a node has it.
	sessionHeld = 2
	willFormat  = 1
	willHeld    = 2

	// A session with more subscriptions, or longer filters, is not small any more.
	smallSubs    = 8
	smallFilters = 512
)

func sessionPart(id string, kind byte, rest string) string {
	return id + "\x00" + string(rune(kind)) + rest
}

func subscriptionKey(id, filter string) string { return sessionPart(id, keySubscription, filter) }
func willKey(id string) string                 { return sessionPart(id, keyWill, "") }

func receivedKey(id string, packet uint16) string {
	return sessionPart(id, keyReceived, string([]byte{byte(packet >> 8), byte(packet)}))
}

func releasedKey(id string, packet uint16) string {
	return sessionPart(id, keyReleased, string([]byte{byte(packet >> 8), byte(packet)}))
}

func numberKey(id string, seq uint64) string {
	return sessionPart(id, keyNumber, string(binary.BigEndian.AppendUint64(nil, seq)))
}

// packetID reads the end of such a key.
func packetID(rest string) uint16 {
	if len(rest) != 2 {
		return 0
	}
	return uint16(rest[0])<<8 | uint16(rest[1])
}

// splitSessionKey takes a key apart; kind is 0 for the session itself.
func splitSessionKey(key string) (id string, kind byte, rest string) {
	id, tail, _ := strings.Cut(key, "\x00")
	if tail == "" {
		return id, 0, ""
	}
	return id, tail[0], tail[1:]
}

// errSession is a record of a session that this program cannot read.
var errSession = errors.New("record of a session is malformed")

// encode is called with mu held. The subscriptions of a small session are in its
// record, because a key of its own for each costs more memory than all the rest.
func (s *Session) encode() []byte {
	b := append(make([]byte, 0, 64), sessionFormat)
	if s.small {
		b[0] = sessionSmall
	}
	b = binary.AppendUvarint(b, uint64(s.expiry))
	b = binary.AppendUvarint(b, uint64(s.since))
	b = fields.AppendText(b, s.owner.String())
	if h := s.heldBy(); h != (holder{}) {
		b[0] += sessionHeld
		b = h.append(b)
	}
	if s.small {
		for _, d := range s.subs {
			b = fields.AppendText(append(b, d.o.encode()...), d.filter)
		}
	}
	return b
}

func (h holder) append(b []byte) []byte {
	return binary.AppendUvarint(fields.AppendText(b, h.node), h.start)
}

func readHolder(f *fields.Reader) holder { return holder{node: f.Text(), start: f.Uint()} }

// encodeChanges puts subscriptions that changed. It is called with mu held.
func (s *Session) encodeChanges(b *Batch, changes []sessionPut) {
	if !s.small {
		for _, p := range changes {
			b.Put(SpaceSessions, p.key, p.value, 0)
		}
		if s.tenure != nil { // so that one who lost the session is refused
			b.Put(SpaceSessions, s.id, s.encode(), s.revision())
		}
		return
	}
	size := 0
	for _, d := range s.subs {
		size += len(d.filter)
	}
	if s.small = len(s.subs) <= smallSubs && size <= smallFilters; !s.small {
		for _, d := range s.subs {
			b.Put(SpaceSessions, subscriptionKey(s.id, d.filter), d.o.encode(), 0)
		}
	}
	b.Put(SpaceSessions, s.id, s.encode(), s.revision())
}

// sessionRecord is the decoded record of a session.
type sessionRecord struct {
	expiry uint32
	since  int64
	owner  string
	holder holder
	small  bool
	subs   []subscriptionRecord
}

type subscriptionRecord struct {
	filter string
	o      SubscriptionOptions
}

func decodeSession(b []byte) (r sessionRecord, err error) {
	f := fields.Reader{Rest: b}
	format := f.Byte()
	if format < sessionFormat || format > sessionSmall+sessionHeld {
		return r, errSession
	}
	r.expiry, r.since, r.owner = uint32(f.Uint()), int64(f.Uint()), f.Text()
	if format > sessionHeld {
		r.holder = readHolder(&f)
		format -= sessionHeld
	}
	r.small = format == sessionSmall
	for r.small && len(f.Rest) > 0 {
		o := readOptions(&f)
		r.subs = append(r.subs, subscriptionRecord{o: o, filter: f.Text()})
	}
	return r, fault(&f)
}

// encodeWill is called with mu held.
func (s *Session) encodeWill() []byte {
	w := s.will
	b := binary.AppendUvarint([]byte{willFormat}, uint64(s.willDue))
	b = binary.AppendUvarint(b, uint64(w.Delay/time.Second))
	b = binary.AppendUvarint(b, w.expires())
	b = fields.AppendText(b, s.owner.String())
	if h := s.heldBy(); h != (holder{}) {
		b[0] = willHeld
		b = h.append(b)
	}
	return AppendMessage(b, &w.Message)
}

// willRecord is the decoded record of a will.
type willRecord struct {
	will   Will
	due    int64
	owner  string
	holder holder
}

func decodeWill(b []byte) (r willRecord, err error) {
	f := fields.Reader{Rest: b}
	format := f.Byte()
	if format != willFormat && format != willHeld {
		return r, errSession
	}
	r.due = int64(f.Uint())
	r.will.Delay = time.Duration(f.Uint()) * time.Second
	if n := f.Uint(); n > 0 {
		r.will.Expires, r.will.Expiry = true, uint32(n-1)
	}
	r.owner = f.Text()
	if format == willHeld {
		r.holder = readHolder(&f)
	}
	if err := fault(&f); err != nil {
		return r, err
	}
	return r, DecodeMessage(f.Rest, &r.will.Message)
}

// Bits of the options of a subscription.
const (
	optionQoS      = 3
	optionNoLocal  = 1 << 2
	optionRAP      = 1 << 3
	optionHandling = 4 // shift
)

func (o SubscriptionOptions) encode() []byte {
	b := o.QoS | o.Handling<<optionHandling
	if o.NoLocal {
		b |= optionNoLocal
	}
	if o.RetainAsPublished {
		b |= optionRAP
	}
	return binary.AppendUvarint([]byte{b}, uint64(o.ID))
}

func decodeOptions(b []byte) (o SubscriptionOptions, err error) {
	f := fields.Reader{Rest: b}
	o = readOptions(&f)
	return o, fault(&f)
}

func readOptions(f *fields.Reader) (o SubscriptionOptions) {
	bits := f.Byte()
	o.QoS, o.Handling = bits&optionQoS, bits>>optionHandling&3
	o.NoLocal, o.RetainAsPublished = bits&optionNoLocal != 0, bits&optionRAP != 0
	o.ID = uint32(f.Uint())
	return o
}

// fault is errSession if something of a record did not fit.
func fault(f *fields.Reader) error {
	if f.Bad {
		return errSession
	}
	return nil
}
