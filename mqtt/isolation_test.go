package mqtt_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"millrace/mqtt"
)

// full is a client that has taken all that its socket holds, and reads nothing.
func full(t *testing.T, e *edge, id string) *raw {
	t.Helper()
	r := login(t, e, true, id)
	r.subscribe(1, 0, "stuck/"+id)
	pub := login(t, e, false, "")
	before := e.Stats().Dropped["shed"]
	eventually(t, "its output is full", func() bool {
		pub.publish("stuck/"+id, strings.Repeat("x", 64<<10), 0, 0)
		return e.Stats().Dropped["shed"] > before
	})
	pub.send([]byte{0xE0, 0})
	return r
}

func TestAStuckClientHoldsNobodyUp(t *testing.T) { // B35
	e := open(t, func(o *mqtt.Options) { o.MaxOutput, o.StallTimeout = 256<<10, time.Minute })
	full(t, e, "a")
	start := time.Now()
	login(t, e, true, "a").ping()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("a take-over took %v", took)
	}
	eventually(t, "it is gone", func() bool { return e.Stats().Closed["taken_over"] == 1 })
	full(t, e, "b")
	start = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("a stop took %v", took)
	}
}

func TestWhatABadSubscriberHoldsIsBounded(t *testing.T) { // B25, test 24
	e := open(t, func(o *mqtt.Options) { o.MaxOutput, o.BacklogMessages, o.MaxInflight = 128<<10, 500, 100 })
	never := login(t, e, true, "never")
	never.subscribe(1, 1, "t")
	pub := login(t, e, true, "pub")
	for i := range 1000 {
		pub.publish("t", "x", 1, uint16(i+1))
		pub.packet()
	}
	// 100 are on their way, and 500 wait. The last is counted behind its PUBACK.
	eventually(t, "400 are dropped", func() bool { return e.Stats().Dropped["backlog"] >= 400 })
	for i := range 100 {
		if m := never.recv(); m.dup || m.id != uint16(i+1) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	never.quiet() // and nothing is sent again
	if n := e.Stats().Dropped["backlog"]; n != 400 {
		t.Errorf("%d dropped", n)
	}
}
