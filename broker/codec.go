package broker

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"millrace/broker/fields"
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
	b = fields.AppendText(b, m.Topic)
	if mask != 0 {
		b = appendOptional(b, m, mask)
	}
	return fields.AppendBytes(b, m.Payload)
}

// appendOptional appends the fields of mask in the order of its bits.
func appendOptional(b []byte, m *Message, mask uint16) []byte {
	b = appendField(b, mask&hasContentType, m.ContentType)
	if mask&hasProperties != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Properties)))
		for i := range m.Properties {
			b = fields.AppendText(fields.AppendText(b, m.Properties[i].Name), m.Properties[i].Value)
		}
	}
	b = appendField(b, mask&hasResponseTopic, m.ResponseTopic)
	if mask&hasCorrelation != 0 {
		b = fields.AppendBytes(b, m.Correlation)
	}
	b = appendNumber(b, mask&hasExpires, uint64(m.Expires))
	b = appendNumber(b, mask&hasNotBefore, uint64(m.NotBefore))
	b = appendField(b, mask&hasPublisher, m.Publisher)
	b = appendField(b, mask&hasKey, m.Key)
	b = appendNumber(b, mask&hasEventTime, uint64(m.EventTime))
	b = appendField(b, mask&hasProducer, m.Producer)
	b = appendNumber(b, mask&hasSequence, m.Sequence)
	if mask&hasDedup != 0 {
		b = binary.LittleEndian.AppendUint64(fields.AppendText(b, m.DedupKey), m.BodyHash)
	}
	if mask&hasOrigins != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.Origins)))
		for _, o := range m.Origins {
			b = fields.AppendText(b, o)
		}
	}
	return b
}

// appendField appends s if it is in the mask.
func appendField(b []byte, in uint16, s string) []byte {
	if in == 0 {
		return b
	}
	return fields.AppendText(b, s)
}

// appendNumber appends v if it is in the mask.
func appendNumber(b []byte, in uint16, v uint64) []byte {
	if in == 0 {
		return b
	}
	return binary.AppendUvarint(b, v)
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
	r := fields.Reader{Rest: b[codecFixed:]}
	m.Published = int64(r.Uint())
	m.Topic = r.Shared()
	if mask != 0 {
		readOptional(&r, m, mask)
	}
	m.Payload = r.Bytes()
	if r.Bad || len(r.Rest) != 0 {
		return errCodec
	}
	return nil
}

// MessageTopic is the topic in what DecodeMessage reads, over the same memory.
func MessageTopic(b []byte) (string, error) {
	if len(b) < codecFixed || b[0] != codecVersion {
		return "", errCodec
	}
	r := fields.Reader{Rest: b[codecFixed:]}
	r.Uint()
	topic := r.Shared()
	if r.Bad {
		return "", errCodec
	}
	return topic, nil
}

// readOptional reads the fields of mask in the order of its bits.
func readOptional(r *fields.Reader, m *Message, mask uint16) {
	m.ContentType = readField(r, mask&hasContentType)
	if mask&hasProperties != 0 {
		m.Properties = make([]Property, r.Count(2))
		for i := range m.Properties {
			m.Properties[i] = Property{Name: r.Shared(), Value: r.Shared()}
		}
	}
	m.ResponseTopic = readField(r, mask&hasResponseTopic)
	if mask&hasCorrelation != 0 {
		m.Correlation = r.Bytes()
	}
	m.Expires = int64(readNumber(r, mask&hasExpires))
	m.NotBefore = int64(readNumber(r, mask&hasNotBefore))
	m.Publisher = readField(r, mask&hasPublisher)
	m.Key = readField(r, mask&hasKey)
	m.EventTime = int64(readNumber(r, mask&hasEventTime))
	m.Producer = readField(r, mask&hasProducer)
	m.Sequence = readNumber(r, mask&hasSequence)
	if mask&hasDedup != 0 {
		m.DedupKey = r.Shared()
		m.BodyHash = r.Fixed64()
	}
	if mask&hasOrigins != 0 {
		m.Origins = make([]string, r.Count(1))
		for i := range m.Origins {
			m.Origins[i] = r.Shared()
		}
	}
}

// readField reads a text if it is in the mask.
func readField(r *fields.Reader, in uint16) string {
	if in == 0 {
		return ""
	}
	return r.Shared()
}

// readNumber reads a varint if it is in the mask.
func readNumber(r *fields.Reader, in uint16) uint64 {
	if in == 0 {
		return 0
	}
	return r.Uint()
}
