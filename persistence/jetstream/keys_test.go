package jetstream_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// TestADeletedKeyIsMadeAgain whether its mark is still there, goes just then, or went:
// with a condition and without, by the node that deleted it and by the next.
func TestADeletedKeyIsMadeAgain(t *testing.T) {
	inBubble(t, func(x *clients) {
		put := func(key string, value []byte, rev uint64) error {
			return commit(x.Store, func(b *broker.Batch) { b.Put(broker.SpaceSystem, key, value, rev) }).Err
		}
		waits := []time.Duration{0, 30 * time.Second, 59 * time.Second, 60 * time.Second, 61 * time.Second, 65 * time.Second, 2 * time.Minute, 5 * time.Minute}
		for i, d := range waits {
			key := func(n int) string { return fmt.Sprint("k", i, n) }
			for n := range 4 {
				if err := put(key(n), []byte("a"), broker.RevNone); err != nil {
					t.Fatal(err)
				}
				if err := put(key(n), nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(d / 2)
			for n := range 4 {
				if n == 2 { // the others are the next node's
					x.Crash()
					x.start()
				}
				if n%2 == 0 {
					time.Sleep(d / 4)
				}
				rev := uint64(0)
				if n%2 == 0 {
					rev = broker.RevNone
				}
				if err := put(key(n), []byte("b"), rev); err != nil {
					t.Errorf("%s after it was deleted, key %d: %v", d, n, err)
				}
				if err := put(key(n), []byte("c"), broker.RevNone); err == nil {
					t.Errorf("%s after it was deleted, key %d is made although it is there", d, n)
				}
			}
		}
	})
}

// TestARecordWhoseRepeatIsRefusedIsWaitedFor, as long as a call may last: servers refuse the
// repeat of a write that they still decide about.
func TestARecordWhoseRepeatIsRefusedIsWaitedFor(t *testing.T) {
	for after, want := range map[time.Duration]error{2 * time.Second: nil, time.Minute: broker.ErrUnknown} {
		synctest.Test(t, func(t *testing.T) {
			c := jetstreamtest.InProcess(t)
			s := open(t, jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{c.Dial()}})
			kv := keyValue(t, c, "mr_subs")
			decided := make(chan error)
			go func() {
				<-time.After(after)
				_, err := kv.Put(t.Context(), "record", []byte("ours"))
				decided <- err
			}()
			began := time.Now()
			if err := s.Landed("record", "ours"); !errors.Is(err, want) {
				t.Errorf("a write that is decided after %s: %v after %s, want %v", after, err, time.Since(began), want)
			}
			if took := time.Since(began); took > 9*time.Second {
				t.Errorf("it took %s", took)
			}
			if err := <-decided; err != nil {
				t.Error(err)
			}
			shut(t, s)
		})
	}
}
