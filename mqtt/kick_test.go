package mqtt_test

import (
	"testing"
	"time"
)

// kick has an operator end a client, waits for it, and reports whether there
// was one.
func (e *edge) kick(id string) bool {
	c, there := e.Registry().Get(id)
	if there {
		<-c.Kick()
	}
	return there
}

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
		if !e.kick("c") {
			t.Fatal("there is nobody to kick")
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
		if e.kick("c") {
			t.Error("there is still somebody to kick")
		}
	}
	clean := login(t, e, false, "clean")
	if !e.kick("clean") {
		t.Error("there is nobody to kick")
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
	if !e.kick("stuck") || time.Since(start) > 15*time.Second {
		t.Errorf("kick took %v", time.Since(start))
	}
	if n, err := e.kept(); n != 0 || err != nil {
		t.Errorf("%d keys and targets are left, %v", n, err)
	}
	s, present := keptIn(t, e, true, "stuck", false, 3600) // a takeover is as well
	s.subscribe(1, 1, "t")
	e.put(t, "t", string(make([]byte, 4<<20)), string(make([]byte, 4<<20)))
	start = time.Now()
	_, again := keptIn(t, e, true, "stuck", false, 3600)
	if took := time.Since(start); present || !again || took > 15*time.Second {
		t.Errorf("takeover took %v, session present %v, %v", took, present, again)
	}
}
