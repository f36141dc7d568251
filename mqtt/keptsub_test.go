package mqtt_test

import (
	"fmt"
	"strings"
	"testing"

	"millrace/broker/auth"
	"millrace/mqtt"
)

// offline closes s and waits until its session has no connection.
func (e *edge) offline(tb testing.TB, s *raw) {
	tb.Helper()
	_ = s.Close()
	e.gone(tb)
}

// TestOverlappingSubscriptionsMakeOneCopy keeps the highest QoS, and all
// identifiers, also of what waited.
func TestOverlappingSubscriptionsMakeOneCopy(t *testing.T) {
	e := open(t)
	s, _ := keptIn(t, e, true, "sub", false, 3600)
	for i, row := range []struct {
		opt    byte
		filter string
		id     byte
	}{{0, "a/#", 1}, {2, "a/+", 2}, {1, "#", 2}, {1, "b", 200}} {
		props := []byte{11, row.id}
		if row.id >= 128 {
			props = []byte{11, row.id, 1}
		}
		s.send(s.subscribePacket(uint16(i+1), row.opt, props, row.filter))
		s.suback()
	}
	for _, away := range []bool{false, true} {
		if away {
			e.offline(t, s)
		}
		e.put(t, "a/x", "over")
		e.put(t, "b", "two")
		if away {
			s = resumed(t, e, true, "sub")
		}
		got := map[string]message{}
		for range 2 {
			m := s.recv()
			got[m.payload] = m
		}
		over, two := got["over"], got["two"]
		s.settle(over, two)
		if over.qos != 2 || !strings.Contains(string(over.props), "\x0b\x01") || strings.Count(string(over.props), "\x0b") != 2 {
			t.Errorf("away=%v: got %+v", away, over)
		}
		if two.qos != 1 || len(two.props) != 5 {
			t.Errorf("away=%v: got %+v, want the identifiers 2 and 200", away, two)
		}
		s.quiet()
	}
}

// TestOptionsHoldForWhatWaited: No Local, Retain As Published, QoS 0.
func TestOptionsHoldForWhatWaited(t *testing.T) {
	e := open(t)
	s, _ := keptIn(t, e, true, "sub", false, 3600)
	s.subscribe(1, 1|8, "rap")
	s.subscribe(2, 1, "plain")
	s.subscribe(3, 1|4, "local")
	s.subscribe(4, 0, "zero")
	s.publish("local", "own", 1, 1)
	s.want("40 03 00 01 10")
	e.offline(t, s)
	p := login(t, e, true, "pub")
	for i, topic := range []string{"rap", "plain", "local", "zero"} {
		b := p.publishPacket(topic, topic, 1, uint16(i+1))
		b[0] |= 1
		p.send(b)
		p.packet()
	}
	p.publish("rap", "q0", 0, 0)
	p.ping()
	s = resumed(t, e, true, "sub")
	for i, want := range []string{"rap", "plain", "local"} {
		if m := s.recv(); m.payload != want || m.retain != (i == 0) || m.qos != 1 {
			t.Fatalf("got %+v, want %s", m, want)
		}
	}
	s.quiet()
	p.publish("zero", "now", 1, 9) // QoS 0 comes while the client is there
	p.packet()
	if m := s.recv(); m.payload != "now" || m.qos != 0 {
		t.Fatalf("got %+v", m)
	}
}

// TestRetainedMessagesAreTheSessions: what a subscription is owed comes again
// until it is acknowledged.
func TestRetainedMessagesAreTheSessions(t *testing.T) {
	e := open(t)
	p := login(t, e, true, "pub")
	for i := range 300 {
		b := p.publishPacket(fmt.Sprintf("r/%03d", i), "old", 1, 1)
		b[0] |= 1
		p.send(b)
		p.packet()
	}
	b := p.publishPacket("r/zero", "old", 0, 0)
	b[0] |= 1
	p.send(b)
	p.ping()
	s, _ := keptIn(t, e, true, "sub", false, 3600, 33, 0, 10)
	s.send(s.subscribePacket(1, 1, []byte{11, 5}, "r/#"))
	s.suback()
	zero := 0
	next := func() message {
		for {
			m := s.recv()
			if m.topic != "r/zero" {
				return m
			}
			zero++
		}
	}
	for range 10 {
		if m := next(); !m.retain || m.qos != 1 || string(m.props) != "\x0b\x05" {
			t.Fatalf("got %+v", m)
		}
	}
	e.offlineBut(t, s, 1)
	b = p.publishPacket("r/200", "new", 1, 1) // takes the place of the one that waits
	b[0] |= 1
	p.send(b)
	p.packet()
	s, _ = keptIn(t, e, true, "sub", false, 3600, 33, 0, 10)
	seen := map[string]string{}
	for len(seen) < 300 {
		m := next()
		if _, twice := seen[m.topic]; twice {
			t.Fatalf("%s came twice", m.topic)
		}
		seen[m.topic] = m.payload
		if m.retain != (m.topic != "r/200") {
			t.Fatalf("got %+v", m)
		}
		s.settle(m)
	}
	if seen["r/200"] != "new" || zero > 1 {
		t.Errorf("r/200 is %q, and QoS 0 came %d times", seen["r/200"], zero)
	}
	s.quiet()
}

// offlineBut is offline while n other clients are connected.
func (e *edge) offlineBut(tb testing.TB, s *raw, n int64) {
	tb.Helper()
	_ = s.Close()
	eventually(tb, "its end", func() bool { return e.Stats().Open == n })
}

// TestSubscriptionsAreWhatTheyWereAfterARestart: a refused one stays refused, a
// removed one removed, and names do not run into each other.
func TestSubscriptionsAreWhatTheyWereAfterARestart(t *testing.T) { // SB13, SB14, X042, X151
	dir := t.TempDir()
	e := openDir(t, dir)
	e.rules(t, deny("subscribe", "no/#"))
	a, _ := keptIn(t, e, true, "a:b", false, 3600)
	b, _ := keptIn(t, e, true, "a", false, 3600)
	if got := a.subscribe(1, 1, "c", "no/x", "gone", "later/x"); string(got) != "\x01\x87\x01\x01" {
		t.Fatalf("SUBACK is %x", got)
	}
	b.subscribe(1, 1, "b:c")
	a.send(packet(0xA2, append([]byte{0, 2, 0}, str(nil, "gone")...)))
	a.want("b0 04 00 02 00 00")
	_, _ = a.Close(), b.Close()
	e.gone(t)
	e.put(t, "later/x", "waits")
	e.stop(t)
	e = openDir(t, dir)
	e.rules(t, deny("subscribe", "later/#"))
	for _, topic := range []string{"c", "b:c", "no/x", "gone", "later/x"} {
		e.put(t, topic, topic)
	}
	a, b = resumed(t, e, true, "a:b"), resumed(t, e, true, "a")
	if m := a.recv(); m.payload != "c" {
		t.Errorf("got %+v", m)
	}
	if m := b.recv(); m.payload != "b:c" {
		t.Errorf("got %+v", m)
	}
	a.quiet()
	b.quiet()
	e.rules(t)
	e.put(t, "later/x", "back") // the right came back, the subscription did not
	a.quiet()
}

// TestBacklogIsBounded tries each policy at its edge.
func TestBacklogIsBounded(t *testing.T) { // P11
	for policy, want := range map[string][]string{"drop-oldest": {"3", "4", "5"}, "drop-newest": {"1", "2", "3"}, "refuse-publisher": {"1", "2", "3"}} {
		t.Run(policy, func(t *testing.T) {
			e := openPolicy(t, policy, 3)
			e.queue(t, "q", "t")
			s, _ := keptIn(t, e, true, "sub", false, 3600)
			s.subscribe(1, 1, "t")
			e.offline(t, s)
			p := login(t, e, true, "pub")
			for i := range uint16(5) {
				p.publish("t", fmt.Sprint(i+1), 1, i+1)
				if policy == "refuse-publisher" && i >= 3 {
					p.want(fmt.Sprintf("40 03 %04x 97", i+1))
				} else {
					p.want(fmt.Sprintf("40 02 %04x", i+1))
				}
			}
			stored := "ready=5 leased=0 delayed=0 dead=0"
			if policy == "refuse-publisher" {
				stored = "ready=3 leased=0 delayed=0 dead=0"
			}
			e.want(t, "q", stored)
			s = resumed(t, e, true, "sub")
			for _, w := range want {
				if m := s.recv(); m.payload != w {
					t.Errorf("got %+v, want %s", m, w)
				}
			}
			s.quiet()
		})
	}
}

// TestSubscriptionsAreLimited is about those of one session.
func TestKeptSubscriptionsAreLimited(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.MaxSubs = 2 })
	s, _ := keptIn(t, e, true, "sub", false, 3600)
	if got := s.subscribe(1, 1, "a", "b", "c"); string(got) != "\x01\x01\x97" {
		t.Fatalf("SUBACK is %x", got)
	}
	_ = s.Close()
	s = resumed(t, e, true, "sub")
	if got := s.subscribe(1, 1, "a", "c"); string(got) != "\x01\x97" {
		t.Fatalf("SUBACK after the reconnect is %x", got)
	}
}

// TestQueuedMessagesAreNotSentWithoutTheRight is about a right that goes while
// the client is away, and while it is there and its window is full.
func TestQueuedMessagesAreNotSentWithoutTheRight(t *testing.T) { // X151
	e := open(t)
	s, _ := keptIn(t, e, true, "sub", false, 3600, 33, 0, 1)
	s.subscribe(1, 1, "#")
	e.put(t, "secret/x", "1", "2", "3")
	e.put(t, "open/x", "4")
	first := s.recv()
	e.rules(t, auth.Rule{Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: "secret/#"})
	s.settle(first)
	m := s.recv()
	if m.payload != "4" || e.Stats().Dropped["denied"] != 2 {
		t.Fatalf("got %+v, and %d dropped", m, e.Stats().Dropped["denied"])
	}
	s.settle(m)
	s.ping()
	e.rules(t)
	e.offline(t, s)
	e.put(t, "secret/x", "5")
	e.put(t, "open/x", "6")
	e.rules(t, auth.Rule{Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: "secret/#"})
	s = resumed(t, e, true, "sub")
	if m := s.recv(); m.payload != "6" {
		t.Fatalf("got %+v", m)
	}
	s.quiet()
}
