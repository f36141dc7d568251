package mqtt_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/mqtt"

	"pgregory.net/rapid"
)

// keptStep is one thing that happens to a session.
type keptStep struct {
	do string // publish, take, drop, connect, restart, tick
	n  int    // of messages
	// ack answers what is taken. Without it a message is in flight.
	ack    bool
	qos    byte
	window byte
}

// TestASessionIsWhatTheModelSays has a device with a durable session go through
// reconnects and restarts, and compares each packet with what an oracle allows.
func TestASessionIsWhatTheModelSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) keptStep {
			return keptStep{
				do:     rapid.SampledFrom([]string{"publish", "publish", "take", "take", "take", "take", "drop", "drop", "connect", "connect", "restart", "tick"}).Draw(rt, "do"),
				n:      rapid.IntRange(1, 12).Draw(rt, "n"),
				ack:    rapid.Bool().Draw(rt, "ack"),
				qos:    byte(rapid.IntRange(0, 2).Draw(rt, "qos")),
				window: byte(rapid.IntRange(1, 9).Draw(rt, "window")),
			}
		}), 1, 40).Draw(rt, "steps")
		granted := byte(rapid.IntRange(1, 2).Draw(rt, "granted"))
		var err error
		dir := ""
		if slices.ContainsFunc(steps, func(s keptStep) bool { return s.do == "restart" }) {
			dir = t.TempDir()
		}
		synctest.Test(t, func(t *testing.T) { err = runKept(t, dir, granted, steps) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// keptModel is the device, and what it must see.
type keptModel struct {
	t       *testing.T
	e       *edge
	c       *raw
	granted byte
	window  int

	sent int             // messages of QoS > 0 published, numbered from 0
	qos  []byte          // of each
	wire map[int]bool    // on this connection, without an answer
	next int             // first that never came
	open map[int]uint16  // came, and have no answer yet: id
	done map[int]bool    // answered, and the broker knows
	told map[int]bool    // answered, and it may not
	has  map[uint16]bool // QoS 2 ids whose PUBREL is still to come
}

func runKept(t *testing.T, dir string, granted byte, steps []keptStep) (err error) {
	m := &keptModel{t: t, granted: granted, open: map[int]uint16{}, done: map[int]bool{}, told: map[int]bool{}, has: map[uint16]bool{}}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if m.c != nil {
			_ = m.c.Close()
		}
		synctest.Wait()
		m.e.stop(t)
	}()
	m.e = openWith(t, dir, mqtt.Bare)
	m.connect(9)
	m.c.send(m.c.subscribePacket(1, granted, nil, "t"))
	m.c.packet()
	for _, s := range steps {
		m.step(s)
	}
	m.connect(9)
	for m.next < m.sent || len(m.open) > 0 || len(m.has) > 0 {
		if !m.take(true) {
			return fmt.Errorf("%d of %d came, %d have no answer, %d no PUBREL", m.next, m.sent, len(m.open), len(m.has))
		}
	}
	m.sync()
	return nil
}

// failing is a testing.TB whose failures are panics: a failure inside a bubble
// would end the process.
type failing struct{ *testing.T }

func (failing) Helper()                      {}
func (failing) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (failing) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
func (failing) Errorf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

func (m *keptModel) step(s keptStep) {
	switch s.do {
	case "publish":
		for range s.n {
			msg := &broker.Message{Topic: "t", QoS: s.qos, Payload: strconv.AppendInt(nil, int64(m.sent), 10)}
			if s.qos == 0 {
				msg.Payload = []byte("zero")
			} else {
				m.sent++
				m.qos = append(m.qos, min(s.qos, m.granted))
			}
			if _, err := m.e.broker.Publish(system(), msg); err != nil {
				panic(err)
			}
		}
	case "take":
		for i := 0; i < s.n && m.take(s.ack); i++ {
		}
	case "drop":
		m.drop()
	case "connect":
		m.connect(s.window)
	case "restart":
		m.drop()
		synctest.Wait()
		m.e.stop(m.t)
		m.e = openWith(m.t, m.dir(), mqtt.Bare)
	case "tick":
		m.sync()
	}
}

func (m *keptModel) dir() string { return m.e.dir }

// connect takes the connection before over.
func (m *keptModel) connect(window byte) {
	c, s := net.Pipe()
	m.e.Serve(s)
	old := m.c
	m.c = newRaw(failing{m.t}, c)
	m.c.v5 = true
	m.window, m.wire = int(window), map[int]bool{}
	if old != nil {
		go drainRaw(old) // its DISCONNECT
	}
	m.c.begin(sessionPacket(true, "device", false, 3600, 33, 0, window))
	if old != nil {
		_ = old.Close()
	}
}

func (m *keptModel) drop() {
	if m.c != nil {
		_ = m.c.Close()
		m.c = nil
		synctest.Wait()
	}
}

// sync has the broker answer a ping, after which it knows what was said before.
func (m *keptModel) sync() {
	if m.c == nil {
		return
	}
	m.c.send([]byte{0xC0, 0})
	for {
		head, body := m.c.packet()
		if head == 0xD0 {
			break
		}
		m.packet(head, body, false)
	}
	for n := range m.told {
		m.done[n] = true
	}
	clear(m.told)
}

// take reads one packet, if one comes within a second.
func (m *keptModel) take(ack bool) bool {
	if m.c == nil {
		return false
	}
	_ = m.c.SetReadDeadline(time.Now().Add(time.Second))
	head, body, err := m.c.read()
	_ = m.c.SetReadDeadline(time.Time{})
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return m.answer(ack)
	}
	if err != nil {
		panic(err)
	}
	m.packet(head, body, ack)
	return true
}

// answer acknowledges the oldest that has no answer.
func (m *keptModel) answer(ack bool) bool {
	if !ack || len(m.open) == 0 {
		return false
	}
	first := -1
	for n := range m.open {
		if first < 0 || n < first {
			first = n
		}
	}
	m.ack(first)
	return true
}

func (m *keptModel) ack(n int) {
	id := m.open[n]
	delete(m.open, n)
	delete(m.wire, n)
	m.told[n] = true
	kind := byte(0x40)
	if m.qos[n] == 2 {
		kind = 0x50
		m.has[id] = true
	}
	m.c.send([]byte{kind, 2, byte(id >> 8), byte(id)})
}

// packet checks one packet against the oracle.
func (m *keptModel) packet(head byte, body []byte, ack bool) {
	if head == 0x62 {
		id := uint16(body[0])<<8 | uint16(body[1])
		delete(m.has, id)
		m.c.send([]byte{0x70, 2, body[0], body[1]})
		return
	}
	if head>>4 != 3 {
		panic(fmt.Sprintf("got packet %x %x", head, body))
	}
	p := m.c.parse(head, body)
	if p.payload == "zero" && p.qos == 0 {
		return
	}
	n, err := strconv.Atoi(p.payload)
	id, again := m.open[n]
	switch {
	case err != nil || n >= m.sent || p.qos != m.qos[n]:
		panic(fmt.Sprintf("got %+v, which was never published so", p))
	case m.done[n]:
		panic(fmt.Sprintf("%d was acknowledged and came again", n))
	case m.told[n]: // its acknowledgement was lost with the connection
		delete(m.told, n)
		delete(m.has, p.id)
	case again && (!p.dup || p.id != id):
		panic(fmt.Sprintf("%d came again as %+v, and was %d", n, p, id))
	case again:
	case n != m.next:
		panic(fmt.Sprintf("%d came before %d", n, m.next))
	default:
		m.next++
	}
	m.open[n] = p.id
	if m.wire[n] = true; len(m.wire) > m.window {
		panic(fmt.Sprintf("%d are in flight, over the window of %d", len(m.wire), m.window))
	}
	if ack {
		m.ack(n)
	}
}
