package mqtt_test

import (
	"fmt"
	"strings"
	"testing"

	"millrace/mqtt"
)

func TestOverlappingSubscriptionsDeliverOnce(t *testing.T) {
	e := open(t)
	s, r := login(t, e, true, ""), login(t, e, true, "")
	for i, f := range []struct {
		filter string
		qos    byte
	}{{"a/#", 0}, {"a/+", 2}, {"a/b", 1}} {
		s.send(s.subscribePacket(uint16(i+1), f.qos, []byte{0x0B, byte(i + 10)}, f.filter))
		s.suback()
	}
	r.publish("a/b", "x", 2, 1)
	m := s.recv()
	if m.qos != 2 {
		t.Errorf("QoS is %d, want the highest granted", m.qos)
	}
	for _, id := range []byte{10, 11, 12} {
		if !strings.Contains(string(m.props), string([]byte{0x0B, id})) {
			t.Errorf("properties %x miss subscription identifier %d", m.props, id)
		}
	}
	s.quiet()
	s.subscribe(9, 0, "a/b") // takes the place of the old one, and of its identifier
	r.publish("a/b", "y", 0, 0)
	if m := s.recv(); strings.Contains(string(m.props), "\x0b\x0c") {
		t.Errorf("properties %x hold an identifier that was replaced", m.props)
	}
}

func TestNoLocal(t *testing.T) {
	e := open(t)
	s := login(t, e, true, "me")
	s.subscribe(1, 0|4, "t")
	s.publish("t", "mine", 0, 0)
	other := login(t, e, true, "you")
	other.publish("t", "yours", 0, 0)
	if m := s.recv(); m.payload != "yours" {
		t.Errorf("got %+v", m)
	}
}

func TestTheWindowOfAClientThatNamesNone(t *testing.T) {
	for _, c := range []struct {
		v5 bool
		n  int
	}{{false, 256}, {true, 1024}} {
		e := open(t)
		s := login(t, e, c.v5, "")
		s.subscribe(1, 1, "t")
		r := login(t, e, true, "")
		go func() {
			for i := range uint16(1100) {
				if _, err := r.Write(r.publishPacket("t", fmt.Sprint(i), 1, i+1)); err != nil {
					return
				}
			}
		}()
		for i := range c.n {
			if m := s.recv(); m.payload != fmt.Sprint(i) {
				t.Fatalf("message %d is %+v", i, m)
			}
		}
		s.quiet()
	}
}

// TestWindowIsKept is B3, SB7: a client with Receive Maximum n gets everything,
// never more than n at a time.
func TestWindowIsKept(t *testing.T) {
	const messages = 1000
	for _, n := range []byte{1, 5, 7} {
		for _, qos := range []byte{1, 2} {
			e := open(t)
			s := dial(t, e)
			s.v5 = true
			s.send(connectPacket(true, "s", []byte{0x21, 0, n}))
			s.packet()
			s.subscribe(1, qos, "t")
			r := login(t, e, true, "")
			go func() {
				for i := range uint16(messages) {
					if _, err := r.Write(r.publishPacket("t", fmt.Sprint(i), qos, i+1)); err != nil {
						return
					}
				}
			}()
			next := 0
			for next < messages {
				var got []message
				for range min(int(n), messages-next) {
					m := s.recv()
					if m.payload != fmt.Sprint(next) || m.dup {
						t.Fatalf("message %d is %+v", next, m)
					}
					next++
					got = append(got, m)
				}
				s.quiet() // no more than n
				for _, m := range got {
					if qos == 1 {
						s.ackFor(m)
						continue
					}
					s.send([]byte{0x50, 2, byte(m.id >> 8), byte(m.id)})
					if head, _ := s.packet(); head != 0x62 {
						t.Fatalf("got %x, want PUBREL", head)
					}
				}
				if qos == 2 {
					s.quiet() // PUBREC alone makes no room
					for _, m := range got {
						s.send([]byte{0x70, 2, byte(m.id >> 8), byte(m.id)})
					}
				}
			}
			for range messages {
				r.packet()
			}
		}
	}
}

func TestRefusingPubrecMakesRoom(t *testing.T) {
	e := open(t)
	s := dial(t, e)
	s.v5 = true
	s.send(connectPacket(true, "s", []byte{0x21, 0, 1}))
	s.packet()
	s.subscribe(1, 2, "t")
	r := login(t, e, true, "")
	for i := range uint16(3) {
		r.publish("t", fmt.Sprint(i), 2, i+1)
	}
	for i := range 3 {
		m := s.recv()
		if m.payload != fmt.Sprint(i) {
			t.Fatalf("got %+v", m)
		}
		s.send([]byte{0x50, 3, byte(m.id >> 8), byte(m.id), 0x80})
	}
	s.send([]byte{0x50, 2, 0x12, 0x34}) // X108
	s.want("62 03 12 34 92")
}

func TestAckOfTheWrongKindEndsTheConnection(t *testing.T) { // X109
	e := open(t)
	r := login(t, e, true, "")
	for _, row := range []struct{ qos, head byte }{{2, 0x40}, {1, 0x50}, {1, 0x70}, {2, 0x70}} {
		s := login(t, e, true, "")
		s.subscribe(1, row.qos, "t")
		r.publish("t", "x", 2, 1)
		r.packet()
		m := s.recv()
		s.send([]byte{row.head, 2, byte(m.id >> 8), byte(m.id)})
		s.wantEnd(0x82)
		r.send([]byte{0x62, 2, 0, 1})
		r.packet()
	}
}

// TestIdsOfTheTwoDirectionsDoNotMeet is B1 and B2: a client whose own packets
// carry the id of an open delivery.
func TestIdsOfTheTwoDirectionsDoNotMeet(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		e := open(t)
		s, r := login(t, e, v5, ""), login(t, e, v5, "")
		s.subscribe(1, 2, "t")
		r.publish("t", "one", 1, 1)
		r.publish("t", "two", 2, 2)
		one, two := s.recv(), s.recv()
		for _, id := range []uint16{one.id, two.id} {
			s.publish("other", "x", 1, id)
			s.packet()
			s.publish("other", "x", 2, id)
			s.packet()
			s.send([]byte{0x62, 2, byte(id >> 8), byte(id)})
			s.packet()
			if got := s.subscribe(id, 1, "more"); got[0] != 1 {
				t.Errorf("SUBACK is %x", got)
			}
		}
		s.ackFor(one)
		s.send([]byte{0x50, 2, byte(two.id >> 8), byte(two.id)})
		if head, body := s.packet(); head != 0x62 || len(body) != 2 {
			t.Errorf("PUBREL is %x %x", head, body)
		}
	}
}

func TestBacklogDropsTheOldest(t *testing.T) { // B8
	e := open(t, func(o *mqtt.Options) { o.MaxInflight = 1; o.BacklogMessages = 3 })
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "t")
	for i := range uint16(10) {
		r.publish("t", fmt.Sprint(i), 1, i+1)
		r.packet()
	}
	// The last PUBACK comes before the last delivery.
	eventually(t, "six dropped", func() bool { return e.Stats().Dropped["backlog"] == 6 })
	for _, want := range []string{"0", "7", "8", "9"} {
		m := s.recv()
		if m.payload != want {
			t.Errorf("got %+v, want %s", m, want)
		}
		s.ackFor(m)
	}
	s.quiet()
	if n := e.Stats().Dropped["backlog"]; n != 6 {
		t.Errorf("%d dropped, want 6", n)
	}
}

func TestBacklogIsBoundedInBytes(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.MaxInflight = 1; o.BacklogBytes = 250_000 })
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "t")
	for i := range uint16(10) {
		r.publish("t", strings.Repeat("x", 100_000), 1, i+1)
		r.packet()
	}
	eventually(t, "seven dropped", func() bool { return e.Stats().Dropped["backlog"] == 7 })
}

func TestClientsMaximumPacketSizeIsRespected(t *testing.T) { // X048
	e := open(t)
	s := dial(t, e)
	s.v5 = true
	s.send(connectPacket(true, "s", []byte{0x27, 0, 0, 0, 50}))
	s.packet()
	s.subscribe(1, 1, "t")
	r := login(t, e, true, "")
	r.publish("t", strings.Repeat("x", 42), 1, 1) // 50 bytes with everything
	r.publish("t", strings.Repeat("x", 43), 1, 2)
	r.publish("t", "last", 1, 3)
	for _, want := range []int{42, 4} {
		if m := s.recv(); len(m.payload) != want {
			t.Errorf("got %d bytes, want %d", len(m.payload), want)
		}
	}
	if n := e.Stats().Dropped["too_large"]; n != 1 {
		t.Errorf("%d dropped, want 1", n)
	}
}

func TestDeniedTopicsAreNotDelivered(t *testing.T) { // X144, X146, B17
	e := open(t)
	e.rules(t, deny("subscribe", "secret/#"))
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "#")
	r.publish("secret/x", "hidden", 1, 1)
	r.publish("$any/x", "hidden", 1, 2) // X152
	r.publish("a", "seen", 1, 3)
	if m := s.recv(); m.payload != "seen" {
		t.Errorf("got %+v", m)
	}
	s.quiet()
}

func TestParentIsMatchedByItsWildcard(t *testing.T) { // B23
	e := open(t)
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 0, "a/#")
	r.publish("a", "x", 0, 0)
	if m := s.recv(); m.topic != "a" {
		t.Errorf("got %+v", m)
	}
}

func TestEachVersionGetsItsOwnForm(t *testing.T) {
	e := open(t)
	old, modern := login(t, e, false, ""), login(t, e, true, "")
	r := login(t, e, true, "")
	for _, s := range []*raw{old, modern} {
		s.subscribe(1, 0, "q0")
		s.subscribe(2, 1, "q1")
		s.subscribe(3, 2, "q2")
	}
	for qos := range byte(3) {
		topic := fmt.Sprintf("q%d", qos)
		r.publish(topic, "payload", 2, uint16(qos)+1, 38, 0, 1, 'k', 0, 1, 'v')
		for _, s := range []*raw{old, modern} {
			m := s.recv()
			if m.topic != topic || m.payload != "payload" || m.qos != qos {
				t.Errorf("got %+v", m)
			}
			if s.v5 != (len(m.props) == 7) {
				t.Errorf("properties are %x", m.props)
			}
		}
	}
}
