package mqtt_test

import (
	"strings"
	"testing"

	"millrace/mqtt"
)

// bigConnect is a CONNECT of MQTT 5 whose parts have these sizes.
type bigConnect struct{ id, user, password, property, properties, will int }

func (c bigConnect) packet() []byte {
	flags := byte(2)
	if c.user > 0 {
		flags |= 0xC0
	}
	if c.will > 0 {
		flags |= 4
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	var props []byte
	if c.property > 0 { // a user property of so many bytes
		props = str(str(append(props, 38), "k"), x(c.property-6))
	}
	for range c.properties {
		props = str(str(append(props, 38), ""), "")
	}
	b := []byte{0, 4, 'M', 'Q', 'T', 'T', 5, flags, 0, 0}
	b = str(append(varint(b, len(props)), props...), x(c.id))
	if c.will > 0 {
		b = str(str(append(b, 0), "w"), x(c.will))
	}
	if c.user > 0 {
		b = str(str(b, x(c.user)), x(c.password))
	}
	return packet(0x10, b)
}

// TestConnectAtItsLimits: what is at a limit is taken, and one more is not.
func TestConnectAtItsLimits(t *testing.T) {
	e := open(t)
	for _, row := range []struct {
		name     string
		at, over bigConnect
		code     byte
	}{
		{"client id", bigConnect{id: 256}, bigConnect{id: 257}, 0x85},
		{"user name", bigConnect{id: 1, user: 256, password: 1}, bigConnect{id: 1, user: 257, password: 1}, 0x86},
		{"password", bigConnect{id: 1, user: 1, password: 8 << 10}, bigConnect{id: 1, user: 1, password: 8<<10 + 1}, 0x86},
		{"properties in bytes", bigConnect{id: 1, property: 8 << 10}, bigConnect{id: 1, property: 8<<10 + 1}, 0x97},
		{"user properties", bigConnect{id: 1, properties: 64}, bigConnect{id: 1, properties: 65}, 0x97},
		{"packet", sized(16<<10, bigConnect{id: 1, user: 1, property: 8 << 10}), sized(16<<10+1, bigConnect{id: 1, user: 1, property: 8 << 10}), 0x95},
		{"packet with a will", willed(64 << 10), willed(64<<10 + 1), 0x95},
	} {
		code := func(c bigConnect) byte {
			r := dial(t, e)
			r.v5 = true
			r.send(c.packet())
			head, body := r.packet()
			if head != 0x20 {
				t.Fatalf("%s: packet %x", row.name, head)
			}
			return body[1]
		}
		if got := code(row.at); got != 0 {
			t.Errorf("%s at its limit: %x", row.name, got)
		}
		if got := code(row.over); got != row.code {
			t.Errorf("%s over its limit: %x, want %x", row.name, got, row.code)
		}
	}
}

// sized makes the password fill the packet, willed the payload of a will.
func sized(total int, c bigConnect) bigConnect {
	c.password += total - len(c.packet())
	return c
}

func willed(total int) bigConnect {
	c := bigConnect{id: 1, will: 60_000} // its length takes as many bytes as that of the result
	c.will += total - len(c.packet())
	return c
}

// TestPacketsAtTheirLimit is mqtt.max_packet_size.
func TestPacketsAtTheirLimit(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.MaxPayload, o.MaxPacket = 10_000, 10_000 })
	publish := func(r *raw, total int) {
		r.publish("t", strings.Repeat("x", total-9), 1, 1) // 3 of the header, 3 of the topic, 2 of the id, 1 of the properties
	}
	r := login(t, e, true, "")
	publish(r, 10_000)
	if head, _ := r.packet(); head != 0x40 {
		t.Errorf("at the limit: %x", head)
	}
	publish(r, 10_001)
	r.wantEnd(0x95)
}
