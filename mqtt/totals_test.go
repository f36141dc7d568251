package mqtt_test

import (
	"testing"

	"millrace/broker"
)

// TestWhatWouldBeStoredBeyondTheLimitIsRefused: each QoS has its answer, a consumer
// acknowledges all the same, and what makes room is taken again.
func TestWhatWouldBeStoredBeyondTheLimitIsRefused(t *testing.T) { // D29
	e := open(t)
	e.queue(t, "q", "stored")
	set := func(most int64) {
		t.Helper()
		if err := e.broker.SetLimits(broker.Limits{Stored: most}); err != nil {
			t.Fatal(err)
		}
	}
	r := login(t, e, true, "")
	live := login(t, e, true, "")
	live.subscribe(1, 0, "live")
	r.publish("stored", "one", 1, 1)
	r.want("40 02 00 01")
	eventually(t, "the message in what is counted", func() bool { return e.store.Stored() > 0 }) // which may be a second old
	set(1)
	r.publish("stored", "x", 0, 0) // nobody is told
	r.publish("live", "y", 1, 2)   // is not stored
	r.publish("stored", "x", 1, 3)
	r.publish("stored", "x", 2, 4)
	r.want("40 02 00 02", "40 03 00 03 97", "50 03 00 04 97")
	if m := live.recv(); m.payload != "y" {
		t.Errorf("live: %+v", m)
	}
	for qos := byte(1); qos <= 2; qos++ {
		old := login(t, e, false, "")
		old.publish("stored", "x", qos, 1)
		old.wantEnd(0)
	}
	old := login(t, e, false, "")
	old.publish("stored", "x", 0, 0)
	old.publish("live", "z", 1, 1)
	old.want("40 02 00 01")
	consumer := login(t, e, true, "")
	consumer.subscribe(1, 1, "$queue/q")
	m := consumer.recv()
	if m.payload != "one" {
		t.Fatalf("consumed %+v", m)
	}
	consumer.ackFor(m)
	e.want(t, "q", "ready=0 leased=0 delayed=0 dead=0")
	eventually(t, "nothing in what is counted", func() bool { return e.store.Stored() == 0 })
	r.publish("stored", "two", 2, 4)
	r.want("50 02 00 04")
}
