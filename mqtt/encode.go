package mqtt

import (
	"encoding/binary"
	"sync"

	"millrace/broker"
)

// head is a PUBLISH up to its payload, in the form that many clients share:
// the QoS, the retain flag, the packet id and the topic alias are put in as it
// is copied.
type head struct {
	b     []byte
	total int // of the packet
	idAt  int // where the packet id stands, 0 if there is none
	// aliasAt is where the topic alias stands, 0 if there is none.
	aliasAt int
}

// encoder encodes one message for a fan-out: once for each form of PUBLISH
// that its subscribers need, whatever their number.
type encoder struct {
	broker *broker.Broker
	m      *broker.Message
	shown  *broker.Message // see show
	now    int64           // Unix milliseconds, 0 = not asked yet
	heads  [2 + 2*forms]head
	made   [2 + 2*forms]bool
	own    head // with Subscription Identifiers, for one subscriber
	group  []*member
	groups []*group
	ids    []uint32
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

func newEncoder(b *broker.Broker, m *broker.Message) *encoder {
	e := encoders.Get().(*encoder)
	e.broker, e.m, e.shown, e.now = b, m, nil, 0
	clear(e.made[:])
	return e
}

func (e *encoder) free() {
	e.broker, e.m, e.shown = nil, nil, nil
	clear(e.group[:cap(e.group)])
	e.group = e.group[:0]
	clear(e.groups)
	e.groups = e.groups[:0]
	encoders.Put(e)
}

// showFrom is the payload size from which a message in flight is shown without
// it, so that what clients do not acknowledge holds little memory.
const showFrom = 16 << 10

// show is what is remembered of a message until the client has acknowledged it,
// for operators who ask.
func (e *encoder) show() *broker.Message {
	if len(e.m.Payload) < showFrom {
		return e.m
	}
	if e.shown == nil {
		m := *e.m
		m.Payload = nil
		e.shown = &m
	}
	return e.shown
}

// time is now, the same for all of one fan-out.
func (e *encoder) time() int64 {
	if e.now == 0 {
		e.now = e.broker.Now().UnixMilli()
	}
	return e.now
}

// expired reports whether the message must not be delivered any more,
// section 3.3.2.3.3.
func (e *encoder) expired() bool { return e.m.Expires != 0 && e.m.Expires <= e.time() }

// head returns the head for a version, a QoS and a form; ids make one of its own.
func (e *encoder) head(v5 bool, qos byte, f form, ids []uint32) *head {
	if v5 && len(ids) > 0 {
		e.encode(&e.own, true, qos > 0, f, ids)
		return &e.own
	}
	i := 0
	if v5 {
		i = 2 + 2*int(f)
	}
	if qos > 0 {
		i++
	}
	if !e.made[i] {
		e.encode(&e.heads[i], v5, qos > 0, f, nil)
		e.made[i] = true
	}
	return &e.heads[i]
}

// encode writes the fixed and variable header, section 3.3. The length of the
// properties is needed before them, so that they are written first, behind
// room for the rest.
func (e *encoder) encode(h *head, v5, id bool, f form, ids []uint32) {
	const room = 5 // first byte and Remaining Length
	b := h.b[:0]
	b = append(b, make([]byte, room)...)
	if f == byAlias {
		b = append(b, 0, 0)
	} else {
		b = appendString(b, e.m.Topic)
	}
	h.idAt, h.aliasAt = 0, 0
	if id {
		h.idAt = len(b)
		b = append(b, 0, 0)
	}
	if v5 {
		b = e.properties(b, f, ids)
	}
	rest := len(b) - room + len(e.m.Payload)
	n := varintLen(uint32(rest))
	skip := room - 1 - n
	b[skip] = typePublish << 4
	appendVarint(b[skip+1:skip+1:skip+1+n], uint32(rest))
	if h.idAt > 0 {
		h.idAt -= skip
	}
	if skip > 0 {
		b = b[:copy(b, b[skip:])]
	}
	h.b, h.total = b, 1+n+rest
	if f != byTopic {
		h.aliasAt = len(b) - 2 // the last property
	}
}

// properties appends the property block of section 3.3.2.3.
func (e *encoder) properties(b []byte, f form, ids []uint32) []byte {
	m := e.m
	if m.ContentType == "" && m.ResponseTopic == "" && m.Correlation == nil && !m.UTF8 && m.Expires == 0 &&
		len(m.Properties) == 0 && len(ids) == 0 && f == byTopic {
		return append(b, 0)
	}
	at := len(b)
	if m.UTF8 {
		b = append(b, propFormat, 1)
	}
	if m.Expires != 0 { // what is left, rounded up: 0 would say that it is over
		left := max(0, m.Expires-e.time()+999) / 1000
		b = binary.BigEndian.AppendUint32(append(b, propExpiry), uint32(min(left, 1<<32-1)))
	}
	if m.ContentType != "" {
		b = appendString(append(b, propContentType), m.ContentType)
	}
	if m.ResponseTopic != "" {
		b = appendString(append(b, propResponseTopic), m.ResponseTopic)
	}
	if m.Correlation != nil {
		b = appendString(append(b, propCorrelation), m.Correlation)
	}
	for _, id := range ids {
		b = appendVarint(append(b, propSubscriptionID), id)
	}
	for _, p := range m.Properties {
		b = appendString(append(b, propUser), p.Name)
		b = appendString(b, p.Value)
	}
	if f != byTopic {
		b = append(b, propAlias, 0, 0)
	}
	// Move the block behind its own length.
	n := len(b) - at
	k := varintLen(uint32(n))
	b = append(b, make([]byte, k)...)
	copy(b[at+k:], b[at:at+n])
	appendVarint(b[at:at:at+k], uint32(n))
	return b
}

// publish appends one PUBLISH. The caller holds wmu, and calls wrote.
func (o *output) publish(h *head, payload []byte, p *pending, id, alias uint16) {
	h.b[0] = typePublish<<4 | p.qos<<1
	if p.retain {
		h.b[0] |= 1
	}
	if p.dup {
		h.b[0] |= 8
	}
	if h.idAt > 0 {
		binary.BigEndian.PutUint16(h.b[h.idAt:], id)
	}
	if h.aliasAt > 0 {
		binary.BigEndian.PutUint16(h.b[h.aliasAt:], alias)
	}
	o.write(h.b)
	if len(payload) >= shareFrom {
		o.share(payload)
	} else {
		o.write(payload)
	}
}
