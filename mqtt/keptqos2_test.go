package mqtt_test

import (
	"fmt"
	"testing"
)

// TestRepeatedQoS2PublishIsStoredOnce has the id recorded with the message: it
// names it over reconnects and restarts, until PUBREL.
func TestRepeatedQoS2PublishIsStoredOnce(t *testing.T) { // SB19, X111, X112
	for _, v5 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v5=%v", v5), func(t *testing.T) {
			dir := t.TempDir()
			e := openDir(t, dir)
			e.queue(t, "q", "t")
			p, _ := keptIn(t, e, v5, "pub", false, 3600)
			p.publish("t", "first", 2, 7)
			p.want("50 02 00 07")
			p.publish("t", "other payload", 2, 7)
			p.want("50 02 00 07")
			_ = p.Close()
			p = resumed(t, e, v5, "pub")
			p.publish("t", "again", 2, 7)
			p.want("50 02 00 07")
			e.stop(t)

			e = openDir(t, dir)
			p = resumed(t, e, v5, "pub")
			p.publish("t", "and again", 2, 7)
			p.want("50 02 00 07")
			p.sendHex("62 02 00 07")
			p.want("70 02 00 07")
			e.want(t, "q", "ready=1 leased=0 delayed=0 dead=0")
			e.stop(t)

			e = openDir(t, dir)
			p = resumed(t, e, v5, "pub")
			p.sendHex("62 02 00 07") // its PUBCOMP may have been lost
			if v5 {
				p.want("70 03 00 07 92")
			} else {
				p.want("70 02 00 07")
			}
			p.publish("t", "second", 2, 7) // the id is free
			p.want("50 02 00 07")
			e.want(t, "q", "ready=2 leased=0 delayed=0 dead=0")
		})
	}
}

// TestReleaseOfAnIDIsRecordedBeforePubcomp holds back the store's fsync.
func TestReleaseOfAnIDIsRecordedBeforePubcomp(t *testing.T) {
	e := open(t)
	p, _ := keptIn(t, e, true, "pub", false, 3600)
	p.publish("t", "x", 2, 7)
	p.want("50 03 00 07 10")
	e.store.hold()
	p.sendHex("62 02 00 07 62 02 00 07") // once, however often
	p.quiet()
	e.store.open()
	p.want("70 02 00 07")
	p.quiet()
}

// TestReleaseOfADeliveryIsGoneThrough takes a QoS 2 delivery through a
// disconnect, or a restart, at each of its steps.
func TestReleaseOfADeliveryIsGoneThrough(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("v5=%v/restart=%v", v5, restart), func(t *testing.T) {
				dir := t.TempDir()
				e := openDir(t, dir)
				s, _ := keptIn(t, e, v5, "sub", false, 3600)
				s.subscribe(1, 2, "t")
				again := func() {
					_ = s.Close()
					e.gone(t)
					if restart {
						e.stop(t)
						e = openDir(t, dir)
					}
					s = resumed(t, e, v5, "sub")
				}
				e.put(t, "t", "one", "two")
				one, two := s.recv(), s.recv()
				s.sendHex(fmt.Sprintf("50 02 %04x", one.id))
				s.want(fmt.Sprintf("62 02 %04x", one.id))
				again()
				s.want(fmt.Sprintf("62 02 %04x", one.id)) // and not the message
				if m := s.recv(); m.payload != "two" || !m.dup || m.id != two.id {
					t.Fatalf("got %+v, want two again", m)
				}
				s.sendHex(fmt.Sprintf("70 02 %04x", one.id))
				s.sendHex(fmt.Sprintf("50 02 %04x", two.id))
				s.want(fmt.Sprintf("62 02 %04x", two.id))
				s.quiet()
				again()
				s.want(fmt.Sprintf("62 02 %04x", two.id))
				s.sendHex(fmt.Sprintf("70 02 %04x", two.id))
				s.quiet()
				again()
				s.quiet()
			})
		}
	}
}

// TestPubrelWaitsForTheRecordOfPubrec holds back the store's fsync.
func TestPubrelWaitsForTheRecordOfPubrec(t *testing.T) {
	e := open(t)
	s, _ := keptIn(t, e, true, "sub", false, 3600)
	s.subscribe(1, 2, "t")
	e.put(t, "t", "x")
	m := s.recv()
	e.store.hold()
	s.sendHex(fmt.Sprintf("50 02 %04x", m.id))
	s.quiet()
	e.store.open()
	s.want(fmt.Sprintf("62 02 %04x", m.id))
}

func TestRefusedDeliveryIsNotSentAgain(t *testing.T) {
	e := open(t)
	s, _ := keptIn(t, e, true, "sub", false, 3600)
	s.subscribe(1, 2, "t")
	e.put(t, "t", "x")
	m := s.recv()
	s.sendHex(fmt.Sprintf("50 03 %04x 83", m.id))
	s.quiet()
	_ = s.Close()
	s = resumed(t, e, true, "sub")
	s.quiet()
}

// TestIDsOfBothDirectionsHaveNothingToDoWithEachOther uses the id of a delivery
// for everything that a client sends, before and after a reconnect.
func TestIDsOfBothDirectionsHaveNothingToDoWithEachOther(t *testing.T) { // B1, B2
	for _, qos := range []byte{1, 2} {
		e := open(t)
		s, _ := keptIn(t, e, true, "sub", false, 3600)
		s.subscribe(1, qos, "t")
		e.put(t, "t", "x")
		m := s.recv()
		for range 2 {
			s.publish("away", "y", 1, m.id)
			s.want(fmt.Sprintf("40 03 %04x 10", m.id))
			s.publish("away", "y", 2, m.id)
			s.want(fmt.Sprintf("50 03 %04x 10", m.id))
			s.sendHex(fmt.Sprintf("62 02 %04x", m.id))
			s.want(fmt.Sprintf("70 02 %04x", m.id))
			if got := s.subscribe(m.id, 1, "other"); got[0] != 1 {
				t.Fatalf("SUBACK is %x", got)
			}
			s.send(packet(0xA2, append([]byte{byte(m.id >> 8), byte(m.id), 0}, str(nil, "other")...)))
			s.want(fmt.Sprintf("b0 04 %04x 00 00", m.id))
			_ = s.Close()
			s = resumed(t, e, true, "sub")
			if got := s.recv(); got.id != m.id || !got.dup {
				t.Fatalf("got %+v, want %+v again", got, m)
			}
		}
	}
}
