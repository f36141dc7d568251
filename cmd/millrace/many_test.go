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

// connectionsWanted is how many connections TestManyConnections opens on each
// transport: few in every run, 10,000 by the variable. Each takes a file here
// and one in the server.
func connectionsWanted(t *testing.T) int {
	text := os.Getenv("MILLRACE_CONNECTIONS")
	if text == "" {
		return 300
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("MILLRACE_CONNECTIONS is %q, no number", text)
	}
	return n
}

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
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
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

// TestManyConnections has each connection subscribe, lie idle, get a message of
// its own, and answer at the end. It logs what one costs the server.
func TestManyConnections(t *testing.T) {
	n := connectionsWanted(t)
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
				_, _ = c.Write(wire.AppendConnect(nil, wire.Login{ClientID: id})) // an error shows in what is read
				packetOf(t, c, wire.Connack)
				return c
			}
			pub := connect("pub")
			before := s.resident()
			all := make([]net.Conn, n)
			for i := range all {
				all[i] = connect(fmt.Sprint("c", i))
				_, _ = all[i].Write(wire.AppendSubscribe(nil, 1, fmt.Sprint("own/", i), 0))
				packetOf(t, all[i], wire.Suback)
			}
			t.Logf("%d bytes each, garbage included", (s.resident()-before)/n)
			for i := range all {
				_, _ = pub.Write(wire.AppendPublish(nil, fmt.Sprint("own/", i), 0, 0, []byte("hello")))
			}
			for i, c := range all {
				p := packetOf(t, c, wire.Publish)
				if topic, _, payload, err := p.Message(); topic != fmt.Sprint("own/", i) || string(payload) != "hello" || err != nil {
					t.Fatalf("connection %d got %s %s, %v", i, topic, payload, err)
				}
				_ = c.Close()
			}
		})
	}
}
