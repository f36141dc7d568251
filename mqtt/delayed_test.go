package mqtt_test

import (
	"strings"
	"testing"
	"time"

	"millrace/mqtt"
)

func TestDelayedPublish(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		bubble(t, func(t *testing.T, e *edge) {
			s, r := pipeIn(t, e, v5, "s"), pipeIn(t, e, v5, "r")
			s.subscribe(1, 2, "#")
			for i, topic := range []string{"$delayed/10/t/1", "$delayed/0/now"} {
				r.publish(topic, topic, 1, uint16(i+1))
				if head, b := r.packet(); head != 0x40 || len(b) > 2 && b[2] >= 0x80 {
					t.Fatalf("%s: got %x %x", topic, head, b)
				}
			}
			if m := s.recv(); m.topic != "now" {
				t.Errorf("got %+v", m)
			}
			start := time.Now()
			if m := s.recv(); m.topic != "t/1" || m.payload != "$delayed/10/t/1" || m.qos != 1 || m.retain {
				t.Errorf("got %+v", m)
			}
			if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
				t.Errorf("came after %v", d)
			}
		})
	}
}

func TestDelayedPublishInABadForm(t *testing.T) {
	bad := []string{
		"$delayed", "$delayed/", "$delayed/5", "$delayed/5/", "$delayed/x/t", "$delayed/-1/t", "$delayed/1.5/t", "$delayed/604801/t",
		"$delayed/5/$SYS/x", "$delayed/5/$queue/x", "$delayed/5/$delayed/5/t", "$DELAYED/x/t", "$delayed/99999999999/t",
		"$delayed/5/" + strings.Repeat("x", 1025),
	}
	e := open(t)
	e.queue(t, "q", "#")
	r, old := login(t, e, true, ""), login(t, e, false, "")
	strict := open(t, func(o *mqtt.Options) { o.CloseOnDeny = true })
	for _, topic := range bad {
		r.publish(topic, "x", 1, 1)
		r.want("40 03 00 01 90")
		r.publish(topic, "x", 2, 1)
		r.want("50 03 00 01 90")
		r.publish(topic, "x", 0, 0)
		old.publish(topic, "x", 1, 1)
		old.want("40 02 00 01")
		z := login(t, strict, false, "")
		z.publish(topic, "x", 1, 1)
		z.wantEnd(0)
	}
	r.ping()
	if n := e.store.published(); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
}

// TestRightsOfDelayedPublish: the right is that to publish to the topic.
func TestRightsOfDelayedPublish(t *testing.T) {
	e := open(t)
	e.rules(t, deny("publish", "secret/#"))
	r := login(t, e, true, "")
	r.publish("$delayed/5/secret/x", "x", 1, 1)
	r.want("40 03 00 01 87")
}

func TestIdempotencyKeyOfAPublish(t *testing.T) {
	property := func(key string) []byte { // user property, section 3.3.2.3.7
		b := append([]byte{0x26, 0, 15}, "idempotency-key"...)
		return append(append(b, byte(len(key)>>8), byte(len(key))), key...)
	}
	e := open(t)
	e.queue(t, "q", "t")
	r := login(t, e, true, "")
	for i, c := range []struct{ payload, key, ack string }{
		{"1", "a", "40 02 00 01"},
		{"1", "a", "40 02 00 02"},                         // a repeat is as good as the first
		{"2", "a", "40 03 00 03 83"},                      // another message under the key is not
		{"2", "b", "40 02 00 04"},                         //
		{"3", strings.Repeat("k", 129), "40 03 00 05 83"}, // longer than 128
		{"3", strings.Repeat("k", 128), "40 02 00 06"},    //
	} {
		r.publish("t", c.payload, 1, uint16(i+1), property(c.key)...)
		r.want(c.ack)
	}
	e.want(t, "q", "ready=3 leased=0 delayed=0 dead=0")
}
