package mqtt

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Packet types, MQTT 5 section 2.1.2.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// maxRemaining is the largest Remaining Length, section 1.5.5.
const maxRemaining = 268_435_455

var (
	errShort  = broken(malformed, "packet ends too early")
	errString = broken(malformed, "string is not UTF-8 or holds NUL")
)

// cursor reads the fields of one packet. The first error sticks, and every
// read after it answers zero, so that a caller checks once. What it returns
// aliases the packet.
type cursor struct {
	b   []byte
	err *faultError
}

func (r *cursor) fail(f *faultError) {
	if r.err == nil {
		r.err = f
	}
	r.b = nil
}

func (r *cursor) take(n int) []byte {
	if n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *cursor) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *cursor) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *cursor) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// binary reads Binary Data, section 1.5.6.
func (r *cursor) binary() []byte { return r.take(int(r.uint16())) }

// string reads a UTF-8 Encoded String. Section 1.5.4: no ill-formed UTF-8,
// which covers surrogates and overlong forms, and no U+0000.
func (r *cursor) string() []byte {
	b := r.binary()
	if !validString(b) {
		r.fail(errString)
		return nil
	}
	return b
}

func validString(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// varint reads a Variable Byte Integer, which section 1.5.5 wants minimal.
func (r *cursor) varint() uint32 {
	v, n, st := varint(r.b)
	switch {
	case st == varintShort:
		r.fail(errShort)
		return 0
	case st == varintLong, n > varintLen(v):
		r.fail(broken(malformed, "variable byte integer is too long"))
		return 0
	}
	r.b = r.b[n:]
	return v
}

type varintState uint8

const (
	varintOK varintState = iota
	varintShort
	varintLong // a fourth byte with its top bit set
)

// varint decodes a Variable Byte Integer and says how many bytes it took.
func varint(b []byte) (v uint32, n int, st varintState) {
	for n < 4 {
		if n == len(b) {
			return 0, n, varintShort
		}
		c := b[n]
		v |= uint32(c&0x7f) << (7 * n)
		n++
		if c < 0x80 {
			return v, n, varintOK
		}
	}
	return 0, n, varintLong
}

func varintLen(v uint32) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	default:
		return 4
	}
}

func appendVarint(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendString[T string | []byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendAck writes PUBACK, PUBREC, PUBREL or PUBCOMP. Sections 3.4.2.1 and
// following: the reason code is left out when it is success.
func appendAck(b []byte, kind byte, id uint16, code reason, v5 bool) []byte {
	first := kind << 4
	if kind == typePubrel {
		first |= 2
	}
	if !v5 || code == success {
		return append(b, first, 2, byte(id>>8), byte(id))
	}
	return append(b, first, 3, byte(id>>8), byte(id), byte(code))
}

// appendDisconnect writes the DISCONNECT of MQTT 5.
func appendDisconnect(b []byte, code reason) []byte {
	return append(b, typeDisconnect<<4, 2, byte(code), 0)
}

// appendReferral is appendDisconnect with a server reference (section 4.11).
func appendReferral(b []byte, code reason, at string) []byte {
	props := appendString([]byte{propServerRef}, at)
	b = appendVarint(append(b, typeDisconnect<<4), uint32(1+varintLen(uint32(len(props)))+len(props)))
	return append(appendVarint(append(b, byte(code)), uint32(len(props))), props...)
}

// appendConnack writes the CONNACK that refuses.
func appendConnack(b []byte, code reason, v5 bool) ([]byte, bool) {
	if v5 {
		return append(b, typeConnack<<4, 3, 0, byte(code), 0), true
	}
	c, ok := v3Connack(code)
	if !ok {
		return b, false
	}
	return append(b, typeConnack<<4, 2, 0, c), true
}
