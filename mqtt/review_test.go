package mqtt_test

import (
	"fmt"
	"testing"

	"millrace/broker/auth"
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
