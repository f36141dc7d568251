package broker_test

import (
	"testing"

	"millrace/broker"
)

// FuzzSessionRecords reads any bytes as each record of a session, and as its key.
func FuzzSessionRecords(f *testing.F) {
	f.Add([]byte("\x01\x90\x1c\x00\x0auser:alice"))
	f.Add([]byte("\x01\x00\x05\x00\x0auser:alice"))
	f.Add([]byte("client\x00sa/#"))
	f.Add([]byte{0x1d, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = broker.ReadSession(b), broker.ReadWill(b) // an error is an answer
		if again, err := broker.ReadSubscription(b); err == nil {
			if twice, err := broker.ReadSubscription(again); err != nil || string(twice) != string(again) {
				t.Errorf("%x becomes %x and then %x, %v", b, again, twice, err)
			}
		}
		if id, kind, rest := broker.SplitSessionKey(string(b)); len(id)+len(rest) > len(b) {
			t.Errorf("%q is %q, %q, %q", b, id, kind, rest)
		}
	})
}
