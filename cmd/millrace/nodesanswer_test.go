package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	natsserver "github.com/nats-io/nats-server/v2/server"

	"millrace/cmd/millrace/wire"
	"millrace/persistence/jetstream/jetstreamtest"
)

// errand is a request to a node, and what the answer says when there is no store.
type errand struct{ listener, method, path, body, says string }

// doorsOfNodes are publishes to what queue e takes, or to what makeForDoors made, through
// each door of a node, and requests that take a message, read or define.
var doorsOfNodes = []errand{
	{"http", http.MethodPost, "/api/v1/topics/e/x/messages", `{"payload":"x"}`, `"outcome":"rejected"`},
	{"http", http.MethodPost, "/api/v5/publish", `{"topic":"e/x","qos":1,"payload":"x"}`, `"reason_code":`},
	{"http", http.MethodPost, "/v1/queue/e", `{"Action":"SendMessage","MessageBody":"x"}`, `nothing was stored`},
	{"memfifo", http.MethodPost, "/queues/m/messages", `x`, `{"error":"`},
	{"memfifo", http.MethodGet, "/queues/m/messages", ``, `{"error":"`},
	{"memfifo", http.MethodGet, "/queues/m", ``, `{"error":"`},
	{"memfifo", http.MethodPatch, "/queues/m", `{"attributes":{"max-bytes":1000000}}`, `{"error":"`},
	{"http", http.MethodPost, pulsarDoor, `{"messages":[{"value":"x"}]}`, `{"error_code":50301,`},
	{"http", http.MethodGet, pulsarDoor + "/partitions/0/messages?position=earliest&timeout=0", ``, `{"error_code":50301,`},
	{"http", http.MethodGet, pulsarDoor + "/subscription/s/cursor", ``, `{"error_code":50301,`},
	{"http", http.MethodPost, pulsarDoor + "/subscription/s/cursor", `{"type":"earliest"}`, `{"error_code":50301,`},
}

const pulsarDoor = "/topics/public/default/p"

// makeForDoors makes what doorsOfNodes ask for.
func makeForDoors(s *server) {
	s.t.Helper()
	for _, q := range []errand{
		{"memfifo", http.MethodPost, "/queues", `{"name":"m","driver":"logfifo"}`, ``},
		{"http", http.MethodPost, pulsarDoor, `{"messages":[{"value":"first"}]}`, ``},
		{"http", http.MethodPost, pulsarDoor + "/subscription/s", `{"position":"earliest"}`, ``},
	} {
		if status, _, text := q.ask(s); status/100 != 2 {
			s.t.Fatalf("%s: %d %s", q.path, status, text)
		}
	}
}

// ask sends the request, and waits for the answer for much longer than one takes.
func (q *errand) ask(s *server) (status int, retry, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, q.method, "http://"+s.ports[q.listener]+q.path, strings.NewReader(q.body))
	if err != nil {
		s.t.Error(err)
		return 0, "", ""
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Client-Id", "test")
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Error(err)
		return 0, "", ""
	}
	defer func() { _ = w.Body.Close() }()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		s.t.Errorf("%s %s: %v", q.method, q.path, err)
	}
	return w.StatusCode, w.Header.Get("Retry-After"), string(body)
}

// askAt asks at each door at once, and gives check the answers.
func askAt(s *server, check func(q errand, status int, retry, text string)) {
	s.t.Helper()
	var wg sync.WaitGroup
	for _, q := range doorsOfNodes {
		wg.Go(func() {
			status, retry, text := q.ask(s)
			check(q, status, retry, text)
		})
	}
	wg.Wait()
}

// five connects an MQTT 5 client, and gives the reason of its CONNACK; ended gets that
// of a DISCONNECT of the server.
func five(t *testing.T, s *server, id string, keep bool) (c *paho.Client, reason byte, ended chan byte) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.ports["mqtt"])
	if err != nil {
		t.Error(err)
		return nil, 0, nil
	}
	ended = make(chan byte, 1)
	c = paho.NewClient(paho.ClientConfig{
		ClientID: id, Conn: packets.NewThreadSafeConn(conn), PacketTimeout: time.Minute,
		OnServerDisconnect: func(p *paho.Disconnect) { ended <- p.ReasonCode },
	})
	p := &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 60, Username: testKeyID, UsernameFlag: true, Password: []byte(testSecret), PasswordFlag: true}
	if keep {
		expiry := uint32(3600)
		p.Properties = &paho.ConnectProperties{SessionExpiryInterval: &expiry}
	}
	ack, err := c.Connect(t.Context(), p)
	if ack == nil {
		t.Errorf("%s: no CONNACK: %v", id, err)
		return nil, 0, nil
	}
	t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) })
	return c, ack.ReasonCode, ended
}

// pubackOf is the reason of the PUBACK of a publish.
func pubackOf(t *testing.T, c *paho.Client, topic string, payload []byte) byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: payload})
	if r == nil {
		t.Errorf("publish to %s: no PUBACK: %v", topic, err)
		return 0
	}
	return r.ReasonCode
}

// TestWhatNodesAnswerWhileNATSIsSlowOrAway: while it is slow they wait, and while it is
// away every door of both nodes says that nothing was done, and when to try again.
func TestWhatNodesAnswerWhileNATSIsSlowOrAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	f := startNodes(t, "a", "b")
	makeForDoors(f.at("a"))
	taken := func(q errand, status int, _, text string) {
		if status/100 != 2 {
			t.Errorf("%s %s: %d %s", q.method, q.path, status, text)
		}
	}
	for _, w := range f.ways {
		w.Stall()
	}
	var wg sync.WaitGroup
	for _, name := range f.names {
		wg.Go(func() { askAt(f.at(name), taken) })
	}
	<-time.After(time.Second) // slower than anything is here, and less than a node is given up for
	for _, w := range f.ways {
		w.Mend()
	}
	wg.Wait()

	type guest struct {
		s           *server
		clean, kept *paho.Client
		cleanEnded  chan byte
		keptEnded   chan byte
	}
	var guests []guest
	for _, name := range f.names {
		g := guest{s: f.at(name)}
		g.clean, _, g.cleanEnded = five(t, g.s, "clean-"+name, false)
		g.kept, _, g.keptEnded = five(t, g.s, "kept-"+name, true)
		guests = append(guests, g)
	}
	for _, w := range f.ways {
		w.Cut()
	}
	for _, g := range guests { // what is sent before a node knows may have an unknown outcome
		if !eventually(time.Minute, func() bool {
			code, _ := g.s.view(t, http.MethodGet, "/readyz", "")
			return code == http.StatusServiceUnavailable
		}) {
			t.Error("a node without NATS is ready")
		}
	}
	for _, g := range guests {
		wg.Go(func() {
			askAt(g.s, func(q errand, status int, retry, text string) {
				if status != http.StatusServiceUnavailable || retry == "" || !strings.Contains(text, q.says) {
					t.Errorf("%s %s without NATS: %d, Retry-After %q: %s", q.method, q.path, status, retry, text)
				}
			})
		})
		wg.Go(func() {
			if code := pubackOf(t, g.clean, "e/x", []byte("x")); code != 0x83 {
				t.Errorf("PUBACK without NATS is 0x%02x", code)
			}
		})
		wg.Go(func() {
			select {
			case code := <-g.keptEnded:
				if code != 0x89 {
					t.Errorf("the connection of a durable session ends with 0x%02x", code)
				}
			case <-time.After(time.Minute):
				t.Error("the connection of a durable session stays")
			}
		})
	}
	wg.Wait()
	for _, g := range guests {
		if _, code, _ := five(t, g.s, "new", true); code != 0x88 {
			t.Errorf("CONNACK without NATS is 0x%02x", code)
		}
		var refused *wire.RefusedError
		if _, err := wire.Dial(t.Context(), g.s.ports["mqtt"], wire.Login{ClientID: "old", User: testKeyID, Password: testSecret}); !errors.As(err, &refused) || refused.Code != 3 {
			t.Errorf("CONNACK of 3.1.1 without NATS: %v", err)
		}
		select {
		case code := <-g.cleanEnded:
			t.Errorf("the connection of a clean session ended with 0x%02x", code)
		default:
		}
	}
	for _, w := range f.ways {
		w.Mend()
	}
	for _, g := range guests {
		if !eventually(time.Minute, func() bool { code, _ := g.s.view(t, http.MethodGet, "/readyz", ""); return code == http.StatusOK }) {
			t.Error("a node is not ready again")
		}
		askAt(g.s, taken)
		if code := pubackOf(t, g.clean, "e/x", []byte("x")); code >= 0x80 {
			t.Errorf("PUBACK afterwards is 0x%02x", code)
		}
	}
}

// TestWhatNodesAnswerWhileNATSIsFull: nothing more is taken at either node, and what is
// there is consumed.
func TestWhatNodesAnswerWhileNATSIsFull(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *natsserver.Options) { o.JetStreamMaxStore = 16 << 20 }})
	f := startNodesOver(t, func() jetstreamtest.Way { return jetstreamtest.NewWay(t, c.Servers[0].Addr().String()) }, "a", "b")
	large := strings.Repeat("x", 64<<10)
	for _, name := range f.names {
		s := f.at(name)
		var err error
		for n := 0; err == nil && n < 1000; n++ { // the servers may find some room
			err = newService(s).publish(t.Context(), "e/x", large)
		}
		if err == nil || !strings.Contains(err.Error(), "507") || !strings.Contains(err.Error(), "STORAGE_FULL") {
			t.Fatalf("node %s: a publish into a full NATS: %v", name, err)
		}
		v, _, _ := five(t, s, fmt.Sprint("full-", name), false)
		code := byte(0)
		for n := 0; code < 0x80 && n < 1000; n++ {
			code = pubackOf(t, v, "e/x", []byte(large))
		}
		if code != 0x97 {
			t.Errorf("node %s: PUBACK is 0x%02x", name, code)
		}
		hs, err := newService(s).consume(t.Context(), "e", 10, 5, 30)
		if err != nil || len(hs) == 0 {
			t.Fatalf("node %s: %v, %v", name, hs, err)
		}
		if err := newService(s).ack(t.Context(), "e", hs[0]); err != nil {
			t.Errorf("node %s: ack: %v", name, err)
		}
	}
}
