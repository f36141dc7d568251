package main_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"millrace/cmd/millrace/certs/certstest"
	"millrace/cmd/millrace/wire"
)

// wsStream is the client side of a WebSocket, as a stream.
type wsStream struct {
	net.Conn
	ws   *websocket.Conn
	rest []byte
}

func (s *wsStream) Write(p []byte) (int, error) {
	return len(p), s.ws.WriteMessage(websocket.BinaryMessage, p)
}

func (s *wsStream) Read(p []byte) (n int, err error) {
	for len(s.rest) == 0 {
		if _, s.rest, err = s.ws.ReadMessage(); err != nil {
			return 0, err
		}
	}
	n = copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func openStream(t *testing.T, s *server, kind string, conf *tls.Config) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	switch kind {
	case "mqtt-tls":
		c, err = tls.Dial("tcp", s.ports[kind], conf)
	case "mqtt-ws", "mqtt-wss":
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: conf, ReadBufferSize: 256, WriteBufferSize: 256}
		ws, _, dialErr := d.Dial(strings.Replace(kind, "mqtt-", "", 1)+"://"+s.ports[kind]+"/mqtt", nil)
		if dialErr != nil {
			t.Fatal(dialErr)
		}
		c = &wsStream{Conn: ws.NetConn(), ws: ws}
	default:
		c, err = net.Dial("tcp", s.ports[kind])
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Hour))
	return c
}

// packetOf reads one packet of the type; small, and alone.
func packetOf(t *testing.T, c net.Conn, kind byte) wire.Packet {
	t.Helper()
	var b []byte
	for one := make([]byte, 1); ; {
		if _, err := c.Read(one); err != nil {
			t.Fatalf("waiting for packet %d: %v", kind, err)
		}
		b = append(b, one[0])
		p, n, err := wire.Next(b)
		if err != nil || n > 0 && p.Type != kind {
			t.Fatalf("got %x, %v, want packet %d", b, err, kind)
		}
		if n > 0 {
			return p
		}
	}
}

// resident is the memory of the server's process.
func (s *server) resident() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize()
}

// most is what one connection may take of the server's memory, garbage included,
// where there are a thousand or more.
var most = map[string]int{"mqtt": 24 << 10, "mqtt-ws": 24 << 10, "mqtt-tls": 48 << 10, "mqtt-wss": 48 << 10}

// TestManyConnections holds connections on each transport, of which every second
// one subscribes: to a topic of its own and to one of all. They ping, lie idle,
// and get what is published. It logs what one costs the server.
func TestManyConnections(t *testing.T) {
	n := int(fromEnv(t, "MILLRACE_CONNECTIONS", 300))
	wantFiles(t, n)
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	ca.Issue(t, certstest.Server("127.0.0.1")).Write(t, dir, "server")
	conf := &tls.Config{RootCAs: ca.Pool()}
	for _, kind := range []string{"mqtt", "mqtt-tls", "mqtt-ws", "mqtt-wss"} {
		t.Run(kind, func(t *testing.T) {
			s := startServer(t, "--dev", "--mqtt-tls-listen", "127.0.0.1:0", "--mqtt-ws-listen", "127.0.0.1:0", "--mqtt-wss-listen", "127.0.0.1:0",
				"--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", filepath.Join(dir, "server.key"))
			connect := func(id string) net.Conn {
				c := openStream(t, s, kind, conf)
				_, _ = c.Write(wire.AppendConnect(nil, wire.Login{ClientID: id, KeepAlive: 600})) // an error shows in what is read
				packetOf(t, c, wire.Connack)
				return c
			}
			pub := connect("pub")
			before, start := s.resident(), time.Now()
			all := make([]net.Conn, n)
			for i := range all {
				all[i] = connect(fmt.Sprint("c", i))
				if i%2 == 0 {
					subscribe(t, all[i], fmt.Sprint("own/", i))
					subscribe(t, all[i], "all")
				}
			}
			came := time.Since(start)
			for _, c := range all {
				_, _ = c.Write(wire.AppendPing(nil))
			}
			for _, c := range all {
				packetOf(t, c, wire.Pingresp)
			}
			each := (s.resident() - before) / n
			t.Logf("%d connections in %s, %d bytes each", n, came.Round(time.Millisecond), each)
			if n >= 1000 && each > most[kind] {
				t.Errorf("a connection takes %d bytes, want %d at most", each, most[kind])
			}
			_, _ = pub.Write(wire.AppendPublish(nil, "all", 0, 0, []byte("hello")))
			for i := 0; i < n; i += 2 {
				_, _ = pub.Write(wire.AppendPublish(nil, fmt.Sprint("own/", i), 0, 0, []byte("you")))
			}
			for i, c := range all {
				if i%2 == 0 {
					wantMessage(t, c, "all", "hello")
					wantMessage(t, c, fmt.Sprint("own/", i), "you")
				}
				_, _ = c.Write(wire.AppendPing(nil)) // and it gets nothing else
				packetOf(t, c, wire.Pingresp)
				_ = c.Close()
			}
		})
	}
}

// wantFiles skips the test where so many connections cannot be opened.
func wantFiles(t *testing.T, n int) {
	t.Helper()
	if files := openFiles(); files < uint64(n+200) {
		t.Skipf("%d files may be open, which is too few for %d connections: raise the limit with ulimit -n", files, n)
	}
}

func subscribe(t *testing.T, c net.Conn, filter string) {
	t.Helper()
	_, _ = c.Write(wire.AppendSubscribe(nil, 1, filter, 0))
	packetOf(t, c, wire.Suback)
}

func wantMessage(t *testing.T, c net.Conn, wantTopic, wantPayload string) {
	t.Helper()
	p := packetOf(t, c, wire.Publish)
	if topic, _, payload, err := p.Message(); topic != wantTopic || string(payload) != wantPayload || err != nil {
		t.Fatalf("got %s %s, %v, want %s %s", topic, payload, err, wantTopic, wantPayload)
	}
}
