package mqtt_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"millrace/broker/auth"
	"millrace/mqtt"
)

// loginAs connects as a user; want is the reason code of its CONNACK.
func loginAs(t *testing.T, e *edge, id, user, password string, want byte) *raw {
	t.Helper()
	r := dial(t, e)
	r.v5 = true
	b := connectPacket(true, id, nil)[2:]
	b[7] |= 0xC0
	r.send(packet(0x10, str(str(b, user), password)))
	if head, body := r.packet(); head != 0x20 || body[1] != want {
		t.Fatalf("CONNACK is %x %x, want %02x", head, body, want)
	}
	return r
}

func TestIdentityLimit(t *testing.T) { // D22
	e := open(t, func(o *mqtt.Options) { o.MaxPerIdentity = 2 })
	for _, name := range []string{"ann", "bob"} {
		if err := e.auth.AddUser(system(), auth.UserSpec{Username: name, Password: "long enough 1"}); err != nil {
			t.Fatal(err)
		}
	}
	a1 := loginAs(t, e, "a1", "ann", "long enough 1", 0)
	a2 := loginAs(t, e, "a2", "ann", "long enough 1", 0)
	loginAs(t, e, "a3", "ann", "long enough 1", 0x97)
	loginAs(t, e, "b1", "bob", "long enough 1", 0)
	for _, id := range []string{"x1", "x2", "x3"} {
		login(t, e, true, id) // anonymous: nobody in particular
	}
	taken := loginAs(t, e, "a1", "ann", "long enough 1", 0) // its own place
	a1.wantEnd(0x8E)
	loginAs(t, e, "a4", "ann", "long enough 1", 0x97)
	a2.send([]byte{0xE0, 0})
	a2.wantEnd(0)
	eventually(t, "a place is free", func() bool { return e.Stats().Closed["client"] == 1 })
	eventually(t, "room for another", func() bool {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		b := connectPacket(true, "a5", nil)[2:]
		b[7] |= 0xC0
		_, _ = c.Write(packet(0x10, str(str(b, "ann"), "long enough 1")))
		answer := make([]byte, 4)
		_, _ = c.Read(answer)
		return answer[3] == 0
	})
	taken.send([]byte{0xC0, 0})
	taken.want("D0 00")
	if e.Stats().Refused["identity"] < 2 {
		t.Errorf("counted %v", e.Stats().Refused)
	}
}

func TestAcceptRate(t *testing.T) { // D22
	e := open(t, func(o *mqtt.Options) { o.AcceptRate = 10 })
	start := time.Now()
	for range 15 { // ten at once, the others a tenth of a second apart
		r := dial(t, e)
		r.send(connectPacket(false, "", nil))
		r.want("20 02 00 00")
	}
	if took := time.Since(start); took < 300*time.Millisecond || took > 20*time.Second {
		t.Errorf("15 connections took %v at 10 a second", took)
	}
}

func TestMemoryLimitRefuses(t *testing.T) { // G6
	var over atomic.Bool
	e := open(t, func(o *mqtt.Options) { o.Overloaded = over.Load })
	early := login(t, e, true, "early")
	early.subscribe(1, 1, "t")
	over.Store(true)
	for v5, want := range map[bool]string{true: "20 03 00 89 00", false: "20 02 00 03"} {
		r := dial(t, e)
		r.send(connectPacket(v5, "late", nil))
		r.want(want)
		r.wantEnd(0)
	}
	early.send([]byte{0xC0, 0})
	early.want("D0 00")
	over.Store(false)
	login(t, e, true, "late")
	if n := e.Stats().Refused["overload"]; n != 2 {
		t.Errorf("counted %d", n)
	}
}
