package mqtt_test

import (
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
	"millrace/mqtt"
)

// rated runs f in fake time under rates.
func rated(t *testing.T, rates auth.Rates, f func(t *testing.T, e *edge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, openRated(t, "", rates, mqtt.Bare))
	})
}

func TestPublishesOverTheirRateAreReadLater(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		rated(t, auth.Rates{Messages: 10}, func(t *testing.T, e *edge) {
			r := pipeIn(t, e, v5, "press")
			start := time.Now()
			go func() { // ends with the last, which is read
				for id := range uint16(30) {
					_, _ = r.Write(r.publishPacket("a", "x", 1, id+1))
				}
			}()
			for id := range byte(30) {
				head, body := r.packet()
				if head != 0x40 || body[1] != id+1 || len(body) > 2 && body[2] >= 0x80 {
					t.Fatalf("publish %d: %x %x", id+1, head, body)
				}
				want := time.Duration(max(0, int(id)-9)) * 100 * time.Millisecond
				if at := time.Since(start); (at - want).Abs() > 10*time.Millisecond {
					t.Errorf("publish %d was acked after %v, want %v", id+1, at, want)
				}
			}
			if n := e.Stats().Limited; n != 20 {
				t.Errorf("%d publishes were limited", n)
			}
			r.ping() // after a pause the connection is as it was
		})
	}
}

func TestAPublishThatWouldWaitTooLongIsRefusedInMQTT5(t *testing.T) {
	rated(t, auth.Rates{Bytes: 100}, func(t *testing.T, e *edge) {
		r := pipeIn(t, e, true, "press")
		r.publish("a", string(make([]byte, 1000)), 1, 1)
		r.want("40 03 00 01 10") // what is larger than a second's worth goes when nothing is owed
		start := time.Now()
		r.publish("a", "x", 1, 2)
		r.want("40 03 00 02 97")
		if d := time.Since(start); d > time.Second {
			t.Errorf("refused after %v", d)
		}
		<-time.After(5 * time.Second)
		r.publish("a", "x", 1, 3)
		r.want("40 03 00 03 10")
		if d := time.Since(start); d < 9*time.Second || d > 10*time.Second {
			t.Errorf("taken after %v, the debt is paid after 9 to 10 s", d)
		}
		if n := e.Stats().Limited; n != 2 {
			t.Errorf("%d publishes were limited", n)
		}
		if n := e.counters()["mqtt.publish.quota"]; n != 1 {
			t.Errorf("%d publishes were refused, by the counters", n)
		}
	})
}

func TestAClientThatLeavesWhileItIsHeldBackIsGone(t *testing.T) {
	rated(t, auth.Rates{Messages: 1}, func(t *testing.T, e *edge) {
		r := pipeIn(t, e, false, "press")
		go func() { // the last ones are never read
			for id := range uint16(10) {
				if _, err := r.Write(r.publishPacket("a", "x", 1, id+1)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		other := pipeIn(t, e, false, "press") // the same identity and client id
		other.ping()
		<-time.After(3 * time.Second) // its last words have a second, its socket another
		if n := e.Stats().Open; n != 1 {
			t.Errorf("%d connections are open", n)
		}
	})
}
