package mqtt_test

import (
	"bytes"
	"strings"
	"testing"

	"millrace/mqtt"
)

// TestBadPacketEndsTheConnection has the rows of the catalogue (5.3, 5.4) after
// which the connection is closed: with DISCONNECT and code in MQTT 5, by just
// closing in 3.1.1.
func TestBadPacketEndsTheConnection(t *testing.T) {
	e := open(t)
	for _, row := range []struct {
		id, v3, v5 string
		code       byte
	}{
		{"X067", "10 0D" + c4body, "10 0E" + c5body, 0x82},
		{"X082", "36 07 00 01 74 00 01 61 62", "36 07 00 01 74 00 01 00 61", 0x81},
		{"X083", "38 04 00 01 74 61", "38 05 00 01 74 00 61", 0x82},
		{"X084", "32 06 00 01 74 00 00 61", "32 07 00 01 74 00 00 00 61", 0x82},
		{"X086", "32 07 00 03 61 2F 2B 00 01", "32 08 00 03 61 2F 2B 00 01 00", 0x90},
		{"X086 hash", "30 05 00 03 61 2F 23", "30 06 00 03 61 2F 23 00", 0x90},
		{"X087", "32 04 00 00 00 01", "32 05 00 00 00 01 00", 0x82},
		{"X088 NUL", "30 03 00 01 00", "30 04 00 01 00 00", 0x81},
		{"X088 surrogate", "30 05 00 03 ED A0 80", "30 06 00 03 ED A0 80 00", 0x81},
		{"X088 overlong", "30 04 00 02 C0 AF", "30 05 00 02 C0 AF 00", 0x81},
		{"X093", "", "30 08 00 01 74 03 23 00 00 61", 0x94},
		{"X094", "", "30 08 00 01 74 03 23 00 21 61", 0x94},
		{"X097", "", "30 07 00 00 03 23 00 01 61", 0x82},
		{"X098", "", "30 07 00 01 74 02 0B 01 61", 0x82},
		{"X103", "", "30 0B 00 01 74 06 08 00 03 61 2F 23 61", 0x82},
		{"property twice", "", "30 09 00 01 74 04 01 00 01 00 61", 0x82},
		{"unknown property", "", "30 07 00 01 74 02 04 00 61", 0x81},
		{"format 2", "", "30 07 00 01 74 02 01 02 61", 0x82},
		{"X121 CONNACK", "20 02 00 00", "20 03 00 00 00", 0x82},
		{"X121 SUBACK", "90 03 00 01 00", "90 04 00 01 00 00", 0x82},
		{"X121 UNSUBACK", "B0 02 00 01", "B0 04 00 01 00 00", 0x82},
		{"X121 PINGRESP", "D0 00", "D0 00", 0x82},
		{"X122 flags", "C1 00", "C1 00", 0x81},
		{"X122 body", "C0 01 00", "C0 01 00", 0x81},
		{"X123", "E1 00", "E1 00", 0x81},
		{"X124", "", "E0 07 00 05 11 00 00 00 0A", 0x82},
		{"X126", "", "F0 00", 0x82},
		{"X131", "82 02 00 01", "82 03 00 01 00", 0x82},
		{"X136", "", "82 10 00 01 00 00 0A 24 73 68 61 72 65 2F 67 2F 74 05", 0x82},
		{"X132", "82 05 00 01 00 00 00", "82 06 00 01 00 00 00 00", 0x81},
		{"X132 beside another", "82 09 00 01 00 01 74 00 00 00 00", "82 0A 00 01 00 00 01 74 00 00 00 00", 0x81},
		{"X137 QoS 3", "82 06 00 01 00 01 74 03", "82 07 00 01 00 00 01 74 03", 0x81},
		{"X137 reserved", "82 06 00 01 00 01 74 40", "82 07 00 01 00 00 01 74 40", 0x81},
		{"X138", "", "82 07 00 01 00 00 01 74 30", 0x82},
		{"X139 zero", "", "82 09 00 01 02 0B 00 00 01 74 00", 0x82},
		{"X139 twice", "", "82 0B 00 01 04 0B 01 0B 02 00 01 74 00", 0x82},
		{"truncated SUBSCRIBE, on which mochi's decoder panics", "82 05 00 01 00 01 74", "82 06 00 01 00 00 01 74", 0x81},
		{"SUBSCRIBE with flags 0", "80 06 00 01 00 01 74 00", "80 07 00 01 00 00 01 74 00", 0x81},
		{"SUBSCRIBE with id 0", "82 06 00 00 00 01 74 00", "82 07 00 00 00 00 01 74 00", 0x82},
		{"X156", "A2 02 00 01", "A2 03 00 01 00", 0x82},
		{"UNSUBSCRIBE with id 0", "A2 05 00 00 00 01 74", "A2 06 00 00 00 00 01 74", 0x82},
		{"PUBACK of one byte", "40 01 00", "40 01 00", 0x81},
		{"PUBREL with flags 0", "60 02 00 01", "60 02 00 01", 0x81},
		{"packet type 0", "00 00", "00 00", 0x81},
		{"length of five bytes", "30 80 80 80 80 01", "30 80 80 80 80 01", 0x81},
		{"length not minimal", "", "C0 80 00", 0x81},
		{"X104 packet", "30 81 80 84 02", "30 81 80 84 02", 0x95},
	} {
		for v5, send := range map[bool]string{false: row.v3, true: row.v5} {
			if send == "" {
				continue
			}
			name := row.id + " 3.1.1"
			if v5 {
				name = row.id + " v5"
			}
			t.Run(name, func(t *testing.T) {
				r := login(t, e, v5, "")
				r.sendHex(send)
				r.wantEnd(row.code)
			})
		}
	}
	if n := e.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func TestNamesAtTheLimitsOfTopics(t *testing.T) {
	e := open(t)
	for _, topic := range []string{strings.Repeat("a", 1024), strings.Repeat("/", 200)} {
		r := login(t, e, true, "")
		r.publish(topic, "x", 1, 1)
		r.want("40 03 00 01 10")
		if got := r.subscribe(2, 0, topic); !bytes.Equal(got, []byte{0}) {
			t.Errorf("SUBACK is %x", got)
		}
		for _, v5 := range []bool{false, true} {
			r := login(t, e, v5, "")
			r.publish(topic+topic[:1], "x", 1, 1) // X089
			r.wantEnd(0x90)
			r = login(t, e, v5, "")
			r.send(r.subscribePacket(1, 0, nil, topic+topic[:1])) // X143
			if !v5 {
				r.wantEnd(0)
			} else if got := r.suback(); !bytes.Equal(got, []byte{0x8F}) {
				t.Errorf("SUBACK is %x, want 8F", got)
			}
		}
	}
}

func TestEndlessSlashesAreRefusedAtOnce(t *testing.T) { // B16, SB16
	e := open(t)
	r := login(t, e, true, "")
	r.publish(strings.Repeat("/", 65_535), "", 1, 1)
	r.wantEnd(0x90)
}

// TestPublishThatGoesNowhereIsAnswered is X091, B21: a client that waits for
// an ack must get one.
func TestPublishThatGoesNowhereIsAnswered(t *testing.T) {
	e := open(t)
	for _, topic := range []string{
		"$SYS/x", "$events/x", "$share/g/t", "$queue/q", "$q/q", "$stream/s",
	} {
		r := login(t, e, true, "")
		r.publish(topic, "x", 1, 7)
		r.want("40 03 00 07 90")
		r.publish(topic, "x", 2, 8)
		r.want("50 03 00 08 90")
		r.publish(topic, "x", 0, 0)
		r.ping()
		r = login(t, e, false, "")
		r.publish(topic, "x", 1, 7)
		r.want("40 02 00 07")
		r.publish(topic, "x", 2, 8)
		r.want("50 02 00 08")
		r.send([]byte{0x62, 2, 0, 8})
		r.want("70 02 00 08")
		r.publish(topic, "x", 0, 0)
		r.ping()
	}
	if n := e.Stats().Dropped["reserved"]; n != 6*6 {
		t.Errorf("%d dropped as reserved, want 36", n)
	}
	for _, topic := range []string{"$any/x", "$SYSTEM/x"} { // ordinary topics
		s, r := login(t, e, true, ""), login(t, e, true, "")
		s.subscribe(1, 1, topic)
		r.publish(topic, "x", 1, 1)
		r.want("40 02 00 01")
		if m := s.recv(); m.topic != topic {
			t.Errorf("got %+v", m)
		}
	}
}

func TestPayloadsAtTheLimit(t *testing.T) { // X104
	e := open(t, func(o *mqtt.Options) { o.MaxPayload = 100_000; o.MaxPacket = 120_000 })
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 0, "t")
	big := strings.Repeat("x", 100_000)
	r.publish("t", big, 1, 1)
	r.want("40 02 00 01")
	if m := s.recv(); m.payload != big {
		t.Errorf("payload of %d bytes came out", len(m.payload))
	}
	r.publish("t", big+"x", 1, 2)
	r.wantEnd(0x95)
	r = login(t, e, true, "")
	r.publish("t", big+big, 1, 2)
	r.wantEnd(0x95)
}

func TestFormatIndicatorIsHeldToItsWord(t *testing.T) { // X099
	e := open(t)
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "t")
	r.publish("t", "\xff", 1, 1, 1, 1)
	r.want("40 03 00 01 99")
	r.publish("t", "\xff", 2, 2, 1, 1)
	r.want("50 03 00 02 99")
	r.publish("t", "\xff", 0, 0, 1, 1)
	r.publish("t", "ö", 1, 3, 1, 1)
	r.want("40 02 00 03")
	if m := s.recv(); m.payload != "ö" || !bytes.Equal(m.props, []byte{1, 1}) {
		t.Errorf("got %+v", m)
	}
}

func TestSubscribeAnswersEachFilter(t *testing.T) {
	e := open(t)
	e.rules(t, deny("subscribe", "secret/#"))
	for _, row := range []struct {
		id, filter string
		v5, v3     byte
	}{
		{"plain", "a/b", 1, 1},
		{"X133", "a#", 0x8F, 0x80},
		{"X133", "#/a", 0x8F, 0x80},
		{"X133", "a/#/b", 0x8F, 0x80},
		{"X133", "a+", 0x8F, 0x80},
		{"X133", "+a", 0x8F, 0x80},
		{"X133", "a/+b", 0x8F, 0x80},
		{"X134", "$share//t", 0x8F, 0x80},
		{"X134", "$share/g", 0x8F, 0x80},
		{"X134", "$share/g/", 0x8F, 0x80},
		{"X134", "$share/+/t", 0x8F, 0x80},
		{"X134", "$share/g#/t", 0x8F, 0x80},
		{"shared", "$share/g/t", 1, 1},
		{"shared queue", "$share/g/$queue/q", 0x83, 0x80},
		{"shared stream", "$share/g/$stream/s", 0x83, 0x80},
		{"X146", "$share/any/secret/x", 0x87, 0x80},
		{"X146", "$share/any/#", 1, 1},
		{"share of a share", "$share/g/$share/g/t", 0x8F, 0x80},
		{"$SHARE is no $share", "$SHARE/g/t", 1, 1},
		{"no such queue", "$queue/q", 0x83, 0x80},
		{"no such queue", "$q/q", 0x83, 0x80},
		{"no such stream", "$stream/s", 0x83, 0x80},
		{"X149", "$SYS/#", 0x87, 0x80},
		{"denied", "secret/x", 0x87, 0x80},
		{"overlaps a denial", "#", 1, 1},
	} {
		for v5, want := range map[bool]byte{true: row.v5, false: row.v3} {
			r := login(t, e, v5, "")
			if got := r.subscribe(1, 1, row.filter); len(got) != 1 || got[0] != want {
				t.Errorf("%s: SUBACK of %q (v5 %v) is %x, want %02x", row.id, row.filter, v5, got, want)
			}
		}
	}
	r := login(t, e, true, "")
	r.send(r.subscribePacket(1, 1, nil, "$stream/s"))
	if _, body := r.packet(); !bytes.Contains(body, []byte("does not exist")) {
		t.Errorf("SUBACK %x has no reason string", body)
	}
}

func TestSubscriptionsHaveLimits(t *testing.T) { // X141, X142
	e := open(t, func(o *mqtt.Options) { o.MaxFilters = 3; o.MaxSubs = 4 })
	for _, v5 := range []bool{true, false} {
		over := byte(0x80)
		if v5 {
			over = 0x97
		}
		r := login(t, e, v5, "")
		if got := r.subscribe(1, 0, "a", "b", "c", "d"); !bytes.Equal(got, []byte{0, 0, 0, over}) {
			t.Errorf("SUBACK is %x", got)
		}
		if got := r.subscribe(2, 0, "d", "e", "a"); !bytes.Equal(got, []byte{0, over, 0}) {
			t.Errorf("SUBACK is %x", got)
		}
	}
}

func TestUnsubscribe(t *testing.T) { // X154
	e := open(t)
	r := login(t, e, true, "")
	r.subscribe(1, 0, "a")
	r.sendHex("A2 09 00 02 00 00 01 61 00 01 62")
	r.want("B0 05 00 02 00 00 11")
	r.publish("a", "x", 1, 3)
	r.want("40 03 00 03 10")
	r = login(t, e, false, "")
	r.sendHex("A2 05 00 02 00 01 61")
	r.want("B0 02 00 02")
}

func TestDeniedPublish(t *testing.T) { // X092
	for _, closing := range []bool{false, true} {
		e := open(t, func(o *mqtt.Options) { o.CloseOnDeny = closing })
		e.rules(t, deny("publish", "no/#"))
		s := login(t, e, true, "")
		s.subscribe(1, 2, "no/#")
		r := login(t, e, true, "")
		r.publish("no/x", "x", 0, 0)
		r.publish("no/x", "x", 1, 1)
		r.publish("no/x", "x", 2, 2)
		r.want("40 03 00 01 87", "50 03 00 02 87")
		r = login(t, e, false, "")
		r.publish("no/x", "x", 1, 1)
		if closing {
			r.wantEnd(0)
		} else {
			r.publish("no/x", "x", 2, 2)
			r.publish("no/x", "x", 0, 0)
			r.want("40 02 00 01", "50 02 00 02")
			r.ping()
			if n := e.Stats().Dropped["denied"]; n != 6 {
				t.Errorf("%d dropped as denied, want 6", n)
			}
			if !strings.Contains(e.log.String(), "publish refused") {
				t.Error("nothing was logged")
			}
		}
		s.ping() // nothing was delivered
	}
}
