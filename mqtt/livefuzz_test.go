package mqtt_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/mqtt"
)

// seeds are packets of both versions that keep the rules.
var seeds = []string{
	"10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 61",
	"10 0E 00 04 4D 51 54 54 05 02 00 3C 00 00 01 61",
	"10 13 00 04 4D 51 54 54 05 02 00 3C 05 11 00 00 00 3C 00 01 61",
	"10 16 00 04 4D 51 54 54 04 0E 00 3C 00 01 61 00 03 61 2F 62 00 02 78 79",
	"30 06 00 03 61 2F 62 78", "32 09 00 03 61 2F 62 00 01 00 78", "34 09 00 03 61 2F 62 00 01 00 78",
	"30 0A 00 03 61 2F 62 03 23 00 01 78", "40 02 00 01", "50 02 00 01", "62 02 00 01", "70 02 00 01", "40 04 00 01 10 00",
	"82 08 00 01 00 03 61 2F 23 01", "82 09 00 01 00 00 03 61 2F 23 01", "82 0F 00 01 00 00 09 24 71 2F 71 75 65 75 65 73 01",
	"82 0E 00 01 00 00 08 24 73 68 61 72 65 2F 67 01", "A2 08 00 01 00 00 03 61 2F 23", "C0 00", "E0 00", "E0 02 04 00", "F0 02 18 00",
}

// mutate makes a stream of packets, some of them broken.
func mutate(r *rand.Rand) []byte {
	var stream []byte
	for range 1 + r.IntN(8) {
		text := seeds[r.IntN(len(seeds))]
		if len(stream) == 0 && r.IntN(8) > 0 { // mostly past the login
			text = seeds[r.IntN(4)]
		}
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			panic(err) // the seed has a mistake
		}
		if r.IntN(2) == 0 {
			for range 1 + r.IntN(3) {
				switch i := r.IntN(len(b)); r.IntN(4) {
				case 0:
					b[i] = byte(r.Uint32())
				case 1:
					b[i] ^= 1 << r.IntN(8)
				case 2:
					b = append(b[:i], b[min(len(b), i+1+r.IntN(3)):]...)
				case 3:
					b = append(b[:i:i], append([]byte{byte(r.Uint32()), byte(r.Uint32())}, b[i:]...)...)
				}
				if len(b) == 0 {
					b = []byte{0}
				}
			}
		}
		stream = append(stream, b...)
	}
	return stream
}

// TestBrokenPacketsDisturbNobody sends streams of good and broken packets over
// live sockets of every transport, while two clients talk to each other. Each
// run has streams of its own; MILLRACE_STREAMS says how many.
func TestBrokenPacketsDisturbNobody(t *testing.T) { // test 26
	streams, err := strconv.Atoi(os.Getenv("MILLRACE_STREAMS"))
	if err != nil {
		streams = 400
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := openPlaces(t, func(o *mqtt.Options) { o.RivalsFrom = -1 }) // all of them are client a
	p.queue(t, "q", "a/#")
	ann, bob := login(t, p.edge, true, "ann"), login(t, p.edge, false, "bob")
	bob.subscribe(1, 1, "talk")
	_ = ann.SetDeadline(time.Now().Add(2 * time.Minute))
	_ = bob.SetDeadline(time.Now().Add(2 * time.Minute))
	for i := range streams {
		kind := kinds[r.IntN(len(kinds))]
		stream := mutate(r)
		c := p.dial(t, kind)
		_, _ = c.Write(stream)
		if r.IntN(3) == 0 {
			_ = c.SetDeadline(time.Now().Add(20 * time.Millisecond))
			_, _ = io.Copy(io.Discard, c)
		}
		_ = c.Close()
		ann.publish("talk", fmt.Sprint(i), 1, uint16(i+1))
		ann.packet()
		m := bob.recv()
		if bob.ackFor(m); m.payload != fmt.Sprint(i) {
			t.Fatalf("after %x over %s: %+v", stream, kind, m)
		}
		if n := p.Stats().Panics; n > 0 {
			t.Fatalf("%x over %s made a panic:\n%s", stream, kind, p.log)
		}
	}
	eventually(t, "all of them are gone", func() bool { return p.Stats().Open == 2 })
}
