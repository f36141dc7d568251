package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"millrace/cmd/millrace/wire"
)

func TestAPublishComesOutAsItWentIn(t *testing.T) {
	for _, qos := range []byte{0, 1, 2} {
		for _, size := range []int{0, 1, 127, 128, 20_000} {
			want := bytes.Repeat([]byte{0x53}, size)
			b := wire.AppendPublish(nil, "a/b", qos, 0x1234, want)
			for cut := range min(len(b), 200) {
				if _, n, err := wire.Next(b[:cut]); n != 0 || err != nil {
					t.Fatalf("%d of %d bytes gave a packet of %d, %v", cut, len(b), n, err)
				}
			}
			p, n, err := wire.Next(append(b, 0xff))
			if err != nil || n != len(b) || p.Type != wire.Publish {
				t.Fatalf("got %+v, %d, %v", p, n, err)
			}
			topic, id, payload, err := p.Message()
			if err != nil || topic != "a/b" || !bytes.Equal(payload, want) || (qos > 0) != (id == 0x1234) {
				t.Errorf("got %s %d %d bytes %v", topic, id, len(payload), err)
			}
		}
	}
}

func TestConnectCountsItsBytes(t *testing.T) {
	for _, l := range []wire.Login{
		{},
		{ClientID: "c"},
		{ClientID: "c", User: "u"},
		{ClientID: "c", User: "u", Password: strings.Repeat("p", 200), Keep: true},
		{ClientID: "c", WillTopic: "t", WillPayload: strings.Repeat("w", 200)},
	} {
		b := wire.AppendConnect(nil, l)
		if _, n, err := wire.Next(b); n != len(b) || err != nil {
			t.Errorf("%+v: %d of %d bytes, %v", l, n, len(b), err)
		}
	}
}

func TestATooLongLengthIsAnError(t *testing.T) {
	if _, _, err := wire.Next([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}); err == nil {
		t.Error("no error")
	}
}
