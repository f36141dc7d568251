package mqtt_test

import (
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/broker/auth"
	"millrace/mqtt"
)

// withWill connects a client of MQTT 5 whose will goes to topic w.
func withWill(t *testing.T, e *edge, id string, flags byte, connProps, willProps []byte) *raw {
	t.Helper()
	r := dial(t, e)
	r.v5 = true
	r.begin(willPacket(id, flags|2, connProps, willProps))
	return r
}

// willPacket builds the CONNECT of such a client; flags has Clean Start and
// what there is to say of the will.
func willPacket(id string, flags byte, connProps, willProps []byte) []byte {
	b := []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 4 | flags, 0, 0}
	b = append(varint(b, len(connProps)), connProps...)
	b = str(b, id)
	b = append(varint(b, len(willProps)), willProps...)
	return packet(0x10, str(str(b, "w"), "gone"))
}

func TestWillIsSentUnlessTakenBack(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(e *edge, r *raw)
		sent bool
	}{
		{"cable cut", func(_ *edge, r *raw) { _ = r.Close() }, true},
		{"protocol error", func(_ *edge, r *raw) { r.send([]byte{0xE1, 0}) }, true}, // X123
		{"second CONNECT", func(_ *edge, r *raw) { r.send(connectPacket(true, "c", nil)) }, true},
		{"DISCONNECT 0x04", func(_ *edge, r *raw) { r.send([]byte{0xE0, 1, 4}) }, true},
		{"takeover", func(e *edge, _ *raw) { login(t, e, true, "c") }, true},
		{"DISCONNECT", func(_ *edge, r *raw) { r.send([]byte{0xE0, 0}) }, false},
		{"DISCONNECT 0x00", func(_ *edge, r *raw) { r.send([]byte{0xE0, 2, 0, 0}) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := open(t)
			s := login(t, e, true, "")
			s.subscribe(1, 2, "w")
			props := []byte{3, 0, 1, 'c', 38, 0, 1, 'k', 0, 1, 'v'}
			r := withWill(t, e, "c", 0x10, nil, props)
			row.end(e, r)
			if !row.sent {
				eventually(t, "the end", func() bool { return e.Stats().Closed["client"] == 1 })
				s.quiet()
				return
			}
			if m := s.recv(); m.payload != "gone" || m.qos != 2 || string(m.props) != string(props) {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// TestDisconnectCountsThoughTheClientIsBackAtOnce has a client say goodbye, and
// connect again before that was read.
// Its socket is gone by the time it is answered, with a reset or without: that the
// answers cannot be written says nothing of what it had sent.
func TestDisconnectCountsThoughTheClientIsBackAtOnce(t *testing.T) {
	for i := range 4 {
		v5, reset := i&1 != 0, i&2 != 0
		e := open(t)
		s := login(t, e, false, "")
		s.subscribe(1, 0, "w")
		s.subscribe(2, 0, "alive")
		r := dial(t, e)
		if r.v5 = v5; v5 {
			r.begin(willPacket("c", 2, nil, nil))
		} else {
			r.sendHex("10 13 00 04 4D 51 54 54 04 06 00 00 00 01 63 00 01 77 00 01 78")
			r.want("20 02 00 00")
		}
		e.store.hold()
		b := r.publishPacket("x", "x", 0, 0)
		b[0] |= 1
		r.send(append(b, r.subscribePacket(1, 0, nil, "x")...)) // which waits for the commit
		eventually(t, "the commit", func() bool { return e.Stats().Received >= 1 })
		r.publish("alive", "yes", 0, 0)
		r.send([]byte{0xE0, 0})
		if reset {
			_ = r.Conn.(*net.TCPConn).SetLinger(0)
		}
		_ = r.Close()
		again := dial(t, e)
		again.v5 = v5
		again.send(connectPacket(v5, "c", nil))
		eventually(t, "the take-over", func() bool { return maps.Collect(e.Counters)["mqtt.sessions.taken_over"] == 1 })
		e.store.open()
		again.packet()
		if m := s.recv(); m.topic != "alive" {
			t.Errorf("v5=%v, reset=%v: got %+v", v5, reset, m)
		}
		s.quiet()
	}
}

func TestEmptyWillIsSent(t *testing.T) { // B31
	e := open(t)
	s := login(t, e, false, "")
	s.subscribe(1, 0, "t")
	r := dial(t, e)
	r.sendHex("10 12 00 04 4D 51 54 54 04 06 00 3C 00 01 61 00 01 74 00 00")
	r.want("20 02 00 00")
	_ = r.Close()
	if m := s.recv(); m.payload != "" {
		t.Errorf("got %+v", m)
	}
}

func TestRightToWillIsAskedTwice(t *testing.T) { // X061, B11, SB10
	e := open(t)
	s := login(t, e, true, "")
	s.subscribe(1, 0, "w")
	r := withWill(t, e, "c", 0, nil, nil)
	e.rules(t, deny("publish", "w"))
	_ = r.Close()
	eventually(t, "a will counted as dropped", func() bool { return e.Stats().Dropped["will"] == 1 })
	s.quiet()
	late := dial(t, e)
	late.sendHex("10 15 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61 00 00 01 77 00 01 78")
	late.want("20 03 00 87 00")
	if !strings.Contains(e.log.String(), "will was not published") {
		t.Error("nothing was logged")
	}
}

func TestDelayedWill(t *testing.T) {
	e := open(t)
	s := login(t, e, true, "")
	s.subscribe(1, 0, "w")
	expiry := []byte{17, 0, 0, 1, 0}
	delay := []byte{24, 0, 0, 0, 1}
	_ = withWill(t, e, "back", 0, expiry, delay).Close()
	_ = withWill(t, e, "away", 0, expiry, delay).Close()
	_ = withWill(t, e, "anew", 0, expiry, []byte{24, 0, 0, 1, 0}).Close()
	eventually(t, "the ends", func() bool { return e.Stats().Closed["client"] == 3 })
	start := time.Now()
	keptIn(t, e, true, "back", false, 256)
	keptIn(t, e, true, "anew", true, 256) // Clean Start ends the session, which was the last moment
	s.recv()
	if m := s.recv(); m.payload != "gone" || time.Since(start) < 500*time.Millisecond {
		t.Errorf("got %+v after %v", m, time.Since(start))
	}
	s.quiet()
	_ = withWill(t, e, "at once", 0, nil, delay).Close() // its session ends with the connection
	s.recv()
}

func TestShutdownSendsNoWillsYet(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.MaxInflight = 10 })
	s := login(t, e, false, "")
	s.subscribe(1, 0, "w")
	withWill(t, e, "c", 0, nil, nil)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantEnd(0)
}

// TestWillOfAUserWhoIsGoneIsNotSent: neither that of the connection which ends
// with the user, nor one that waits for its delay.
func TestWillOfAUserWhoIsGoneIsNotSent(t *testing.T) {
	e := open(t)
	for _, name := range []string{"ann", "bob", "cat"} {
		if err := e.auth.AddUser(system(), auth.UserSpec{Username: name, Password: "long enough 1"}); err != nil {
			t.Fatal(err)
		}
	}
	s := login(t, e, true, "")
	s.subscribe(1, 0, "w")
	enter := func(name string, willProps []byte) *raw {
		b := willPacket(name, 2, []byte{17, 0, 0, 1, 0}, willProps)[2:]
		b[7] |= 0xC0
		r := dial(t, e)
		r.v5 = true
		r.send(packet(0x10, str(str(b, name), "long enough 1")))
		if head, body := r.packet(); head != 0x20 || body[1] != 0 {
			t.Fatalf("CONNACK of %s is %x %x", name, head, body)
		}
		return r
	}
	soon := []byte{24, 0, 0, 0, 1}
	connected := enter("ann", nil)
	_ = enter("bob", soon).Close()
	_ = enter("cat", soon).Close()
	eventually(t, "the ends", func() bool { return e.Stats().Closed["client"] == 2 })
	for _, name := range []string{"ann", "bob"} {
		if err := e.auth.DeleteUser(system(), name); err != nil {
			t.Fatal(err)
		}
	}
	connected.wantEnd(0x87)
	if m := s.recv(); m.payload != "gone" { // cat's, whose delay began last
		t.Errorf("got %+v", m)
	}
	eventually(t, "two wills counted as dropped", func() bool { return e.Stats().Dropped["will"] == 2 })
	s.quiet()
}

// TestRetainedMessagesAreSetAndReadWithTheRightAlone: a retained message is the
// topic's, and those who lose the right neither change it nor read it.
func TestRetainedMessagesAreSetAndReadWithTheRightAlone(t *testing.T) {
	e := open(t)
	r, s := login(t, e, true, ""), login(t, e, true, "")
	retain := func(payload string, id uint16) (code byte) {
		b := r.publishPacket("kept", payload, 1, id)
		b[0] |= 1
		r.send(b)
		if head, body := r.packet(); head != 0x40 {
			t.Fatalf("PUBACK is %x %x", head, body)
		} else if len(body) > 2 {
			code = body[2]
		}
		return code
	}
	if code := retain("first", 1); code >= 0x80 {
		t.Errorf("with the right: %x", code)
	}
	e.rules(t, deny("publish", "kept"))
	if code := retain("second", 2); code != 0x87 {
		t.Errorf("without the right: %x", code)
	}
	if code := retain("", 3); code != 0x87 {
		t.Errorf("cleared without the right: %x", code)
	}
	s.subscribe(1, 0, "kept")
	if m := s.recv(); m.payload != "first" {
		t.Errorf("got %+v", m)
	}
	e.rules(t, deny("subscribe", "kept"))
	late := login(t, e, true, "")
	late.subscribe(1, 0, "#")
	late.quiet()
}
