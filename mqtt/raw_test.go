package mqtt_test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// raw is a client that sends any bytes, and reads packets without judging.
type raw struct {
	net.Conn
	t      testing.TB
	br     *bufio.Reader
	v5     bool
	pinged bool // see pingOr
}

func newRaw(tb testing.TB, c net.Conn) *raw {
	tb.Helper()
	return &raw{Conn: c, t: tb, br: bufio.NewReader(c)}
}

// dial connects a socket and sends nothing.
func dial(tb testing.TB, e *edge) *raw {
	tb.Helper()
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{Conn: c, t: tb, br: bufio.NewReader(c)}
}

// pipe connects a client of a bubble.
func pipe(tb testing.TB, e *edge) *raw {
	tb.Helper()
	c, s := net.Pipe()
	tb.Cleanup(func() { _ = c.Close() })
	e.Serve(s)
	return &raw{Conn: c, t: tb, br: bufio.NewReader(c)}
}

// pipeIn is pipe after CONNECT, with the properties given.
func pipeIn(tb testing.TB, e *edge, v5 bool, id string, props ...byte) *raw {
	tb.Helper()
	r := pipe(tb, e)
	r.v5 = v5
	r.send(connectPacket(v5, id, props))
	if head, body := r.packet(); head != 0x20 || body[1] != 0 {
		tb.Fatalf("CONNACK is %x %x", head, body)
	}
	return r
}

// login connects a client of the given version with a clean session and no
// keep alive, and reads its CONNACK.
func login(tb testing.TB, e *edge, v5 bool, id string) *raw {
	tb.Helper()
	r := dial(tb, e)
	r.v5 = v5
	r.send(connectPacket(v5, id, nil))
	if head, body := r.packet(); head != 0x20 || body[1] != 0 {
		tb.Fatalf("CONNACK is %x %x", head, body)
	}
	return r
}

// connectPacket builds a CONNECT with properties (MQTT 5 only).
func connectPacket(v5 bool, id string, props []byte) []byte {
	b := []byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0}
	if v5 {
		b[6] = 5
		b = append(varint(b, len(props)), props...)
	}
	return packet(0x10, str(b, id))
}

// packet puts a fixed header before body.
func packet(head byte, body []byte) []byte { return append(varint([]byte{head}, len(body)), body...) }

func varint(b []byte, n int) []byte {
	for n >= 128 {
		b = append(b, byte(n)|128)
		n >>= 7
	}
	return append(b, byte(n))
}

func str(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// publishPacket builds a PUBLISH; props are the bytes of MQTT 5's block.
func (r *raw) publishPacket(topic, payload string, qos byte, id uint16, props ...byte) []byte {
	b := str(nil, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if r.v5 {
		b = append(varint(b, len(props)), props...)
	}
	return packet(0x30|qos<<1, append(b, payload...))
}

func (r *raw) publish(topic, payload string, qos byte, id uint16, props ...byte) {
	r.t.Helper()
	r.send(r.publishPacket(topic, payload, qos, id, props...))
}

// subscribePacket builds a SUBSCRIBE; each filter has the same options.
func (r *raw) subscribePacket(id uint16, opt byte, props []byte, filters ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	if r.v5 {
		b = append(varint(b, len(props)), props...)
	}
	for _, f := range filters {
		b = append(str(b, f), opt)
	}
	return packet(0x82, b)
}

// subscribe sends a SUBSCRIBE and returns the codes of its SUBACK.
func (r *raw) subscribe(id uint16, opt byte, filters ...string) []byte {
	r.t.Helper()
	r.send(r.subscribePacket(id, opt, nil, filters...))
	return r.suback()
}

func (r *raw) suback() []byte {
	r.t.Helper()
	head, body := r.packet()
	if head != 0x90 {
		r.t.Fatalf("got packet %x %x, want SUBACK", head, body)
	}
	return body[len(body)-r.codes(body):]
}

func (r *raw) codes(body []byte) int {
	if r.v5 {
		return len(body) - 3 - int(body[2])
	}
	return len(body) - 2
}

func (r *raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatalf("write: %v", err)
	}
}

func (r *raw) sendHex(s string) {
	r.t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.Write(b); err != nil && !stopped(err) {
		r.t.Fatalf("write: %v", err)
	}
}

// read returns the next packet.
func (r *raw) read() (head byte, body []byte, err error) {
	if head, err = r.br.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, shift := 0, 0
	for {
		c, err := r.br.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		n |= int(c&127) << shift
		if c < 128 {
			break
		}
		shift += 7
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r.br, body)
	return head, body, err
}

func (r *raw) packet() (head byte, body []byte) {
	r.t.Helper()
	head, body, err := r.read()
	if err != nil {
		r.t.Fatalf("read a packet: %v", err)
	}
	return head, body
}

// want reads packets until all of the bytes in hexes have come.
func (r *raw) want(hexes ...string) {
	r.t.Helper()
	for _, h := range hexes {
		b, err := hex.DecodeString(strings.ReplaceAll(h, " ", ""))
		if err != nil {
			r.t.Fatal(err)
		}
		got := make([]byte, len(b))
		if n, err := io.ReadFull(r.br, got); err != nil {
			r.t.Fatalf("got %x and %v, want %x", got[:n], err, b)
		}
		if string(got) != string(b) {
			r.t.Fatalf("got %x, want %x", got, b)
		}
	}
}

// wantEnd reads what comes until the connection is closed, and wants it to be
// the DISCONNECT (or CONNACK) with code in MQTT 5, and nothing in 3.1.1.
func (r *raw) wantEnd(code byte) {
	r.t.Helper()
	b, err := io.ReadAll(r.br)
	if err != nil && !stopped(err) {
		r.t.Fatalf("the connection stays open (%v), after %x", err, b)
	}
	if !r.v5 || code == 0 {
		if len(b) > 0 {
			r.t.Fatalf("got %x before the close, want nothing", b)
		}
		return
	}
	if string(b) != string([]byte{0xE0, 2, code, 0}) {
		r.t.Fatalf("got %x before the close, want DISCONNECT %02x", b, code)
	}
}

// ping shows that all sent before has been worked off, and what came of it.
func (r *raw) ping() {
	r.t.Helper()
	r.send([]byte{0xC0, 0})
	if head, body := r.packet(); head != 0xD0 {
		r.t.Fatalf("got packet %x %x, want PINGRESP", head, body)
	}
}

// message is a PUBLISH as it came out.
type message struct {
	topic, payload string
	qos            byte
	dup, retain    bool
	id             uint16
	props          []byte
}

// recv reads a PUBLISH.
func (r *raw) recv() message {
	r.t.Helper()
	head, b := r.packet()
	if head>>4 != 3 {
		r.t.Fatalf("got packet %x %x, want PUBLISH", head, b)
	}
	return r.parse(head, b)
}

func (r *raw) parse(head byte, b []byte) (m message) {
	m.qos, m.dup, m.retain = head>>1&3, head&8 != 0, head&1 != 0
	n := int(binary.BigEndian.Uint16(b))
	m.topic, b = string(b[2:2+n]), b[2+n:]
	if m.qos > 0 {
		m.id, b = binary.BigEndian.Uint16(b), b[2:]
	}
	if r.v5 {
		n, k := binary.Uvarint(b)
		m.props, b = b[k:k+int(n)], b[k+int(n):]
	}
	m.payload = string(b)
	return m
}

func (r *raw) ackFor(m message) {
	r.t.Helper()
	r.send([]byte{0x40, 2, byte(m.id >> 8), byte(m.id)})
}

// noDeadline lets a benchmark take its time.
var noDeadline time.Time
