package mqtt_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/mqtt"
)

// counted compares the counters that grew since before with want.
func (e *edge) counted(t *testing.T, before, want map[string]int64) {
	t.Helper()
	now := e.counters()
	for name, n := range want {
		if _, there := now[name]; !there || now[name]-before[name] != n {
			t.Errorf("%s grew by %d, want %d", name, now[name]-before[name], n)
		}
	}
}

func (e *edge) counters() map[string]int64 {
	synctest.Wait()
	n := maps.Collect(e.Counters)
	maps.Insert(n, e.broker.Counters)
	return n
}

func TestWhatAClientMayIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		e.rules(t, deny("publish", "no/#"), deny("subscribe", "no/#"))
		c := pipeIn(t, e, true, "c")
		before := e.counters()
		c.publish("yes/1", "", 0, 0)
		c.publish("yes/2", "", 1, 1)
		c.want("40 03 00 01 10")
		c.publish("no/1", "", 0, 0)
		c.publish("no/2", "", 1, 2)
		c.want("40 03 00 02 87")
		c.send(c.subscribePacket(3, 0, nil, "yes/#"))
		c.suback()
		c.send(c.subscribePacket(4, 0, nil, "no/a"))
		c.suback()
		e.counted(t, before, map[string]int64{
			"mqtt.access.asked": 6, "mqtt.access.allowed": 3, "mqtt.access.denied": 3, "mqtt.refused.publish": 2, "mqtt.subscribe.auth_error": 1,
		})
	})
}

func TestWhatIsNotWantedBackIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		c := pipeIn(t, e, true, "c")
		c.subscribe(1, 0|4, "t/+")
		kept, _ := keptPipe(t, e, "kept", false, 3600)
		kept.subscribe(1, 1|4, "t/#")
		before := e.counters()
		c.publish("t/c", "", 1, 2)
		c.want("40 02 00 02")
		if m := kept.recv(); m.topic != "t/c" {
			t.Errorf("got %+v", m)
		}
		kept.publish("t/k", "", 0, 0)
		if m := c.recv(); m.topic != "t/k" {
			t.Errorf("got %+v", m)
		}
		e.counted(t, before, map[string]int64{"mqtt.unwanted.own": 1, "sessions.own": 1, "mqtt.publish.sent": 2})
	})
}

func TestBrokenAndRepeatedPacketsAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		c := pipeIn(t, e, true, "c")
		before := e.counters()
		c.publish("t", "", 2, 7)
		c.want("50 03 00 07 10")
		c.publish("t", "", 2, 7)
		c.want("50 02 00 07")
		e.counted(t, before, map[string]int64{"mqtt.publish.in_use": 1, "messages.published": 1})
		c.send([]byte{0xA2, 3, 0, 9, 0}) // UNSUBSCRIBE without a filter
		e.counted(t, before, map[string]int64{"mqtt.unsubscribe.error": 1})
	})
}

func TestWhatAFullSessionLetsGoIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openLimited(t, "", mqtt.Bare, auth.Rates{}, broker.Options{SessionMessages: 3})
		s, _ := keptPipe(t, e, "sub", false, 3600)
		s.subscribe(1, 1, "t")
		_ = s.Close()
		before := e.counters()
		p := pipeIn(t, e, true, "pub")
		for i := range uint16(5) {
			var expiry []byte
			if i == 4 {
				expiry = []byte{2, 0, 0, 0, 1}
			}
			p.publish("t", "x", 1, i+1, expiry...)
			p.packet()
		}
		e.counted(t, before, map[string]int64{"sessions.overflowed": 2})
		time.Sleep(2 * time.Second)
		e.counted(t, before, map[string]int64{"sessions.overflowed": 2, "sessions.expired": 1})
	})
}
