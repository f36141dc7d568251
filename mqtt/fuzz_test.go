package mqtt_test

import (
	"testing"
	"time"
)

// FuzzPackets sends anything on a live connection: the process survives, and
// another client notices nothing. Each input is what follows a CONNECT.
func FuzzPackets(f *testing.F) {
	e := open(f, silent)
	e.queue(f, "q", "t/#")
	p5 := &raw{v5: true}
	for _, b := range [][]byte{
		p5.publishPacket("t/x", "x", 1, 1), p5.publishPacket("t/x", "x", 2, 1, 38, 0, 1, 'k', 0, 1, 'v'),
		p5.publishPacket("t/x", "x", 0, 0, 0x23, 0, 1, 2, 0, 0, 0, 1), p5.subscribePacket(1, 1, []byte{11, 1}, "t/#", "#"),
		{0x40, 2, 0, 1},
		{0x50, 2, 0, 1},
		{0x62, 2, 0, 1},
		{0x70, 2, 0, 1},
		{0xA2, 6, 0, 1, 0, 0, 1, 't'},
		{0xC0, 0},
		{0xE0, 2, 0, 0},
		{0xF0, 0},
		{0x82, 6, 0, 1, 0, 0, 1, 't'},
		{0x10, 0},
		{0x30, 0xFF, 0xFF, 0xFF, 0x7F},
	} {
		f.Add(b, true)
		f.Add(b, false)
	}
	witness := login(f, e, true, "witness")
	_ = witness.SetDeadline(time.Time{})
	f.Fuzz(func(t *testing.T, b []byte, v5 bool) {
		r := login(t, e, v5, "")
		_, _ = r.Write(b)
		_, _ = r.Write([]byte{0xE0, 0})
		_ = r.Close()
		witness.t = t
		witness.ping()
		if n := e.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

// FuzzConnect sends anything as the first bytes.
func FuzzConnect(f *testing.F) {
	e := open(f, silent)
	f.Add(connectPacket(true, "c", []byte{0x21, 0, 1, 17, 0, 0, 0, 1}))
	f.Add(connectPacket(false, "c", nil))
	f.Add([]byte{0x10, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := dial(t, e)
		_, _ = r.Write(b)
		_ = r.Close()
		if n := e.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}
