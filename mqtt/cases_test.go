package mqtt_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

func allow(filter string, do ...string) auth.Rule {
	return auth.Rule{Effect: "allow", Who: "anonymous", Do: do, Filter: filter}
}

// TestClientIDsAreNoWildcards: what a rule says about a client's own topics
// gains nothing by a client id that reads like a filter.
func TestClientIDsAreNoWildcards(t *testing.T) { // X039
	e := open(t)
	e.rules(t, allow("dev/%c/#", "publish", "subscribe"))
	for _, id := range []string{"#", "+", "a/#"} {
		s := login(t, e, true, id)
		if got := s.subscribe(1, 1, "dev/other/x"); got[0] != 0x87 {
			t.Errorf("client %q: SUBACK is %x", id, got)
		}
		s.publish("dev/other/x", "x", 1, 2)
		s.want("40 03 00 02 87")
	}
}

func TestSubscriptionsGetWhatTheyMayHave(t *testing.T) { // X144, X147, X148
	for _, row := range []struct {
		right, filter string
		code          byte
		arrive        string
	}{
		{"a/#", "#", 1, "a/b a/b/c"},
		{"s/+", "s/#", 1, "s/a"},
		{"a/b", "a/b/c", 0x87, ""},
		{"a/b", "a/+", 1, "a/b"},
	} {
		e := open(t)
		e.rules(t, allow(row.right, "subscribe"))
		s := login(t, e, true, "")
		if got := s.subscribe(1, 1, row.filter); got[0] != row.code {
			t.Errorf("%s with %s: SUBACK is %x", row.filter, row.right, got)
		}
		for _, topic := range []string{"a/b", "a/b/c", "s/a", "s/a/b", "x"} {
			e.put(t, topic, "m")
		}
		var got []string
		for range strings.FieldsSeq(row.arrive) {
			m := s.recv()
			got = append(got, m.topic)
			s.ackFor(m)
		}
		s.quiet()
		if g := strings.Join(got, " "); g != row.arrive {
			t.Errorf("%s with %s: got %q, want %q", row.filter, row.right, g, row.arrive)
		}
	}
}

// TestRetainedMessagesAndTime has what a month changes: nothing, but for what
// was asked for.
func TestRetainedMessagesAndTime(t *testing.T) { // X116, X118, X119, F17, F18
	bubble(t, func(t *testing.T, e *edge) {
		r := pipeIn(t, e, true, "r")
		retained := func(topic, payload string, props ...byte) {
			b := r.publishPacket(topic, payload, 1, 1, props...)
			b[0] |= 1
			r.send(b)
			r.packet()
		}
		retained("never/set", "")
		if n := e.broker.RetainedCount(); n != 0 {
			t.Errorf("clearing what was not there made %d retained messages", n)
		}
		retained("plain", "kept")
		retained("dressed", "kept", 0x03, 0, 1, 'c', 0x26, 0, 1, 'k', 0, 1, 'v')
		retained("short", "gone", 0x02, 0, 0, 0, 10)
		<-time.After(5 * time.Second)
		s := pipeIn(t, e, true, "s")
		s.subscribe(1, 1, "short")
		if m := s.recv(); len(m.props) != 5 || m.props[4] > 5 || m.props[4] < 4 {
			t.Errorf("after 5 s of 10: %+v", m)
		}
		<-time.After(years(30 * 24 * time.Hour))
		for i, v5 := range []bool{false, true} {
			s := pipeIn(t, e, v5, fmt.Sprint("late", i))
			s.subscribe(1, 1, "+")
			got := map[string]string{}
			for range 2 {
				m := s.recv()
				got[m.topic] = m.payload
				s.ackFor(m)
			}
			s.quiet()
			if len(got) != 2 || got["plain"] != "kept" || got["dressed"] != "kept" {
				t.Errorf("v5=%v after that: %v", v5, got)
			}
		}
		e.rules(t, deny("subscribe", "plain"))
		denied := pipeIn(t, e, false, "denied")
		denied.subscribe(1, 1, "+")
		if m := denied.recv(); m.topic != "dressed" {
			t.Errorf("without the right: %+v", m)
		}
		denied.quiet()
	})
}

// TestWhatWasNotAcknowledgedComesAgainInOrder: every second message was.
func TestWhatWasNotAcknowledgedComesAgainInOrder(t *testing.T) { // X114, F2
	for _, v5 := range []bool{false, true} {
		e := open(t)
		s, _ := keptIn(t, e, v5, "s", false, 3600)
		s.subscribe(1, 1, "t")
		const n = 20
		for i := range n {
			e.put(t, "t", fmt.Sprint(i))
		}
		for i := range n {
			if m := s.recv(); i%2 == 0 {
				s.ackFor(m)
			}
		}
		s.quiet()
		_ = s.Close()
		e.gone(t)
		e.put(t, "t", "new")
		s = resumed(t, e, v5, "s")
		for i := 1; i < n; i += 2 {
			if m := s.recv(); m.payload != fmt.Sprint(i) || !m.dup {
				t.Fatalf("v5=%v: got %+v, want %d again", v5, m, i)
			}
		}
		if m := s.recv(); m.payload != "new" || m.dup {
			t.Errorf("v5=%v: then got %+v", v5, m)
		}
	}
}

// TestACleanStartOnADeepSessionIsQuick: what waited goes, and nobody waits for that.
func TestACleanStartOnADeepSessionIsQuick(t *testing.T) { // X081
	e := openDir(t, t.TempDir())
	s, _ := keptIn(t, e, true, "s", false, 3600)
	s.subscribe(1, 1, "t")
	_ = s.Close()
	const n = 50_000
	for range n / 1000 {
		ms := make([]*broker.Message, 1000)
		for i := range ms {
			ms[i] = &broker.Message{Topic: "t", Payload: []byte("x"), QoS: 1}
		}
		if _, err := e.broker.PublishBatch(system(), ms); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	again, present := keptIn(t, e, true, "s", true, 0)
	if took := time.Since(start); present || took > 15*time.Second { // a second, on a machine that does nothing else
		t.Errorf("session present %v after %v", present, took)
	}
	again.quiet()
}

// TestSubscribingForEverTakesNoMemory subscribes and unsubscribes.
func TestSubscribingForEverTakesNoMemory(t *testing.T) { // X158
	e := open(t, silent)
	s := login(t, e, false, "s")
	_ = s.SetDeadline(noDeadline)
	turn := func(n int) {
		for i := range n {
			filter := fmt.Sprintf("a/%d/+/%d", i%1000, i)
			s.subscribe(1, 1, filter)
			b := append([]byte{0xA2, byte(4 + len(filter)), 0, 2, 0, byte(len(filter))}, filter...)
			s.send(b)
			s.want("B0 02 00 02")
		}
	}
	turn(1000)
	before := memory()
	turn(20_000)
	if heap, _ := memory().sub(before); int64(heap) > 1<<20 {
		t.Errorf("20,000 subscriptions that ended left %d bytes", int64(heap))
	}
}

// TestAPublishUnderManyWildcards meets a filter of every depth.
func TestAPublishUnderManyWildcards(t *testing.T) { // X159
	e := open(t)
	s := login(t, e, true, "s")
	for depth := 1; depth <= 200; depth++ {
		s.subscribe(1, 0, strings.TrimSuffix(strings.Repeat("+/", depth), "/"))
	}
	r := login(t, e, true, "r")
	start := time.Now()
	const n = 50
	for i := range n {
		r.publish("a/b/c/d/e", fmt.Sprint(i), 0, 0)
	}
	for range n {
		s.recv()
	}
	if took := time.Since(start); took > n*50*time.Millisecond {
		t.Errorf("%d publishes took %v, want 50 ms each at most", n, took)
	}
}
