package mqtt_test

import (
	"testing"
)

// TestWhatAnotherLeaderHandsOutAgainIsNotSentAgain while the client has it, or has answered:
// it would come under another packet id, as if it was another message.
func TestWhatAnotherLeaderHandsOutAgainIsNotSentAgain(t *testing.T) {
	e := open(t)
	s, _ := keptIn(t, e, true, "s", false, 3600)
	s.subscribe(1, 2, "t")
	p := login(t, e, true, "pub")
	p.publish("t", "a", 1, 1)
	p.publish("t", "b", 1, 2)
	a, b := s.recv(), s.recv()
	kept, _, err := e.broker.Session(system(), "s")
	if err != nil {
		t.Fatal(err)
	}
	ds, err := kept.InFlight(system(), 0, 10, nil)
	if err != nil || len(ds) != 2 {
		t.Fatalf("%+v %v", ds, err)
	}
	e.TakeAgain("s", ds)
	s.quiet()
	s.settle(a)
	e.TakeAgain("s", ds)
	s.quiet()
	s.settle(b)
	p.publish("t", "c", 1, 3)
	if m := s.recv(); m.payload != "c" {
		t.Errorf("got %+v", m)
	}
}
