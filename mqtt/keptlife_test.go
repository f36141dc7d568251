package mqtt_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/mqtt"
)

// aged runs f in fake time on a store on disk. again closes everything, lets
// time pass, and opens it anew.
func aged(t *testing.T, f func(t *testing.T, e *edge, again func(away time.Duration) *edge)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := openWith(t, dir, mqtt.Bare)
		f(t, e, func(away time.Duration) *edge {
			e.stop(t)
			<-time.After(away)
			e = openWith(t, dir, mqtt.Bare)
			return e
		})
	})
}

// sessions says how many sessions the broker keeps.
func (e *edge) sessions() (n int) {
	for range e.broker.Sessions() {
		n++
	}
	return n
}

func TestSessionPresentSaysWhatIsThere(t *testing.T) {
	for _, row := range []struct {
		name    string
		first   uint32 // expiry of the session before; 0 = ends with its connection
		connect bool   // that one is still connected
		wait    time.Duration
		clean   bool
		want    bool
	}{
		{"none before", 0, false, 0, false, false},
		{"none before, clean", 0, false, 0, true, false},
		{"there", 100, false, 99 * time.Second, false, true},
		{"there, clean", 100, false, 99 * time.Second, true, false},
		{"expired", 100, false, 101 * time.Second, false, false},
		{"expired, clean", 100, false, 101 * time.Second, true, false},
		{"never expires", broker.NeverExpires, false, years(1000 * 24 * time.Hour), false, true},
		{"connected", 100, true, time.Hour, false, true},
		{"connected, clean", 100, true, time.Hour, true, false},
		{"connected, of the kind that ends", 0, true, time.Hour, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *edge) {
				s, present := keptPipe(t, e, "c", false, row.first)
				if present {
					t.Fatal("present before it was made")
				}
				s.subscribe(1, 1, "t")
				if !row.connect {
					_ = s.Close()
				} else {
					go drainRaw(s)
				}
				<-time.After(row.wait)
				s, present = keptPipe(t, e, "c", row.clean, 100)
				if present != row.want {
					t.Errorf("session present is %v", present)
				}
				e.put(t, "t", "x")
				if row.want {
					if m := s.recv(); m.payload != "x" {
						t.Errorf("got %+v", m)
					}
				}
				s.quiet()
			})
		})
	}
}

// drainRaw reads what comes until the end.
func drainRaw(r *raw) {
	for {
		if _, _, err := r.read(); err != nil {
			return
		}
	}
}

// TestSessionExpiry has it honoured while the process runs, and while it does not.
func TestSessionExpiry(t *testing.T) { // P10, SB12, X153
	for _, row := range []struct {
		name       string
		expiry     uint32
		disconnect []byte
		away       time.Duration
		want       bool
	}{
		{"before", 100, nil, 98 * time.Second, true},
		{"after", 100, nil, 101 * time.Second, false},
		{"never", broker.NeverExpires, nil, years(10_000 * time.Hour), true},
		{"longer by DISCONNECT", 10, []byte{0xE0, 7, 0, 5, 17, 0, 0, 1, 0}, 250 * time.Second, true},
		{"shorter by DISCONNECT", 1000, []byte{0xE0, 7, 0, 5, 17, 0, 0, 0, 10}, 11 * time.Second, false},
		{"ended by DISCONNECT", 1000, []byte{0xE0, 7, 0, 5, 17, 0, 0, 0, 0}, 0, false},
		{"for ever by DISCONNECT", 10, []byte{0xE0, 7, 0, 5, 17, 255, 255, 255, 255}, years(10_000 * time.Hour), true},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart=%v", row.name, restart), func(t *testing.T) {
				aged(t, func(t *testing.T, e *edge, again func(time.Duration) *edge) {
					s, _ := keptPipe(t, e, "c", false, row.expiry)
					s.subscribe(1, 1, "t")
					e.put(t, "t", "x")
					s.recv()
					if row.disconnect != nil {
						s.send(row.disconnect)
					}
					_ = s.Close()
					synctest.Wait()
					if restart {
						e = again(row.away)
					} else {
						<-time.After(row.away)
					}
					synctest.Wait()
					if n := e.sessions(); n == 1 != row.want {
						t.Errorf("%d sessions are kept", n)
					}
					s, present := keptPipe(t, e, "c", false, 100)
					if present != row.want {
						t.Errorf("session present is %v", present)
					}
					if !row.want {
						e.put(t, "t", "y") // nobody subscribes to it any more
					} else if m := s.recv(); !m.dup {
						t.Errorf("got %+v", m)
					}
					s.quiet()
				})
			})
		}
	}
}

// TestExpiryCountsFromTheConnectionsEnd and not from an earlier one.
func TestExpiryCountsFromTheConnectionsEnd(t *testing.T) {
	aged(t, func(t *testing.T, e *edge, again func(time.Duration) *edge) {
		s, _ := keptPipe(t, e, "c", false, 100)
		_ = s.Close()
		<-time.After(50 * time.Second)
		s, present := keptPipe(t, e, "c", false, 100)
		go drainRaw(s)
		<-time.After(time.Hour)
		e = again(90 * time.Second) // connected until the end of the process
		s, again2 := keptPipe(t, e, "c", false, 100)
		if !present || !again2 {
			t.Errorf("session present is %v, then %v", present, again2)
		}
		s.quiet()
	})
}

func TestRaisingTheExpiryFromZeroIsAProtocolError(t *testing.T) { // X124
	e := open(t)
	r := login(t, e, true, "c")
	r.sendHex("E0 07 00 05 11 00 00 00 01")
	r.wantEnd(0x82)
}

// TestSessionOfAnotherIdentityIsNotTouched while that identity exists.
func TestSessionOfAnotherIdentityIsNotTouched(t *testing.T) { // X069, SB11, P9
	e := open(t)
	for _, name := range []string{"anna", "bert"} {
		if err := e.auth.AddUser(system(), auth.UserSpec{Username: name, Password: "correct horse " + name}); err != nil {
			t.Fatal(err)
		}
	}
	as := func(name string, clean bool) *raw {
		r := dial(t, e)
		r.v5 = true
		flags := byte(0xC0)
		if clean {
			flags |= 2
		}
		b := []byte{0, 4, 'M', 'Q', 'T', 'T', 5, flags, 0, 0, 5, 17, 0, 0, 1, 0}
		r.send(packet(0x10, str(str(str(b, "c"), name), "correct horse "+name)))
		return r
	}
	a := as("anna", false)
	if head, body := a.packet(); head != 0x20 || body[1] != 0 {
		t.Fatalf("CONNACK is %x", body)
	}
	a.subscribe(1, 1, "t")
	_ = a.Close()
	e.gone(t)
	e.put(t, "t", "for anna")
	for _, clean := range []bool{false, true} {
		b := as("bert", clean)
		b.want("20 03 00 85 00")
	}
	a = as("anna", false)
	if head, body := a.packet(); head != 0x20 || body[0] != 1 || body[1] != 0 {
		t.Fatalf("CONNACK is %x", body)
	}
	if m := a.recv(); m.payload != "for anna" {
		t.Errorf("got %+v", m)
	}
	_ = a.Close()
	e.gone(t)
	if err := e.auth.DeleteUser(system(), "anna"); err != nil {
		t.Fatal(err)
	}
	b := as("bert", false)
	if head, body := b.packet(); head != 0x20 || body[0] != 0 || body[1] != 0 {
		t.Fatalf("CONNACK is %x", body)
	}
	e.put(t, "t", "for nobody")
	b.quiet()
}

// TestLeftOverNothing: what ended leaves no subscription, no backlog, no key.
func TestWhatEndedLeavesNothing(t *testing.T) { // B9, X153
	dir := t.TempDir()
	e := openDir(t, dir)
	s, _ := keptIn(t, e, true, "c", false, 3600)
	s.subscribe(1, 2, "t", "u/#")
	e.put(t, "t", "x")
	m := s.recv()
	s.sendHex(fmt.Sprintf("50 02 %04x", m.id))
	s.packet()
	s.publish("away", "y", 2, 9)
	s.packet()
	_ = s.Close()
	s, present := keptIn(t, e, true, "c", true, 0)
	if present {
		t.Error("a clean session was there before")
	}
	if n, err := e.kept(); n != 0 || err != nil {
		t.Errorf("%d keys and targets are left, %v", n, err)
	}
	e.put(t, "t", "z")
	s.quiet()
	_ = s.Close()
	e.gone(t)
	if n, err := e.kept(); n != 0 || err != nil {
		t.Errorf("a clean session left %d keys and targets, %v", n, err)
	}
}

// kept counts the keys and targets of sessions in the store.
func (e *edge) kept() (n int, err error) {
	err = e.store.List(system(), broker.SpaceSessions, "", func(broker.Entry) bool { n++; return true })
	if err != nil {
		return n, err
	}
	ds, err := e.store.Definitions(system())
	for _, d := range ds {
		if d.Def.Kind == broker.SessionTarget {
			n++
		}
	}
	return n, err
}

// TestAFullStoreTakesNoNewSessions, and gives those there are what waits.
func TestAFullStoreTakesNoNewSessions(t *testing.T) { // G5
	e := open(t)
	s, _ := keptIn(t, e, true, "old", false, 3600)
	s.subscribe(1, 1, "t")
	e.offline(t, s)
	e.put(t, "t", "x")
	e.store.fill(true)
	r := dial(t, e)
	r.send(sessionPacket(true, "new", false, 3600))
	r.want("20 03 00 97 00")
	r = dial(t, e)
	r.send(sessionPacket(false, "new", false, 0))
	r.want("20 02 00 03")
	login(t, e, true, "clean")
	withWill(t, e, "with a will", 0, nil, nil)
	s = resumed(t, e, true, "old")
	if m := s.recv(); m.payload != "x" {
		t.Errorf("got %+v", m)
	}
	e.store.fill(false)
	keptIn(t, e, true, "new", false, 3600)
}

// TestWhatWaitsExpires: by the message's own expiry, which comes with what is left.
func TestWhatWaitsExpires(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s, _ := keptPipe(t, e, "c", false, 1000)
		s.subscribe(1, 1, "t")
		_ = s.Close()
		p := pipe(t, e)
		p.v5 = true
		p.begin(connectPacket(true, "pub", nil))
		p.publish("t", "short", 1, 1, 2, 0, 0, 0, 10)
		p.packet()
		p.publish("t", "long", 1, 2, 2, 0, 0, 0, 60)
		p.packet()
		go drainRaw(p)
		<-time.After(20 * time.Second)
		s, _ = keptPipe(t, e, "c", false, 1000)
		if m := s.recv(); m.payload != "long" || string(m.props) != "\x02\x00\x00\x00\x28" {
			t.Errorf("got %+v", m)
		}
		s.quiet()
	})
}

// TestCleanSessionsTouchNoDisk counts what reaches the store.
func TestCleanSessionsTouchNoDisk(t *testing.T) {
	e := open(t)
	before, err := e.kept()
	s := login(t, e, true, "c")
	s.subscribe(1, 2, "t", "u/#", "$share/g/v")
	s.publish("t", "x", 2, 1)
	s.packet()
	s.packet()
	if after, err2 := e.kept(); after != before || err != nil || err2 != nil || e.store.published() != 0 {
		t.Errorf("%d keys and targets, %d publishes were stored", after-before, e.store.published())
	}
}
