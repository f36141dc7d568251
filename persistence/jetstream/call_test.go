package jetstream_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

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
			err = sub.AutoUnsubscribe(1)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := jetstream.Ask(nc, "dies"); !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a call that somebody took who is gone answers %v, want that it is unknown", err)
		}
	})
}

// Servers that elect their leader say so at once, and are asked again.
func TestServersThatElectAreAskedAgain(t *testing.T) {
	const elects = `{"type":"x","error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
	synctest.Test(t, func(t *testing.T) {
		nc, err := nats.Connect("nats://lone", jetstreamtest.InProcess(t).Dial())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		answer := func(subject string, texts ...string) {
			asked := 0
			_, err := nc.Subscribe(subject, func(m *nats.Msg) {
				_ = m.Respond([]byte(texts[min(asked, len(texts)-1)])) // who asked is there
				asked++
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		answer("elects", elects, elects, "{}")
		if err := jetstream.Ask(nc, "elects"); err != nil {
			t.Errorf("asked while they elect: %v", err)
		}
		answer("never", elects)
		if err := jetstream.Ask(nc, "never"); !errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrUnknown) {
			t.Errorf("servers that never elect answer %v, want that it is not done", err)
		}
		_, err = nc.Subscribe("stored", func(m *nats.Msg) {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Stream": {"s"}}, Data: []byte(elects + `"err_code":10158`)})
		})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := jetstream.Ask(nc, "stored"); err != nil || time.Since(began) > time.Second {
			t.Errorf("a message that holds such a text: %v after %v", err, time.Since(began))
		}
	})
}
