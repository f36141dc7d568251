// Package wire writes and reads MQTT 3.1.1 packets by hand, for the load
// generator and the tests: cheap, and independent of the broker's own codec.
package wire

import (
	"encoding/binary"
	"errors"
)

// The packet types, MQTT 3.1.1 section 2.2.1.
const (
	Connect    = 1
	Connack    = 2
	Publish    = 3
	Puback     = 4
	Pubrec     = 5
	Pubrel     = 6
	Pubcomp    = 7
	Subscribe  = 8
	Suback     = 9
	Pingreq    = 12
	Pingresp   = 13
	Disconnect = 14
)

// Packet is one packet as it was read. Body is valid until the buffer changes.
type Packet struct {
	Type, Flags byte
	Body        []byte
}

// ErrMalformed is a remaining length of more than four bytes.
var ErrMalformed = errors.New("malformed MQTT packet")

// Next splits one packet off b. n is its length, 0 while b holds no whole one.
func Next(b []byte) (p Packet, n int, err error) {
	length := 0
	for i := 1; i < len(b); i++ {
		if i == 5 {
			return Packet{}, 0, ErrMalformed
		}
		length |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] >= 0x80 {
			continue
		}
		n = i + 1 + length
		if n > len(b) {
			return Packet{}, 0, nil
		}
		return Packet{Type: b[0] >> 4, Flags: b[0] & 15, Body: b[i+1 : n]}, n, nil
	}
	return Packet{}, 0, nil
}

// ID returns the packet id of an ack.
func (p Packet) ID() uint16 {
	if len(p.Body) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(p.Body)
}

// Message returns the parts of a PUBLISH.
func (p Packet) Message() (topic string, id uint16, payload []byte, err error) {
	if len(p.Body) < 2 {
		return "", 0, nil, ErrMalformed
	}
	at := 2 + int(binary.BigEndian.Uint16(p.Body))
	if at > len(p.Body) {
		return "", 0, nil, ErrMalformed
	}
	topic = string(p.Body[2:at])
	if p.Flags>>1&3 > 0 {
		if at+2 > len(p.Body) {
			return "", 0, nil, ErrMalformed
		}
		id = binary.BigEndian.Uint16(p.Body[at:])
		at += 2
	}
	return topic, id, p.Body[at:], nil
}

func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b, n = append(b, byte(n)|0x80), n>>7
	}
	return append(b, byte(n))
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// Login is who a connection is, and its will where it has a topic.
type Login struct {
	ClientID, User, Password string
	Keep                     bool   // the session
	KeepAlive                uint16 // seconds; 0 = none
	WillTopic, WillPayload   string
}

// AppendConnect appends a CONNECT. A will has QoS 1.
func AppendConnect(b []byte, l Login) []byte {
	flags, n := byte(2), 12+len(l.ClientID)
	if l.Keep {
		flags = 0
	}
	if l.WillTopic != "" {
		flags, n = flags|0x0c, n+4+len(l.WillTopic)+len(l.WillPayload)
	}
	if l.User != "" {
		flags, n = flags|0x80, n+2+len(l.User)
	}
	if l.Password != "" {
		flags, n = flags|0x40, n+2+len(l.Password)
	}
	b = appendString(appendLength(append(b, Connect<<4), n), "MQTT")
	b = appendString(append(b, 4, flags, byte(l.KeepAlive>>8), byte(l.KeepAlive)), l.ClientID)
	if l.WillTopic != "" {
		b = appendString(appendString(b, l.WillTopic), l.WillPayload)
	}
	if l.User != "" {
		b = appendString(b, l.User)
	}
	if l.Password != "" {
		b = appendString(b, l.Password)
	}
	return b
}

// AppendPublish appends a PUBLISH. The id counts only for QoS 1 and 2.
func AppendPublish(b []byte, topic string, qos byte, id uint16, payload []byte) []byte {
	n := 2 + len(topic) + len(payload)
	if qos > 0 {
		n += 2
	}
	b = appendString(appendLength(append(b, Publish<<4|qos<<1), n), topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, payload...)
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func AppendAck(b []byte, kind byte, id uint16) []byte {
	first := kind << 4
	if kind == Pubrel {
		first |= 2
	}
	return append(b, first, 2, byte(id>>8), byte(id))
}

// AppendSubscribe appends a SUBSCRIBE to one filter.
func AppendSubscribe(b []byte, id uint16, filter string, qos byte) []byte {
	b = appendLength(append(b, Subscribe<<4|2), 5+len(filter))
	b = binary.BigEndian.AppendUint16(b, id)
	return append(appendString(b, filter), qos)
}

// AppendPing appends a PINGREQ.
func AppendPing(b []byte) []byte { return append(b, Pingreq<<4, 0) }

// AppendDisconnect appends a DISCONNECT.
func AppendDisconnect(b []byte) []byte { return append(b, Disconnect<<4, 0) }
