package jetstream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// TestANodeThatWasGivenUpHoldsNothing: it is back while another one leads, or when that
// has left already, and fails; nobody takes it for the one that leads.
func TestANodeThatWasGivenUpHoldsNothing(t *testing.T) {
	for name, backLate := range map[string]bool{"back while another leads": false, "back when that has left": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { givenUp(t, backLate) })
		})
	}
}

func givenUp(t *testing.T, backLate bool) {
	const hold = time.Second
	lone := jetstreamtest.InProcess(t)
	way := newDeaf(t, lone.Servers[0])
	failed := make(chan error, 1)
	o := jetstream.Options{URL: "nats://lone", Replicas: 1, Hold: hold, Shared: true, Node: "old", Dial: []nats.Option{nats.InProcessServer(way)}}
	o.Failed = func(err error) { failed <- err }
	old := open(t, o)
	o.Node, o.Dial, o.Failed = "new", []nats.Option{lone.Dial()}, nil
	nc, err := jetstream.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()

	way.mute.Store(true)
	<-time.After(2 * hold) // others may give it up
	who, rev, err := jetstream.Holder(t.Context(), nc, &o)
	if err != nil || who != "old" {
		t.Fatalf("%q holds the prefix, %v", who, err)
	}
	o.Over = rev
	next := open(t, o)
	fails := func() {
		way.mute.Store(false)
		<-failed
	}
	if !backLate {
		fails()
	}
	if err := next.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if backLate {
		fails()
	}
	<-time.After(5 * hold)
	if who, _, err := jetstream.Holder(t.Context(), nc, &o); err != nil || who != "" {
		t.Errorf("%q holds the prefix, %v; want nobody", who, err)
	}
	_ = old.Close(t.Context()) // it has failed
}
