package jetstream_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// What nobody took is not done; what somebody may have taken is unknown, also
// when later nobody was there to be asked again.
func TestWhatOneServerMayHaveTakenIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc, err := nats.Connect("nats://lone", jetstreamtest.InProcess(t).Dial())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := jetstream.Ask(nc, "nobody"); !errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a call that nobody took answers %v, want that it is not done", err)
		}
		sub, err := nc.Subscribe("dies", func(*nats.Msg) {})
		if err == nil {
			err = errors.Join(sub.AutoUnsubscribe(1), nc.Flush())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := jetstream.Ask(nc, "dies"); !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a call that somebody took who is gone answers %v, want that it is unknown", err)
		}
	})
}
