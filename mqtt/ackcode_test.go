package mqtt_test

import "testing"

// TestReasonCodesOfOtherPacketsAreRefused has acks that nobody waits for, with
// codes that they may and may not have: sections 3.4.2.1 to 3.7.2.1.
func TestReasonCodesOfOtherPacketsAreRefused(t *testing.T) {
	e := open(t)
	for _, row := range []struct {
		ack string
		ok  bool
	}{
		{"40 03 00 01 00", true},
		{"40 03 00 01 10", true},
		{"40 03 00 01 97", true},
		{"40 03 00 01 FF", false},
		{"40 03 00 01 92", false},
		{"50 03 00 01 20", false},
		{"62 03 00 01 92", true},
		{"62 03 00 01 80", false},
		{"62 04 00 01 FF 00", false},
		{"70 03 00 01 92", true},
		{"70 03 00 01 20", false},
	} {
		r := login(t, e, true, "")
		r.sendHex(row.ack)
		if !row.ok {
			r.wantEnd(0x82)
			continue
		}
		r.sendHex("C0 00")
		for {
			if head, _ := r.packet(); head == 0xD0 {
				break
			}
		}
	}
}

func TestEmptyFilterInUnsubscribe(t *testing.T) { // section 4.7.3
	e := open(t)
	r := login(t, e, true, "")
	r.sendHex("A2 08 00 01 00 00 01 61 00 00")
	r.wantEnd(0x81)
	r = login(t, e, false, "")
	r.sendHex("A2 07 00 01 00 01 61 00 00")
	r.wantEnd(0)
}
