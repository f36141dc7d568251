package mqtt

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"millrace/broker"
)

// maxEvents is how many events may wait to be published.
const maxEvents = 16_384

// What was told of a connection, so that its end is told once, and after its
// beginning.
const (
	tellNothing uint32 = iota
	tellConnected
	tellEnded
)

// Event is the payload of a message below $events/client/ID/, in JSON.
type Event struct {
	Event    string `json:"event"` // connected, disconnected, denied, takeover
	ClientID string `json:"client_id"`
	// User is the principal: user:NAME, key:ID or anonymous; "" when denied.
	User      string `json:"user,omitempty"`
	Address   string `json:"address"`
	Protocol  string `json:"protocol"`  // MQTT 5, MQTT 3.1.1, MQTT 3.1
	Transport string `json:"transport"` // tcp, tls, ws, wss, unix
	// Reason is one of the reasons that the counters have, for disconnected and
	// denied; Code is that of MQTT 5, and Text is for people.
	Reason string `json:"reason,omitempty"`
	Code   byte   `json:"reason_code"`
	Text   string `json:"text,omitempty"`
	// Other is the address of the connection whose place was taken, and Rivals
	// says that this has happened again and again.
	Other  string `json:"other_address,omitempty"`
	Rivals bool   `json:"rivals,omitempty"`
	// SessionPresent says that the client came back to its session.
	SessionPresent bool `json:"session_present,omitempty"`
	// Sequence grows by one with each event, and is larger after a restart.
	Sequence int64  `json:"sequence"`
	Time     string `json:"time"` // RFC 3339, UTC
}

// events publishes what happens to clients, in order, without holding anybody
// up: what cannot be published in time is dropped and counted.
type events struct {
	s    *Server
	wake chan struct{}
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	waiting  []*Event
	sequence int64
	stopped  bool
}

func (es *events) start(s *Server) {
	es.s, es.wake, es.stop = s, make(chan struct{}, 1), make(chan struct{})
	es.sequence = time.Now().UnixMilli() * 1000 // below 2^53, and above that of the process before
	es.done.Go(es.run)
}

// close publishes what waits, and ends.
func (es *events) close() {
	es.mu.Lock()
	again := es.stopped
	es.stopped = true
	es.mu.Unlock()
	if !again && es.stop != nil {
		close(es.stop)
	}
	es.done.Wait()
}

func (es *events) run() {
	a := es.s.o.Broker.NewAnnouncer(func(err error) {
		es.s.stats.drop(dropEvent)
		es.s.log.Warn().Err(err).Msg("event was not stored")
	})
	for last := false; !last; {
		select {
		case <-es.wake:
		case <-es.stop:
			last = true
		}
		es.mu.Lock()
		waiting := es.waiting
		es.waiting = nil
		es.mu.Unlock()
		for _, e := range waiting {
			topic := eventTopic(e.ClientID, e.Event)
			if !a.Heard(topic) {
				continue
			}
			payload, _ := json.Marshal(e) // plain fields: cannot fail
			a.Announce(&broker.Message{Topic: topic, Payload: payload, QoS: 1, ContentType: "application/json", UTF8: true})
		}
		a.Flush()
	}
}

// emit puts e in line.
func (es *events) emit(c *conn, e *Event) {
	if es.s.o.NoEvents {
		return
	}
	now := time.Now()
	e.ClientID, e.Address, e.Protocol, e.Transport = c.hello.id, c.remote, c.hello.protocol(), c.via.name()
	if c.host == "" {
		e.Transport = "unix"
	}
	if c.who != nil {
		e.User = c.who.String()
	}
	e.Time = now.UTC().Format("2006-01-02T15:04:05.000Z")
	es.mu.Lock()
	defer es.mu.Unlock()
	if es.stopped || len(es.waiting) >= maxEvents {
		es.s.stats.drop(dropEvent)
		return
	}
	es.sequence++
	e.Sequence = es.sequence
	es.waiting = append(es.waiting, e)
	select {
	case es.wake <- struct{}{}:
	default:
	}
}

// eventTopic names an event. What a topic level may not have is percent-encoded
// in the client id.
func eventTopic(id, event string) string {
	return "$events/client/" + escapeLevel.Replace(id) + "/" + event
}

var escapeLevel = strings.NewReplacer("%", "%25", "/", "%2F", "+", "%2B", "#", "%23")

// connected tells of a client after its CONNACK.
func (es *events) connected(c *conn) {
	if c.told.CompareAndSwap(tellNothing, tellConnected) {
		es.emit(c, &Event{Event: "connected", SessionPresent: c.present})
	}
}

// ended tells of the end of a connection: of a login that was refused, or of a
// client that was connected. f is nil if the client left.
func (es *events) ended(c *conn, f *faultError) {
	if c.hello.id == "" || c.told.Swap(tellEnded) == tellEnded {
		return // it said nothing that could be told, or its end was told
	}
	e := &Event{Event: "disconnected", Reason: "lost"}
	switch {
	case f != nil:
		e.Reason, e.Code, e.Text = closeNames[f.why], byte(f.code), f.text
	case c.said:
		e.Reason = closeNames[closeClient]
	}
	if !c.greeted {
		e.Event = "denied"
	}
	es.emit(c, e)
}

// takenOver tells that c takes the place of old, and that old has ended.
func (es *events) takenOver(c, old *conn, rivals bool) {
	es.emit(c, &Event{Event: "takeover", Other: old.remote, Rivals: rivals})
	if old.told.Swap(tellEnded) == tellConnected {
		es.emit(old, &Event{Event: "disconnected", Reason: closeNames[closeTakenOver], Code: byte(takenOver)})
	}
}

// protocol is the version's name.
func (c *connect) protocol() string {
	switch {
	case c.v5:
		return "MQTT 5"
	case c.v31:
		return "MQTT 3.1"
	default:
		return "MQTT 3.1.1"
	}
}

// name is how the transport is called in addresses.
func (v *transport) name() string {
	switch {
	case v.ws != nil && v.tls != nil:
		return "wss"
	case v.ws != nil:
		return "ws"
	case v.tls != nil:
		return "tls"
	default:
		return "tcp"
	}
}
