package broker

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"unsafe"
)

// codecVersion is the first byte of an encoded message. A new field gets a bit
// of the mask; only a change of what is there already needs a new version.
const codecVersion = 1

// errCodec is every failure of DecodeMessage: the bytes are not a message of a
// version that this program reads. Where they came from is the caller's to say.
var errCodec = errors.New("not an encoded message")

// Bits of the second byte of an encoded message; the low two are the QoS.
const (
	codecRetain = 1 << (iota + 2)
	codecUTF8
)

// Bits of the mask: which of the optional fields follow, in this order. They
// are on disk: append only.
const (
	hasContentType = 1 << iota
	hasProperties
	hasResponseTopic
	hasCorrelation
	hasExpires
	hasNotBefore
	hasPublisher
	hasKey
	hasEventTime
	hasProducer
	hasSequence
	hasDedup
	hasOrigins
	hasAll = 1<<iota - 1
)

// codecFixed is version, flags, mask and id.
const codecFixed = 1 + 1 + 2 + 16

// SizeBound returns how many bytes AppendMessage will add at most. It is exact
// today, so that a slice of this capacity wastes nothing.
func SizeBound(m *Message) int {
	n := codecFixed + sizeUint(uint64(m.Published)) + sizeString(m.Topic) + sizeUint(uint64(len(m.Payload))) + len(m.Payload)
	mask := fieldsOf(m)
	if mask == 0 {
		return n
	}
	n += sizeOptional(m.ContentType) + sizeOptional(m.ResponseTopic) + sizeOptional(m.Publisher) + sizeOptional(m.Key) + sizeOptional(m.Producer)
	if mask&hasProperties != 0 {
		n += sizeUint(uint64(len(m.Properties)))
		for i := range m.Properties {
			n += sizeString(m.Properties[i].Name) + sizeString(m.Properties[i].Value)
		}
	}
	if mask&hasCorrelation != 0 {
		n += sizeUint(uint64(len(m.Correlation))) + len(m.Correlation)
	}
	for _, v := range [...]uint64{uint64(m.Expires), uint64(m.NotBefore), uint64(m.EventTime), m.Sequence} {
		if v != 0 {
			n += sizeUint(v)
		}
	}
	if mask&hasDedup != 0 {
		n += sizeString(m.DedupKey) + 8
	}
	if mask&hasOrigins != 0 {
		n += sizeUint(uint64(len(m.Origins)))
		for _, o := range m.Origins {
			n += sizeString(o)
		}
	}
	return n
}

// fieldsOf returns the mask of m.
func fieldsOf(m *Message) (mask uint16) {
	if m.ContentType != "" {
		mask |= hasContentType
	}
	if len(m.Properties) > 0 {
		mask |= hasProperties
	}
	if m.ResponseTopic != "" {
		mask |= hasResponseTopic
	}
	if len(m.Correlation) > 0 {
		mask |= hasCorrelation
	}
	if m.Expires != 0 {
		mask |= hasExpires
	}
	if m.NotBefore != 0 {
		mask |= hasNotBefore
	}
	if m.Publisher != "" {
		mask |= hasPublisher
	}
	if m.Key != "" {
		mask |= hasKey
	}
	if m.EventTime != 0 {
		mask |= hasEventTime
	}
	if m.Producer != "" {
		mask |= hasProducer
	}
	if m.Sequence != 0 {
		mask |= hasSequence
	}
	if m.DedupKey != "" {
		mask |= hasDedup
	}
	if len(m.Origins) > 0 {
		mask |= hasOrigins
	}
	return mask
}

// sizeUint returns the length of v as a varint.
func sizeUint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// sizeString returns the length of s with its own length before it.
func sizeString(s string) int { return sizeUint(uint64(len(s))) + len(s) }

// sizeOptional is sizeString of a field that is left out when empty.
func sizeOptional(s string) int {
	if s == "" {
		return 0
	}
	return sizeString(s)
}

// AppendMessage appends the encoding of m, which every store keeps: version,
// flags, mask and id, then the time of publication, the topic, the optional
// fields of the mask, and the payload last. Numbers are varints; strings,
// bytes and lists carry their length.
func AppendMessage(b []byte, m *Message) []byte {
	flags := m.QoS & 3
	if m.Retain {
		flags |= codecRetain
	}
	if m.UTF8 {
		flags |= codecUTF8
	}
	mask := fieldsOf(m)
	b = append(b, codecVersion, flags)
	b = binary.LittleEndian.AppendUint16(b, mask)
	b = append(b, m.ID[:]...)
	b = binary.AppendUvarint(b, uint64(m.Published))
	b = appendString(b, m.Topic)
	if mask != 0 {
		b = appendOptional(b, m, mask)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Payload)))
	return append(b, m.Payload...)
}

// appendOptional appends the fields of mask in the order of its bits.
func appendOptional(b []byte, m *Message, mask uint16) []byte {
	b = appendField(b, mask&hasContentType, m.ContentType)
	if mask&hasProperties != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Properties)))
		for i := range m.Properties {
			b = appendString(appendString(b, m.Properties[i].Name), m.Properties[i].Value)
		}
	}
	b = appendField(b, mask&hasResponseTopic, m.ResponseTopic)
	if mask&hasCorrelation != 0 {
		b = append(binary.AppendUvarint(b, uint64(len(m.Correlation))), m.Correlation...)
	}
	b = appendNumber(b, mask&hasExpires, uint64(m.Expires))
	b = appendNumber(b, mask&hasNotBefore, uint64(m.NotBefore))
	b = appendField(b, mask&hasPublisher, m.Publisher)
	b = appendField(b, mask&hasKey, m.Key)
	b = appendNumber(b, mask&hasEventTime, uint64(m.EventTime))
	b = appendField(b, mask&hasProducer, m.Producer)
	b = appendNumber(b, mask&hasSequence, m.Sequence)
	if mask&hasDedup != 0 {
		b = binary.LittleEndian.AppendUint64(appendString(b, m.DedupKey), m.BodyHash)
	}
	if mask&hasOrigins != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Origins)))
		for _, o := range m.Origins {
			b = appendString(b, o)
		}
	}
	return b
}

// appendField appends s if it is in the mask.
func appendField(b []byte, in uint16, s string) []byte {
	if in == 0 {
		return b
	}
	return appendString(b, s)
}

// appendNumber appends v if it is in the mask.
func appendNumber(b []byte, in uint16, v uint64) []byte {
	if in == 0 {
		return b
	}
	return binary.AppendUvarint(b, v)
}

// appendString appends the length of s and s.
func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeMessage reads what AppendMessage wrote into m. It copies nothing: the
// payload and all strings of m are parts of b, which must never change again.
// A store hands out bytes that it wrote once and leaves to the collector, so
// that a delivery costs no copy of its message.
func DecodeMessage(b []byte, m *Message) error {
	*m = Message{}
	if len(b) < codecFixed || b[0] != codecVersion {
		return errCodec
	}
	m.QoS, m.Retain, m.UTF8 = b[1]&3, b[1]&codecRetain != 0, b[1]&codecUTF8 != 0
	mask := binary.LittleEndian.Uint16(b[2:4])
	if mask&^hasAll != 0 || b[1]&^(codecRetain|codecUTF8|3) != 0 {
		return errCodec
	}
	copy(m.ID[:], b[4:])
	d := decoder{b: b[codecFixed:]}
	m.Published = int64(d.uint())
	m.Topic = d.string()
	if mask != 0 {
		d.optional(m, mask)
	}
	m.Payload = d.bytes()
	if d.bad || len(d.b) != 0 {
		return errCodec
	}
	return nil
}

// MessageTopic is the topic in what DecodeMessage reads, over the same memory.
func MessageTopic(b []byte) (string, error) {
	if len(b) < codecFixed || b[0] != codecVersion {
		return "", errCodec
	}
	d := decoder{b: b[codecFixed:]}
	d.uint()
	topic := d.string()
	if d.bad {
		return "", errCodec
	}
	return topic, nil
}

// decoder takes fields from b. After the first that does not fit it is bad,
// and every further field is empty.
type decoder struct {
	b   []byte
	bad bool
}

// optional reads the fields of mask in the order of its bits.
func (d *decoder) optional(m *Message, mask uint16) {
	m.ContentType = d.field(mask & hasContentType)
	if mask&hasProperties != 0 {
		m.Properties = make([]Property, d.count(2))
		for i := range m.Properties {
			m.Properties[i] = Property{Name: d.string(), Value: d.string()}
		}
	}
	m.ResponseTopic = d.field(mask & hasResponseTopic)
	if mask&hasCorrelation != 0 {
		m.Correlation = d.bytes()
	}
	m.Expires = int64(d.number(mask & hasExpires))
	m.NotBefore = int64(d.number(mask & hasNotBefore))
	m.Publisher = d.field(mask & hasPublisher)
	m.Key = d.field(mask & hasKey)
	m.EventTime = int64(d.number(mask & hasEventTime))
	m.Producer = d.field(mask & hasProducer)
	m.Sequence = d.number(mask & hasSequence)
	if mask&hasDedup != 0 {
		m.DedupKey = d.string()
		m.BodyHash = d.fixed()
	}
	if mask&hasOrigins != 0 {
		m.Origins = make([]string, d.count(1))
		for i := range m.Origins {
			m.Origins[i] = d.string()
		}
	}
}

// field reads a string if it is in the mask.
func (d *decoder) field(in uint16) string {
	if in == 0 {
		return ""
	}
	return d.string()
}

// number reads a varint if it is in the mask.
func (d *decoder) number(in uint16) uint64 {
	if in == 0 {
		return 0
	}
	return d.uint()
}

// uint reads a varint.
func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// fixed reads eight bytes.
func (d *decoder) fixed() uint64 {
	if len(d.b) < 8 {
		d.bad, d.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// count reads the length of a list whose elements take at least size bytes
// each, so that no length makes us allocate more than the bytes that are there
// account for.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

// bytes reads a length and that many bytes, without copying them.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// string is bytes as a string over the same memory. This is the one use of
// unsafe: DecodeMessage asks that its bytes never change.
func (d *decoder) string() string {
	v := d.bytes()
	if len(v) == 0 {
		return ""
	}
	return unsafe.String(&v[0], len(v)) //nolint:gosec // the bytes never change, see above
}
