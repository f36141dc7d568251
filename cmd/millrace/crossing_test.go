package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// goods are what a message is made of, as far as a door has words for it.
type goods struct {
	payload    []byte
	kind       string            // content type; "" = the door does not say
	properties map[string]string // nil = the door has none
	id         string            // a ULID, or Pulsar's; "" = the door does not say
}

// crossing is a running broker between producers and consumers of all doors.
type crossing struct {
	t *testing.T
	s *server
}

// A producer sends to the topic mx/1, or straight to the queue that the topic
// feeds. It returns what a consumer can expect of it, and false for what it has
// no words for.
type producer struct {
	name   string
	direct bool // to the queue: streams see nothing of it
	send   func(c *crossing, g goods) (goods, bool)
}

// A consumer takes the one message that is there.
type consumer struct {
	name string
	take func(c *crossing) goods
}

const (
	crossTopic = "mx/1"
	crossQueue = "crossing"
	crossPath  = "/topics/public/default/mx%2F1"
)

// producers and consumers are the rows and columns; a new dialect is a line.
var producers = []producer{
	{"flowmq", false, (*crossing).sendFlowMQ},
	{"pulsar", false, (*crossing).sendPulsar},
	{"mqtt", false, (*crossing).sendMQTT},
	{"emqx", false, (*crossing).sendEMQX},
	{"fastqueue", true, (*crossing).sendFastQueue},
	{"memfifo", true, (*crossing).sendMemfifo},
}

var queueConsumers = []consumer{
	{"flowmq", (*crossing).takeFlowMQ},
	{"fastqueue", (*crossing).takeFastQueue},
	{"memfifo", (*crossing).takeMemfifo},
	{"mqtt $queue", (*crossing).takeMQTT},
}

var streamConsumers = []consumer{
	{"flowmq read", (*crossing).readFlowMQ},
	{"flowmq subscription", (*crossing).subscribedFlowMQ},
	{"pulsar read", (*crossing).readPulsar},
	{"pulsar consumer", (*crossing).consumePulsar},
	{"mqtt $stream", (*crossing).followMQTT},
}

// cargo are messages that doors have stumbled over.
var cargo = map[string]goods{
	"text":    {[]byte("grüße ☃"), "text/plain", map[string]string{"a": "b", "ü": "\"quoted\""}, ""},
	"json":    {[]byte(`{"n": 1}`), "application/json", map[string]string{}, ""},
	"bytes":   {[]byte{0, 1, 0xff, 0xfe, '"', '\\', '\n', 0}, "image/x-odd; v=1", map[string]string{"k": ""}, ""},
	"nothing": {[]byte{}, "text/plain", map[string]string{}, ""},
	"large":   {bytes.Repeat([]byte("0123456789abcdef"), 1<<14), "application/octet-stream", map[string]string{}, ""},
}

func openCrossing(t *testing.T) *crossing {
	t.Helper()
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML), "--memfifo-listen", "127.0.0.1:0")
	c := &crossing{t, s}
	c.call("PUT", "http", "/admin/v2/persistent/public/default/mx%2F1/partitions", nil, "1")
	// Only queues of its own drivers are seen through memfifo's door.
	c.call("POST", "memfifo", "/queues", nil, `{"name":"crossing","driver":"logfifo","attributes":{"topic-filter":"mx/#"}}`)
	stream := "/api/v1/streams/public%2Fdefault%2Fmx%2F1/subscriptions"
	c.call("POST", "http", stream, nil, `{"name":"flow","position":"earliest"}`)
	c.call("POST", "http", crossPath+"/subscription/pulsar", nil, `{"position":"earliest"}`)
	return c
}

// call sends a request that must succeed.
func (c *crossing) call(method, port, path string, h http.Header, body string) (http.Header, []byte) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.s.ports[port]+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	maps.Copy(r.Header, h)
	r.Header.Set("Authorization", "Bearer "+testKey)
	r.Header.Set("Client-Id", "crossing")
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode/100 != 2 {
		c.t.Fatalf("%s %s: %d %s %v", method, path, w.StatusCode, text, err)
	}
	return w.Header, text
}

// ask is call with JSON both ways.
func ask[T any](c *crossing, method, path string, body any) (answer T) {
	c.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	_, got := c.call(method, "http", path, nil, string(text))
	if err := json.Unmarshal(got, &answer); err != nil {
		c.t.Fatalf("%s %s: %s", method, path, got)
	}
	return answer
}

// handOn is an MQTT session that hands on what it has acknowledged, as far as
// there is room.
type handOn struct {
	session.SessionManager
	got chan<- *paho.Publish
}

func (h handOn) Ack(p *packets.Publish) error {
	err := h.SessionManager.Ack(p)
	select {
	case h.got <- paho.PublishFromPacketPublish(p):
	default:
	}
	return err
}

// client is an MQTT 5 client that acknowledges what it gets, and hands it on.
// Without an id it is given one.
func (c *crossing) client(id string, got chan<- *paho.Publish) *paho.Client {
	c.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(c.t.Context(), "tcp", c.s.ports["mqtt"])
	if err != nil {
		c.t.Fatal(err)
	}
	kept := state.NewInMemory()
	m := paho.NewClient(paho.ClientConfig{Conn: conn, Session: handOn{kept, got}})
	login := &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 60, Username: testKeyID, UsernameFlag: true, Password: []byte(testSecret), PasswordFlag: true}
	if _, err := m.Connect(c.t.Context(), login); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = m.Disconnect(&paho.Disconnect{})
		_ = kept.Close()
	})
	return m
}

// subscribe subscribes to one filter with QoS 1.
func (c *crossing) subscribe(m *paho.Client, filter string) {
	c.t.Helper()
	if _, err := m.Subscribe(c.t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}}); err != nil {
		c.t.Fatal(err)
	}
}

// differs says in what a message that arrived is not what was sent. Doors may
// add properties of their own, and need not show all that there is.
func differs(sent, got goods, ulid bool) string {
	switch {
	case !bytes.Equal(sent.payload, got.payload):
		return fmt.Sprintf("payload %.80q, sent %.80q", got.payload, sent.payload)
	case got.kind != "" && sent.kind != got.kind:
		return fmt.Sprintf("content type %q, sent %q", got.kind, sent.kind)
	case ulid && sent.id != "" && got.id != sent.id:
		return fmt.Sprintf("id %s, the producer was told %s", got.id, sent.id)
	}
	for k, v := range sent.properties {
		if is, there := got.properties[k]; got.properties != nil && (!there || is != v) {
			return fmt.Sprintf("property %q is %q, sent %q", k, is, v)
		}
	}
	return ""
}

// TestEveryProducerReachesEveryConsumer sends through each door, and takes
// through each: bytes, content type, properties and ids arrive as the pages say.
func TestEveryProducerReachesEveryConsumer(t *testing.T) {
	c := openCrossing(t)
	cells := 0
	for _, p := range producers {
		for _, name := range slices.Sorted(maps.Keys(cargo)) {
			for _, q := range queueConsumers {
				sent, can := p.send(c, cargo[name])
				if !can {
					continue
				}
				cells++
				got := q.take(c)
				if p.name == "pulsar" { // whose ids are places in streams
					sent.id = ""
				}
				if text := differs(sent, got, true); text != "" {
					t.Errorf("%s from %s to %s: %s", name, p.name, q.name, text)
				}
				if p.direct {
					continue
				}
				for _, s := range streamConsumers {
					cells++
					pulsar := strings.HasPrefix(s.name, "pulsar")
					if text := differs(sent, pulsarIs(c, s, p, sent), !pulsar); text != "" {
						t.Errorf("%s from %s to %s: %s", name, p.name, s.name, text)
					}
				}
			}
		}
	}
	if want := len(producers) * len(cargo) * len(queueConsumers) * 2; cells < want {
		t.Errorf("only %d cells of more than %d were tried", cells, want)
	}
}

// pulsarIs takes through a stream's consumer. What Pulsar wrote as BYTES it also
// shows as base64.
func pulsarIs(c *crossing, s consumer, p producer, sent goods) goods {
	got := s.take(c)
	if p.name == "pulsar" && strings.HasPrefix(s.name, "pulsar") && sent.kind == "application/octet-stream" {
		got.payload = c.unbase64(string(got.payload))
	}
	return got
}

// TestConsumersOfAllDoorsNeverShareAMessage has all take from one queue at once.
func TestConsumersOfAllDoorsNeverShareAMessage(t *testing.T) {
	c := openCrossing(t)
	const n = 400
	var entries []any
	for i := range n {
		entries = append(entries, map[string]any{"payload": fmt.Sprint(i)})
	}
	ask[any](c, "POST", "/api/v1/topics/"+crossTopic+"/messages/batch", map[string]any{"messages": entries})
	var mu sync.Mutex
	seen := map[string][]string{}
	note := func(door, payload string) {
		mu.Lock()
		defer mu.Unlock()
		seen[payload] = append(seen[payload], door)
	}
	got := make(chan *paho.Publish, n)
	m := c.client("", got)
	var wait sync.WaitGroup
	c.subscribe(m, "$queue/"+crossQueue)
	for range 2 {
		wait.Go(func() {
			for {
				ms := ask[flowMessages](c, "POST", "/api/v1/queues/"+crossQueue+"/messages/consume", map[string]any{"max_messages": 3}).Data.Messages
				for _, m := range ms {
					note("flowmq", m.Payload)
				}
				if len(ms) == 0 {
					return
				}
			}
		})
		wait.Go(func() {
			for {
				ms := ask[struct{ Messages []fastMessage }](c, "POST", "/v1/queue/"+crossQueue, map[string]any{"Action": "ReceiveMessage", "MaxNumberOfMessages": 3}).Messages
				for _, m := range ms {
					note("fastqueue", m.Body)
				}
				if len(ms) == 0 {
					return
				}
			}
		})
		wait.Go(func() {
			for {
				h, body := c.call("GET", "memfifo", "/queues/"+crossQueue+"/messages", nil, "")
				if h.Get("Message-Id") == "" {
					return
				}
				note("memfifo", string(body))
			}
		})
	}
	wait.Wait()
	all := func() bool {
		for len(got) > 0 {
			note("mqtt", string((<-got).Payload))
		}
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == n
	}
	if !eventually(10*time.Second, all) {
		t.Errorf("%d messages of %d were seen", len(seen), n)
	}
	for payload, doors := range seen {
		if len(doors) != 1 {
			t.Errorf("message %s was given to %v", payload, doors)
		}
	}
}
