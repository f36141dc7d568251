package mqtt_test

import (
	"fmt"
	"strconv"
	"testing"

	"millrace/mqtt"
)

// TestSharedMessagesWaitForWhoeverIsBack: a group of durable sessions, of which
// all but one leave for good. The one that returns gets everything.
func TestSharedMessagesWaitForWhoeverIsBack(t *testing.T) { // F14
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart=", restart), func(t *testing.T) {
			dir := t.TempDir()
			e := openDir(t, dir)
			var last *raw
			for i := range 5 {
				s, _ := keptIn(t, e, true, fmt.Sprint("m", i), false, 3600)
				if got := s.subscribe(1, 2, "$share/g/t"); got[0] != 1 {
					t.Fatalf("SUBACK is %x, want QoS 1", got)
				}
				if last != nil {
					_ = last.Close()
				}
				last = s
			}
			e.put(t, "t", "held")
			if m := last.recv(); m.payload != "held" || m.qos != 1 {
				t.Fatalf("got %+v", m)
			}
			e.offline(t, last)
			const n = 300
			for i := range n {
				e.put(t, "t", strconv.Itoa(i))
			}
			if restart {
				e.stop(t)
				e = openDir(t, dir)
			}
			s := resumed(t, e, true, "m4")
			seen := map[string]bool{}
			for len(seen) < n+1 {
				m := s.recv()
				if seen[m.payload] {
					t.Fatalf("%s came twice", m.payload)
				}
				seen[m.payload] = true
				s.settle(m)
			}
			s.quiet()
			e.offline(t, s)
			for i := range 5 { // all sessions end, and the group with them
				_, _ = keptIn(t, e, true, fmt.Sprint("m", i), true, 0)
			}
			if left, err := e.kept(); left != 0 || err != nil {
				t.Errorf("%d keys and targets are left, %v", left, err)
			}
		})
	}
}

// TestSharedMessagesGoToWhoIsThere passes over members that are away, and takes
// back what one that leaves had not acknowledged.
func TestSharedMessagesGoToWhoIsThere(t *testing.T) { // B26
	e := open(t)
	away, _ := keptIn(t, e, true, "away", false, 3600)
	away.subscribe(1, 1, "$share/g/t")
	one, _ := keptIn(t, e, true, "one", false, 3600, 33, 0, 20)
	one.subscribe(1, 1, "$share/g/t")
	e.offlineBut(t, away, 1)
	const n = 30
	for i := range n {
		e.put(t, "t", strconv.Itoa(i))
	}
	var held []message
	for range 20 {
		held = append(held, one.recv())
	}
	one.settle(held[:5]...)
	for range 5 {
		held = append(held, one.recv())
	}
	one.quiet() // its window is full
	two := login(t, e, true, "clean")
	two.send(two.subscribePacket(1, 1, nil, "$share/g/t"))
	var early []message
	for head, body := two.packet(); head != 0x90; head, body = two.packet() { // which need not come first
		early = append(early, two.parse(head, body))
	}
	next := func() (m message) {
		if len(early) == 0 {
			return two.recv()
		}
		m, early = early[0], early[1:]
		return m
	}
	for i := 25; i < n; i++ {
		m := next()
		if m.payload != strconv.Itoa(i) {
			t.Fatalf("got %+v, want %d", m, i)
		}
		two.settle(m)
	}
	e.offlineBut(t, one, 1)
	for i := 5; i < 25; i++ { // in their old order
		m := next()
		if m.payload != strconv.Itoa(i) {
			t.Fatalf("got %+v, want %d", m, i)
		}
		two.settle(m)
	}
	two.quiet()
}

// TestSharedMessagesOfQoS0AreLive: nobody keeps them for a group that is away.
func TestSharedMessagesOfQoS0AreLive(t *testing.T) {
	e := open(t)
	s, _ := keptIn(t, e, true, "s", false, 3600)
	s.subscribe(1, 1, "$share/g/t")
	p := login(t, e, true, "pub")
	p.publish("t", "zero", 0, 0)
	if m := s.recv(); m.payload != "zero" || m.qos != 0 {
		t.Fatalf("got %+v", m)
	}
	e.offlineBut(t, s, 1)
	p.publish("t", "gone", 0, 0)
	p.ping()
	s = resumed(t, e, true, "s")
	s.quiet()
}

// TestWhatAMemberHeldIsNotPushedOut by messages of QoS 0 that wait behind it: it
// goes back to where it is kept, and comes when there is room.
func TestWhatAMemberHeldIsNotPushedOut(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.BacklogMessages = 3 })
	a, _ := keptIn(t, e, true, "a", false, 3600, 33, 0, 1)
	a.subscribe(1, 1, "$share/g/t")
	b, _ := keptIn(t, e, true, "b", false, 3600, 33, 0, 1)
	b.subscribe(1, 1, "$share/g/t")
	e.put(t, "t", "one")
	e.put(t, "t", "two")
	held, got := a.recv(), b.recv()
	e.offlineBut(t, a, 1)
	p := login(t, e, true, "pub")
	for range 5 {
		p.publish("t", "live", 0, 0)
	}
	p.ping()
	b.settle(got)
	for m := b.recv(); m.payload != held.payload; m = b.recv() {
		if m.qos > 0 {
			t.Fatalf("got %+v, want %s", m, held.payload)
		}
	}
}

// TestAMemberGoesOnAfterAnotherUnsubscribed, whose window is full.
func TestAMemberGoesOnAfterAnotherUnsubscribed(t *testing.T) {
	e := open(t)
	a, _ := keptIn(t, e, true, "a", false, 3600, 33, 0, 1)
	a.subscribe(1, 1, "$share/g/t")
	b, _ := keptIn(t, e, true, "b", false, 3600, 33, 0, 1)
	b.subscribe(1, 1, "$share/g/t")
	for _, text := range []string{"one", "two", "three"} {
		e.put(t, "t", text)
	}
	first := a.recv()
	b.recv()
	b.sendHex("A2 0F 00 02 00 00 0A 2473686172652F672F74") // UNSUBSCRIBE $share/g/t
	b.packet()
	a.settle(first)
	if m := a.recv(); m.payload != "three" {
		t.Errorf("got %+v", m)
	}
}
