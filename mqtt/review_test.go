package mqtt_test

import (
	"fmt"
	"testing"
	"time"

	"millrace/broker/auth"
	"millrace/broker/clustertest"
	"millrace/mqtt"
)

func TestEndedUserIsDisconnected(t *testing.T) { // X079
	e := open(t)
	if err := e.auth.AddUser(system(), auth.UserSpec{Username: "ann", Password: "long enough 1"}); err != nil {
		t.Fatal(err)
	}
	r := dial(t, e)
	r.v5 = true
	b := connectPacket(true, "c", nil)[2:]
	b[7] |= 0xC0
	r.send(packet(0x10, str(str(b, "ann"), "long enough 1")))
	r.packet()
	other := login(t, e, true, "")
	if err := e.auth.DeleteUser(system(), "ann"); err != nil {
		t.Fatal(err)
	}
	r.wantEnd(0x87)
	other.ping()
}

// feltWithin is the promise about what an open connection may no longer do: how long
// after the answer to who took it away it still may, at whatever node it is.
const feltWithin = 5 * time.Second

// TestWhatOneNodeTakesAwayEndsAtAnotherInTime has several changes in a row, of which the
// later ones come while the connections are not due to be looked at again.
func TestWhatOneNodeTakesAwayEndsAtAnotherInTime(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, _ *clustertest.View) {
		const users = 5
		var of [users]*raw
		name := func(i int) string { return fmt.Sprint("user", i) }
		for i := range of {
			if err := a.auth.AddUser(system(), auth.UserSpec{Username: name(i), Password: "long enough 1"}); err != nil {
				t.Fatal(err)
			}
			of[i] = pipe(t, b)
			of[i].v5 = true
			hello := connectPacket(true, name(i), nil)[2:]
			hello[7] |= 0xC0
			of[i].send(packet(0x10, str(str(hello, name(i)), "long enough 1")))
			if head, body := of[i].packet(); head != 0x20 || body[1] != 0 {
				t.Fatalf("CONNACK is %x %x", head, body)
			}
		}
		listener := pipeIn(t, b, true, "listener")
		listener.subscribe(1, 0, "secret", "open")
		ends := func(r *raw, code byte, since time.Time) {
			t.Helper()
			if err := r.SetReadDeadline(since.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			r.wantEnd(code)
			if took := time.Since(since); took > feltWithin {
				t.Errorf("the connection ended %s after the answer", took)
			}
		}
		for i := range users {
			time.Sleep(300 * time.Millisecond)
			if err := a.auth.DeleteUser(system(), name(i)); err != nil {
				t.Fatal(err)
			}
			ends(of[i], 0x87, time.Now())
		}
		a.rules(t, deny("subscribe", "secret"))
		time.Sleep(feltWithin)
		a.put(t, "secret", "hidden")
		a.put(t, "open", "seen")
		if m := listener.recv(); m.payload != "seen" {
			t.Errorf("got %+v", m)
		}
		if _, err := a.auth.AddBan(system(), auth.Ban{Kind: auth.BanClientID, Who: "listener"}); err != nil {
			t.Fatal(err)
		}
		ends(listener, 0x8A, time.Now())
	})
}

func TestRightThatIsTakenAwayReachesSubscriptions(t *testing.T) { // X151
	e := open(t, func(o *mqtt.Options) { o.MaxInflight = 1 })
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "secret/x", "#", "open/+")
	for i := range uint16(3) {
		r.publish("secret/x", fmt.Sprint(i), 1, i+1)
		r.want(fmt.Sprintf("40 02 00 %02x", i+1))
	}
	first := s.recv() // the others wait
	witness := login(t, e, true, "")
	witness.subscribe(1, 0, "mark")
	r.publish("mark", "", 1, 4)
	witness.recv() // and so all before it has been delivered
	r.want("40 02 00 04")
	e.rules(t, deny("subscribe", "secret/#"))
	eventually(t, "the waiting messages dropped", func() bool { return e.Stats().Dropped["denied"] == 2 })
	s.ackFor(first)
	if m := s.recv(); m.topic != "mark" {
		t.Errorf("got %+v", m)
	} else {
		s.ackFor(m)
	}
	s.quiet()
	r.publish("secret/x", "hidden", 1, 9)
	r.publish("open/x", "seen", 1, 10)
	if m := s.recv(); m.payload != "seen" {
		t.Errorf("got %+v", m)
	} else {
		s.ackFor(m)
	}
	s.quiet()
	e.rules(t)
	eventually(t, "the right again", func() bool {
		r.publish("secret/x", "back", 0, 0)
		s.send([]byte{0xC0, 0})
		head, _ := s.packet()
		return head>>4 == 3
	})
}

// TestReplacedSubscriptionDeliversOnce replaces one while publishes that
// matched the old one are being committed.
func TestReplacedSubscriptionDeliversOnce(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "t")
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 0, "t")
	for i := range 50 {
		e.store.hold()
		r.publish("t", fmt.Sprint(i), 1, uint16(i+1))
		s.subscribe(2, 0, "t")
		e.store.open()
		r.packet()
		if m := s.recv(); m.payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	s.quiet()
}
