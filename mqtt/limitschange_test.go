package mqtt_test

import (
	"testing"
	"time"

	"millrace/mqtt"
)

// TestLimitsChangeWhileItRuns: a new limit holds from now on, and takes nothing
// away from who is above it.
func TestLimitsChangeWhileItRuns(t *testing.T) {
	e := open(t)
	s := login(t, e, true, "s")
	if got := s.subscribe(1, 1, "a", "b", "c"); string(got) != "\x01\x01\x01" {
		t.Fatalf("SUBACK is %x", got)
	}
	set := func(l mqtt.Limits) {
		t.Helper()
		if err := e.SetLimits(l); err != nil {
			t.Fatal(err)
		}
	}
	set(mqtt.Limits{MaxSubs: 3, MaxFilters: 2, MaxPerAddress: 1, MaxKeepAlive: 7 * time.Second})
	if got := s.subscribe(2, 1, "c", "d", "a"); string(got) != "\x01\x97\x97" {
		t.Errorf("SUBACK is %x, want one that was there, one too many in the session, one too many in the packet", got)
	}
	full := dial(t, e)
	full.wantEnd(0)

	set(mqtt.Limits{MaxKeepAlive: 7 * time.Second})
	next := dial(t, e)
	next.v5 = true
	next.send(connectPacket(true, "next", nil))
	if head, body := next.packet(); head != 0x20 || body[1] != 0 || !hasKeepAlive(body, 7) {
		t.Errorf("CONNACK is %x %x, want Server Keep Alive 7", head, body)
	}
	if got := s.subscribe(3, 1, "d", "e", "f"); string(got) != "\x01\x01\x01" {
		t.Errorf("SUBACK is %x", got)
	}
	if err := e.SetLimits(mqtt.Limits{MaxPerAddress: -1}); err == nil {
		t.Error("a negative limit is taken")
	}
}

// hasKeepAlive looks for the property Server Keep Alive in a CONNACK.
func hasKeepAlive(body []byte, seconds byte) bool {
	for i := 3; i+2 < len(body); i++ {
		if body[i] == 0x13 && body[i+1] == 0 && body[i+2] == seconds {
			return true
		}
	}
	return false
}
