package mqtt_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"millrace/mqtt"
)

const (
	c4body = "00 04 4D 51 54 54 04 02 00 3C 00 01 61"
	c5body = "00 04 4D 51 54 54 05 02 00 3C 00 00 01 61"
)

// TestFirstPacketThatIsNoConnectIsRefused has the rows of the catalogue of bad
// inputs (5.1, 5.2) that one packet can show: what is sent, and all that comes
// back before the close.
func TestFirstPacketThatIsNoConnectIsRefused(t *testing.T) {
	e := open(t)
	long := func(n int) string { return strings.Repeat("61", n) }
	for _, row := range []struct{ id, send, want string }{
		{"X004", "10 FF FF FF 7F", ""},
		{"X006", "10 8D 80 80 80 00" + c4body, ""},
		{"X007", "10 80 80 80 80", ""},
		{"X008", "10 8E 00" + c5body, "20 03 00 81 00"},
		{"X009", "30 06 00 03 61 2F 62 78", ""},
		{"X011", "00 00", ""},
		{"X012", "F0 00", ""},
		{"X013", "E0 00", ""},
		{"X017", "11 0D" + c4body, ""},
		{"X021", "10 0D 00 04 4D 51 54 55 04 02 00 3C 00 01 61", ""},
		{"X022 level 4", "10 0F 00 06 4D 51 49 73 64 70 04 02 00 3C 00 01 61", "20 02 00 01"},
		{"X023", "10 0D 00 04 4D 51 54 54 06 02 00 3C 00 01 61", "20 03 00 84 00"},
		{"X024", "10 0D 00 04 4D 51 54 54 84 02 00 3C 00 01 61", "20 02 00 01"},
		{"X026", "10 0D 00 04 4D 51 54 54 04 0A 00 3C 00 01 61", ""},
		{"X026 v5", "10 0E 00 04 4D 51 54 54 05 0A 00 3C 00 00 01 61", "20 03 00 81 00"},
		{"X027 v5", "10 0E 00 04 4D 51 54 54 05 22 00 3C 00 00 01 61", "20 03 00 81 00"},
		{"X028 v5", "10 0E 00 04 4D 51 54 54 05 1E 00 3C 00 00 01 61", "20 03 00 81 00"},
		{"X029 v5", "10 0E 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61", "20 03 00 81 00"},
		{"X029", "10 0D 00 04 4D 51 54 54 04 06 00 3C 00 01 61", ""},
		{"X031 v5", "10 0F" + c5body + "00", "20 03 00 81 00"},
		{"X031", "10 0E" + c4body + "00", ""},
		{"X032 v5", "10 10 00 04 4D 51 54 54 05 02 00 3C 00 FF FF 61 61 61", "20 03 00 81 00"},
		{"X033 v5", "10 0E 00 04 4D 51 54 54 05 02 00 3C 00 00 01 00", "20 03 00 81 00"},
		{"X034 v5", "10 10 00 04 4D 51 54 54 05 02 00 3C 00 00 03 ED A0 80", "20 03 00 81 00"},
		{"X036", "10 10 00 04 4D 51 54 54 04 02 00 3C 00 04 61 0D 0A 62", "20 02 00 02"},
		{"X036 v5", "10 11 00 04 4D 51 54 54 05 02 00 3C 00 00 04 61 0D 0A 62", "20 03 00 85 00"},
		{"X037", "10 8D 02 00 04 4D 51 54 54 04 02 00 3C 01 01" + long(257), "20 02 00 02"},
		{"X038", "10 8B 80 04 00 04 4D 51 54 54 04 02 00 3C FF FF" + long(1000), ""},
		{"X043", "10 0C 00 04 4D 51 54 54 04 00 00 3C 00 00", "20 02 00 02"},
		{"X046", "10 11 00 04 4D 51 54 54 05 02 00 3C 03 21 00 00 00 01 61", "20 03 00 82 00"},
		{"X047", "10 13 00 04 4D 51 54 54 05 02 00 3C 05 27 00 00 00 00 00 01 61", "20 03 00 82 00"},
		{"X049", "10 11 00 04 4D 51 54 54 05 02 00 3C 03 23 00 01 00 01 61", "20 03 00 82 00"},
		{"X051", "10 0E 00 04 4D 51 54 54 05 02 00 3C 20 00 01 61", "20 03 00 81 00"},
		{"X052", "10 11 00 04 4D 51 54 54 05 02 00 3C FF FF FF 7F 00 01 61", "20 03 00 81 00"},
		{"X053", "10 B8 A6 02 00 04 4D 51 54 54 05 02 00 3C A8 A6 02 26 00 01 61 00 01 62", "20 03 00 95 00"},
		{"X054", "10 12 00 04 4D 51 54 54 05 02 00 3C 04 15 00 01 58 00 01 61", "20 03 00 8C 00"},
		{"X056", "10 10 00 04 4D 51 54 54 05 02 00 3C 02 17 02 00 01 61", "20 03 00 82 00"},
		{"X057 v5", "10 13 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61 00 00 00 00 00", "20 03 00 90 00"},
		{"X057", "10 11 00 04 4D 51 54 54 04 06 00 3C 00 01 61 00 00 00 00", ""},
		{"X058 v5", "10 16 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61 00 00 03 61 2F 23 00 00", "20 03 00 90 00"},
		{"X059 v5", "10 1A 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61 00 00 07 24 53 59 53 2F 78 79 00 00", "20 03 00 90 00"},
		{"X063", "10 17 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61 02 01 01 00 01 74 00 01 FF", "20 03 00 99 00"},
		{"X064", "10 C8 C0 0C 00 04 4D 51 54 54 05 06 00 3C 00 00 01 61", "20 03 00 95 00"},
		{"password without user", "10 10 00 04 4D 51 54 54 04 42 00 3C 00 01 61 00 01 78", ""},
		{"flags reserved", "10 0E 00 04 4D 51 54 54 05 03 00 3C 00 00 01 61", "20 03 00 81 00"},
	} {
		t.Run(row.id, func(t *testing.T) {
			r := dial(t, e)
			r.sendHex(row.send)
			got := r.rest()
			want, _ := hex.DecodeString(strings.ReplaceAll(row.want, " ", ""))
			if !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
		})
	}
	if n := e.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func TestConnectIsAcceptedAndToldTheLimits(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.MaxKeepAlive = 1200 * time.Second })
	const props = "21 04 00 22 00 20 27 00 41 00 00 2A 01"
	for _, row := range []struct{ id, send, want string }{
		{"3.1.1", "10 0D" + c4body, "20 02 00 00"},
		{"X008 3.1.1 tolerates a long length", "10 8D 00" + c4body, "20 02 00 00"},
		{"v5", "10 0E" + c5body, "20 10 00 00 0D " + props},
		{"X062 empty will payload", "10 12 00 04 4D 51 54 54 04 06 00 3C 00 01 61 00 01 74 00 00", "20 02 00 00"},
		{"X072 keep alive 0 is capped", "10 0E 00 04 4D 51 54 54 05 02 00 00 00 00 01 61", "20 13 00 00 10 13 04 B0 " + props},
		{"X073 keep alive 65,535 is capped", "10 0E 00 04 4D 51 54 54 05 02 FF FF 00 00 01 61", "20 13 00 00 10 13 04 B0 " + props},
		{"X073 3.1.1", "10 0D 00 04 4D 51 54 54 04 02 FF FF 00 01 61", "20 02 00 00"},
		{"clean=false of a client that is new", "10 0D 00 04 4D 51 54 54 04 00 00 3C 00 01 61", "20 02 00 00"},
		{"empty password", "10 12 00 04 4D 51 54 54 04 C2 00 3C 00 01 61 00 01 75 00 00", "20 02 00 00"},
		{
			"a session expiry is taken as it is", "10 13 00 04 4D 51 54 54 05 00 00 3C 05 11 00 00 0E 10 00 01 61",
			"20 10 00 00 0D " + props,
		},
	} {
		t.Run(row.id, func(t *testing.T) {
			r := dial(t, e)
			r.sendHex(row.send)
			r.want(row.want)
			r.ping()
		})
	}
}

// TestResponseInformationIsToldToWhoAsks, MQTT 5 sections 3.1.2.11.6 and 3.2.2.3.15.
func TestResponseInformationIsToldToWhoAsks(t *testing.T) {
	e := open(t, func(o *mqtt.Options) { o.ResponseInformation = "reply/%c" })
	long := strings.Repeat("x", 200)
	for _, row := range []struct {
		name, id string
		props    []byte
		want     string
	}{
		{"asked", "c", []byte{25, 1}, "reply/c"},
		{"asked, CONNACK of more than 127 bytes", long, []byte{25, 1}, "reply/" + long},
		{"not asked", "c", nil, ""},
		{"asked not to", "c", []byte{25, 0}, ""},
		{"the id names more than itself", "a/b", []byte{25, 1}, ""},
		{"the id names everybody", "#", []byte{25, 1}, ""},
		{"longer than a topic", strings.Repeat("x", 1019), []byte{25, 1}, ""},
		{"more than the client takes", "c", []byte{25, 1, 0x27, 0, 0, 0, 24}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := dial(t, e)
			r.send(connectPacket(true, row.id, row.props))
			_, body := r.packet()
			_, got, _ := bytes.Cut(body, []byte{0x2A, 1}) // Shared Subscription Available, the last one but it
			want := ""
			if row.want != "" {
				want = string(append([]byte{26, byte(len(row.want) >> 8), byte(len(row.want))}, row.want...))
			}
			if string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	if r := dial(t, open(t)); r != nil { // nothing is configured
		r.send(connectPacket(true, "c", []byte{25, 1}))
		if _, body := r.packet(); len(body) != 16 {
			t.Errorf("CONNACK is %x", body)
		}
	}
}

// rest reads all that comes until the connection is closed.
func (r *raw) rest() []byte {
	r.t.Helper()
	var b []byte
	for {
		c, err := r.br.ReadByte()
		switch {
		case err == nil:
			b = append(b, c)
		case stopped(err):
			return b
		default:
			r.t.Fatalf("the connection stays open: %v, after %x", err, b)
		}
	}
}

func TestNothingLargerThanTheClientTakesIsSent(t *testing.T) { // X048
	e := open(t)
	r := dial(t, e)
	r.send(connectPacket(true, "c", []byte{0x27, 0, 0, 0, 1}))
	r.wantEnd(0)
	r = dial(t, e)
	r.v5 = true
	r.send(connectPacket(true, "c", []byte{0x27, 0, 0, 0, 30}))
	r.packet()
	filters := make([]string, 40)
	for i := range filters {
		filters[i] = "t"
	}
	r.send(r.subscribePacket(1, 0, nil, filters...))
	r.wantEnd(0x95)
}
