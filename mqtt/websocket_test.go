package mqtt_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"millrace/mqtt"
)

// wsConn is the client side of a WebSocket, as a stream.
type wsConn struct {
	net.Conn
	br   *bufio.Reader
	left int
}

// switchProtocols asks for a WebSocket on c, with more header lines.
func switchProtocols(tb testing.TB, c net.Conn, more string) *wsConn {
	tb.Helper()
	w := &wsConn{Conn: c, br: bufio.NewReader(c)}
	res := ask(tb, w, "GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n"+more)
	if res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Protocol") != "mqtt" ||
		res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		tb.Fatalf("the answer is %v", res)
	}
	return w
}

// ask sends the request of RFC 6455 section 1.3.
func ask(tb testing.TB, w *wsConn, method, path, more string) *http.Response {
	tb.Helper()
	_, err := fmt.Fprintf(w.Conn, "%s %s HTTP/1.1\r\nHost: broker.example:8080\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", method, path, more)
	if err != nil {
		tb.Fatal(err)
	}
	res, err := http.ReadResponse(w.br, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

var testMask = [4]byte{0x12, 0x34, 0x56, 0x78}

// frame builds a masked frame; first is its first byte.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, testMask[:]...)
	for i, x := range payload {
		b = append(b, x^testMask[i&3])
	}
	return b
}

func (w *wsConn) Write(p []byte) (int, error) {
	_, err := w.Conn.Write(frame(0x82, p))
	return len(p), err
}

// header reads the header of the server's next frame.
func (w *wsConn) header() (op byte, n int, err error) {
	var h [2]byte
	if _, err := io.ReadFull(w.br, h[:]); err != nil {
		return 0, 0, err
	}
	n = int(h[1])
	size := map[int]int{126: 2, 127: 8}[n]
	if size > 0 {
		var b [8]byte
		if _, err := io.ReadFull(w.br, b[8-size:]); err != nil {
			return 0, 0, err
		}
		n = int(binary.BigEndian.Uint64(b[:]))
	}
	return h[0], n, nil
}

func (w *wsConn) Read(p []byte) (int, error) {
	for w.left == 0 {
		op, n, err := w.header()
		if err != nil {
			return 0, err
		}
		if w.left = n; op != 0x82 {
			if _, err := w.br.Discard(n); err != nil {
				return 0, err
			}
			w.left = 0
		}
	}
	n, err := w.br.Read(p[:min(len(p), w.left)])
	w.left -= n
	return n, err
}

// wantClose reads up to a close frame with the code, and the end.
func (w *wsConn) wantClose(tb testing.TB, code uint16) {
	tb.Helper()
	for {
		op, n, err := w.header()
		if err != nil {
			tb.Fatalf("no close frame: %v", err)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(w.br, b); err != nil {
			tb.Fatal(err)
		}
		if op == 0x88 {
			if got := binary.BigEndian.Uint16(b); got != code {
				tb.Errorf("closed with %d, want %d", got, code)
			}
			break
		}
	}
	if _, err := w.br.ReadByte(); !stopped(err) {
		tb.Errorf("after the close frame: %v", err)
	}
}

func openWS(t *testing.T, change ...func(*mqtt.Options)) (p *places, dial func() *wsConn) {
	t.Helper()
	p = openPlaces(t, change...)
	return p, func() *wsConn { return p.dial(t, "ws").Conn.(*wsConn) }
}

func TestBadFramesAreRefused(t *testing.T) { // X161, X163, X164, X166, X167
	_, dial := openWS(t)
	for name, row := range map[string]struct {
		bytes string
		code  uint16
	}{
		"text":                    {hex.EncodeToString(frame(0x81, []byte("x"))), 1003},
		"unmasked":                {"8201 30", 1002},
		"2^63 bytes":              {"82FF 8000000000000000 00000000", 1009},
		"4 MiB and 65 KiB":        {"82FF 0000000000410400 00000000", 1009},
		"ping of 126":             {"89FE 007E 00000000", 1002},
		"fragmented ping":         {"0980 00000000", 1002},
		"RSV1":                    {"C280 00000000", 1002},
		"opcode 3":                {"8380 00000000", 1002},
		"opcode 11":               {"8B80 00000000", 1002},
		"continuation of nothing": {"8080 00000000", 1002},
		"two beginnings":          {"0280 00000000 8280 00000000", 1002},
		"close code 1005":         {hex.EncodeToString(frame(0x88, []byte{0x03, 0xED})), 1002},
		"close of one byte":       {hex.EncodeToString(frame(0x88, []byte{0x03})), 1002},
		"close":                   {hex.EncodeToString(frame(0x88, []byte{0x03, 0xE9})), 1001},
		"close without code":      {"8880 00000000", 1000},
	} {
		for _, loggedIn := range []bool{false, true} {
			t.Run(fmt.Sprint(name, loggedIn), func(t *testing.T) {
				w := dial()
				if loggedIn {
					_, _ = w.Write(connectPacket(false, "", nil))
				}
				b, err := hex.DecodeString(strings.ReplaceAll(row.bytes, " ", ""))
				if err != nil {
					t.Fatal(err)
				}
				_, _ = w.Conn.Write(b)
				w.wantClose(t, row.code)
			})
		}
	}
}

func TestFragmentsOfOneMessageAreBounded(t *testing.T) { // X164
	_, dial := openWS(t, func(o *mqtt.Options) { o.MaxPacket, o.MaxPayload = 32<<10, 16<<10 })
	w := dial()
	b := frame(0x82, connectPacket(false, "", nil))
	first := byte(0x02)
	for range 17 { // of 2 KiB each
		b = append(b, frame(first, bytes.Repeat([]byte{0xC0, 0}, 1<<10))...)
		first = 0x00
	}
	_, _ = w.Conn.Write(b)
	w.wantClose(t, 1009)
	w = dial()
	_, _ = w.Conn.Write(frame(0x82, connectPacket(false, "", nil)))
	_, _ = w.Conn.Write(append([]byte{0x82, 0xFE, 0x80, 0x01}, testMask[:]...)) // 32 KiB and 1
	w.wantClose(t, 1009)
}

func TestFramesNeedNotBePackets(t *testing.T) { // X168, X169
	_, dial := openWS(t)
	w := dial()
	r := &raw{Conn: w, t: t, br: bufio.NewReader(w)}
	hello := connectPacket(false, "c", nil)
	var b []byte
	for i := range hello { // each byte a fragment, with a ping between two
		first := byte(0)
		if i == 0 {
			first = 2
		}
		if i == len(hello)-1 {
			first |= 0x80
		}
		b = append(b, frame(first, hello[i:i+1])...)
		if i == 3 {
			b = append(b, frame(0x89, []byte("are you there"))...)
		}
	}
	_, _ = w.Conn.Write(b)
	op, n, err := w.header()
	pong := make([]byte, n)
	if _, err2 := io.ReadFull(w.br, pong); err != nil || err2 != nil || op != 0x8A || string(pong) != "are you there" {
		t.Fatalf("the answer to a ping is %x %q, %v %v", op, pong, err, err2)
	}
	r.want("20 02 00 00")
	r.send([]byte{0xC0, 0, 0xC0, 0, 0xC0}) // two packets and a half
	r.want("D0 00")
	r.want("D0 00")
	r.send([]byte{0})
	r.want("D0 00")
	r.send([]byte{0xC0})
	_, _ = w.Conn.Write(frame(0x8A, []byte("a pong that nobody asked for")))
	_, _ = w.Conn.Write(frame(0x82, nil))
	r.send([]byte{0})
	r.want("D0 00")
}

func TestRequestsForWebSocket(t *testing.T) { // X162
	p := openPlaces(t)
	for _, row := range []struct {
		method, path, more string
		want               int
	}{
		{"GET", "/", "Sec-WebSocket-Protocol: mqtt\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqttv3.1\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: chat, mqtt\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: chat\r\n", 400},
		{"GET", "/mqtt", "", 400},
		{"GET", "/elsewhere", "Sec-WebSocket-Protocol: mqtt\r\n", 404},
		{"POST", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n", 405},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nOrigin: http://broker.example:8080\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nOrigin: http://evil.example\r\n", 403},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nOrigin: null\r\n", 403},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://panel.example\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", 101},
		{"GET", "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nX: " + strings.Repeat("x", 17<<10) + "\r\n", 0},
	} {
		c, err := net.Dial("tcp", p.listen["ws"].String())
		if err != nil {
			t.Fatal(err)
		}
		w := &wsConn{Conn: c, br: bufio.NewReader(c)}
		if row.want == 0 {
			_, _ = fmt.Fprintf(c, "GET /mqtt HTTP/1.1\r\n%s\r\n", row.more)
			if _, err := w.br.ReadByte(); !stopped(err) {
				t.Errorf("a header of 17 KiB: %v", err)
			}
			_ = c.Close()
			continue
		}
		res := ask(t, w, row.method, row.path, row.more)
		if res.StatusCode != row.want || res.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("%s %s %s: %v", row.method, row.path, row.more, res)
		}
		_ = c.Close()
	}
}

func TestOldWebSocketVersionsAreTold(t *testing.T) {
	p := openPlaces(t)
	for _, kind := range []string{"ws", "http"} {
		c, err := net.Dial("tcp", p.listen[kind].String())
		if err != nil {
			t.Fatal(err)
		}
		w := &wsConn{Conn: c, br: bufio.NewReader(c)}
		_, _ = io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n\r\n")
		res, err := http.ReadResponse(w.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 426 || res.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%s: %v", kind, res)
		}
		_ = c.Close()
	}
}

// TestTheClientAnswersOurCloseFrame: its socket is there for that, also after
// a DISCONNECT of its own, RFC 6455 section 7.1.1.
func TestTheClientAnswersOurCloseFrame(t *testing.T) {
	_, dial := openWS(t)
	w := dial()
	r := &raw{Conn: w, t: t, br: bufio.NewReader(w)}
	r.begin(connectPacket(false, "c", nil))
	r.send([]byte{0xE0, 0})
	w.wantClose(t, 1000)
	for range 3 { // the first write to a closed socket succeeds
		if _, err := w.Conn.Write(frame(0x88, []byte{0x03, 0xE8})); err != nil {
			t.Fatal(err)
		}
	}
}
