package mqtt_test

import (
	"errors"
	"testing"
	"time"

	"millrace/mqtt"
)

func TestKickEndsConnectionAndSession(t *testing.T) {
	e := open(t)
	w := login(t, e, true, "watcher")
	w.subscribe(1, 0, "w")
	for _, connected := range []bool{true, false} {
		r := dial(t, e)
		r.v5 = true
		r.begin(willPacket("c", 0, []byte{17, 0, 0, 1, 0}, []byte{24, 0, 0, 0, 200}))
		r.subscribe(1, 1, "t")
		e.put(t, "t", "x")
		r.recv()
		if !connected {
			e.offlineBut(t, r, 1)
		}
		if err := e.Kick(system(), "c"); err != nil {
			t.Fatal(err)
		}
		if connected {
			r.wantEnd(0x98)
		}
		if m := w.recv(); m.payload != "gone" { // its session's end is the last moment
			t.Errorf("got %+v", m)
		}
		if n, err := e.kept(); n != 0 || err != nil {
			t.Errorf("%d keys and targets are left, %v", n, err)
		}
		if err := e.Kick(system(), "c"); !errors.Is(err, mqtt.ErrNoClient) {
			t.Errorf("the second kick answered %v", err)
		}
	}
	clean := login(t, e, false, "clean")
	if err := e.Kick(system(), "clean"); err != nil {
		t.Error(err)
	}
	clean.wantEnd(0)
}

// TestKickOfAClientThatDoesNotRead is bounded in time.
func TestKickOfAClientThatDoesNotRead(t *testing.T) { // B35
	e := open(t)
	s, _ := keptIn(t, e, true, "stuck", false, 3600)
	s.subscribe(1, 1, "t")
	e.put(t, "t", string(make([]byte, 4<<20)), string(make([]byte, 4<<20)))
	start := time.Now()
	if err := e.Kick(system(), "stuck"); err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("kick took %v: %v", time.Since(start), err)
	}
	if n, err := e.kept(); n != 0 || err != nil {
		t.Errorf("%d keys and targets are left, %v", n, err)
	}
	s, present := keptIn(t, e, true, "stuck", false, 3600) // a takeover is as well
	s.subscribe(1, 1, "t")
	e.put(t, "t", string(make([]byte, 4<<20)), string(make([]byte, 4<<20)))
	start = time.Now()
	_, again := keptIn(t, e, true, "stuck", false, 3600)
	if took := time.Since(start); present || !again || took > 5*time.Second {
		t.Errorf("takeover took %v, session present %v, %v", took, present, again)
	}
}
