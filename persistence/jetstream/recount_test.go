package jetstream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// TestWhatLandsAfterANodeWasGivenUpIsCounted by the node in its place: a publish, and an
// acknowledgement, that were on their way.
func TestWhatLandsAfterANodeWasGivenUpIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Shared: true, Node: "old", Dial: []nats.Option{c.Dial()}}
		old := open(t, o)
		old.Bind(make(heard, 10))
		q, err := old.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			t.Fatal(err)
		}
		send(t, old, q, "a")
		nc, err := jetstream.Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, o.Over, err = jetstream.Holder(t.Context(), nc, &o)
		if err != nil {
			t.Fatal(err)
		}
		old.Crash()
		o.Node = "new"
		s := open(t, o)
		s.Bind(make(heard, 10))

		ready := func(want int64) {
			t.Helper()
			if in, err := s.Info(t.Context(), q); err != nil || in.Ready != want || in.Leased != 0 || (in.Bytes == 0) != (want == 0) {
				t.Errorf("%+v, %v; want %d ready", in, err, want)
			}
		}
		ready(1)
		late(t, nc)
		ready(2)
		<-time.After(2 * time.Second)
		ready(2)
		for _, d := range take(s, q, 10, time.Minute, time.Second) {
			if r := commit(s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) }); r.Err != nil {
				t.Error(r.Err)
			}
		}
		ready(0)

		send(t, s, q, "b")
		ready(1)
		if _, err := nc.Request("$JS.API.STREAM.PURGE.mr_q_1", nil, 10*time.Second); err != nil { // as an acknowledgement does
			t.Fatal(err)
		}
		ready(1) // the stream may only follow what was acknowledged
		<-time.After(2 * time.Second)
		ready(0)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// late publishes the first message of the only queue once more, as one that was on its
// way.
func late(t *testing.T, nc *nats.Conn) {
	t.Helper()
	m, err := nc.Request("$JS.API.DIRECT.GET.mr_q_1", []byte(`{"seq":1}`), 10*time.Second)
	if err != nil || len(m.Data) == 0 {
		t.Fatalf("%v %v", m, err)
	}
	if _, err := nc.Request("mr.q.1.m", m.Data, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}
