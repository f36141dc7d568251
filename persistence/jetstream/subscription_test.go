package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// subscribed opens a store with a stream and a subscription on it.
func subscribed(t *testing.T, o jetstream.Options, partitions uint32) (s *jetstream.Store, stream, sub broker.Target) {
	t.Helper()
	s = open(t, o)
	s.Bind(make(heard, 100))
	stream, err := s.Define(t.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	sub, err = s.Define(t.Context(), broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: stream})
	if err != nil {
		t.Fatal(err)
	}
	return s, stream, sub
}

// fill publishes n numbered messages into a stream in one batch.
func fill(t *testing.T, s broker.Store, stream broker.Target, n int) {
	t.Helper()
	b := &broker.Batch{}
	for i := range n {
		m := &broker.Message{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1}
		copy(m.ID[:], fmt.Sprintf("%d/%016d", stream, i)[:16])
		m.ID[13], m.ID[14], m.ID[15] = byte(i>>16), byte(i>>8), byte(i)
		b.Publish(m, broker.Route{Target: stream})
		b.End()
	}
	done := make(answered, 1)
	s.Submit(b, broker.Durable, done)
	for i := range (<-done).Units {
		if err := b.Units[i].Result.Err; err != nil {
			t.Fatal(err)
		}
	}
}

// offsets are those of deliveries, in order.
func offsets(ds []broker.Delivery) []uint64 {
	var list []uint64
	for _, d := range ds {
		list = append(list, d.Offset)
	}
	slices.Sort(list)
	return list
}

// TestWhatWasSettledStaysSettledWhenANodeDies settles messages in every way, kills
// the node, and sees that the next one hands out all others and none of them.
func TestWhatWasSettledStaysSettledWhenANodeDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{jetstreamtest.InProcess(t).Dial()}}
		const n = 2*4096 + 10 // over three windows of the record
		s, stream, sub := subscribed(t, o, 1)
		fill(t, s, stream, n)
		got := take(s, sub, n-5, time.Hour, time.Second)
		if len(got) != n-5 {
			t.Fatalf("%d come, want %d", len(got), n-5)
		}
		settled := map[uint64]bool{0: true, 1: true, 2: true, 2000: true, 5000: true, 8190: true, n - 2: true}
		for _, change := range []func(*broker.Batch){
			func(b *broker.Batch) { b.SettleUpTo(sub, broker.Offset{Offset: 2}, broker.ReasonAcked) },
			func(b *broker.Batch) {
				b.Settle(got[2000].Ref, broker.ReasonAcked)
				b.Settle(got[5000].Ref, broker.ReasonAcked)
			},
			func(b *broker.Batch) { b.Settle(got[8190].Ref, broker.ReasonAcked) },
			func(b *broker.Batch) { b.SettleAt(sub, broker.Offset{Offset: n - 2}, broker.ReasonAcked) },
			func(b *broker.Batch) { b.Defer(got[3000].Ref, s.Now().Add(3*time.Hour), true) },
		} {
			if r := commit(s, change); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		s.Crash()

		again := open(t, o)
		again.Bind(make(heard, 100))
		if r := commit(again, func(b *broker.Batch) { b.Settle(got[3999].Ref, broker.ReasonAcked) }); r.Err != nil {
			t.Errorf("a receipt of before answers %v", r.Err)
		}
		settled[3999], settled[3000] = true, true // the latter later
		<-time.After(2 * time.Hour)               // the leases that were written with settlements end
		var want []uint64
		for i := range uint64(n) {
			if !settled[i] {
				want = append(want, i)
			}
		}
		if have := offsets(take(again, sub, n, 10*time.Hour, time.Second)); !slices.Equal(have, want) {
			t.Errorf("%d come again, want %d", len(have), len(want))
		}
		if have := take(again, sub, n, time.Minute, 2*time.Hour); len(have) != 1 || have[0].Offset != 3000 || have[0].Attempt != 2 {
			t.Errorf("%v come when the delay is over, want offset 3000", offsets(have))
		}
		in, err := again.Info(t.Context(), sub)
		if err != nil || in.Difference() != 0 || in.Out[broker.ReasonAcked] != uint64(len(settled)-1) {
			t.Errorf("out are %v, difference %d, %v; want %d acked", in.Out, in.Difference(), err, len(settled)-1)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestASeekSurvivesADeath also when settlements of before it were written.
func TestASeekSurvivesADeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{jetstreamtest.InProcess(t).Dial()}}
		s, stream, sub := subscribed(t, o, 2)
		fill(t, s, stream, 10)
		for _, d := range take(s, sub, 8, time.Hour, time.Second) {
			if r := commit(s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) }); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if r := commit(s, func(b *broker.Batch) { b.Seek(sub, broker.Offset{Offset: 5}) }); r.Err != nil {
			t.Fatal(r.Err)
		}
		s.Crash()
		again := open(t, o)
		again.Bind(make(heard, 10))
		if have := offsets(take(again, sub, 100, time.Minute, time.Second)); !slices.Equal(have, []uint64{5, 6, 7, 8, 9}) {
			t.Errorf("%v come, want 5 to 9", have)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestSettlementsAreWrittenTogether has a thousand of them cost few writes.
func TestSettlementsAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		s, stream, sub := subscribed(t, jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{c.Dial()}}, 1)
		fill(t, s, stream, 1000)
		before := revision(t, c, "mr_subs")
		b := &broker.Batch{}
		for _, d := range take(s, sub, 1000, time.Hour, time.Second) {
			b.Settle(d.Ref, broker.ReasonAcked)
			b.End()
		}
		done := make(answered, 1)
		s.Submit(b, broker.Durable, done)
		<-done
		if n := revision(t, c, "mr_subs") - before; n == 0 || n > 500 { // some ten, if the machine is not busy
			t.Errorf("%d settlements cost %d writes", len(b.Units), n)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// revision is the number of the newest write to a bucket.
func revision(t *testing.T, c *jetstreamtest.Cluster, bucket string) uint64 {
	t.Helper()
	kv := keyValue(t, c, bucket)
	st, err := kv.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.(*natsjs.KeyValueBucketStatus).StreamInfo().State.LastSeq
}

func keyValue(t *testing.T, c *jetstreamtest.Cluster, bucket string) natsjs.KeyValue {
	t.Helper()
	kv, err := jetStream(t, c).KeyValue(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// TestANodeThatFindsAnotherWritingStops: what it knows is out of date.
func TestANodeThatFindsAnotherWritingStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		failed := make(chan error, 1)
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{c.Dial()}, Failed: func(err error) { failed <- err }}
		s, stream, sub := subscribed(t, o, 1)
		fill(t, s, stream, 3)
		got := take(s, sub, 3, time.Hour, time.Second)
		settle := func(i int) error {
			return commit(s, func(b *broker.Batch) { b.Settle(got[i].Ref, broker.ReasonAcked) }).Err
		}
		if err := settle(0); err != nil {
			t.Fatal(err)
		}
		kv := keyValue(t, c, "mr_subs")
		keys, err := kv.Keys(context.Background())
		if err != nil || len(keys) != 1 {
			t.Fatalf("keys are %v, %v; want one", keys, err)
		}
		if _, err := kv.Put(t.Context(), keys[0], []byte{1, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if err := settle(1); err == nil {
			t.Error("a settlement is recorded over the record of another node")
		}
		<-failed
		if err := settle(2); err == nil || s.State().Err == nil {
			t.Error("a node that was replaced works on")
		}
		_ = s.Close(t.Context()) // it says the same
	})
}

// TestADropWhileSettlementsAreWritten ends them and harms nothing else.
func TestADropWhileSettlementsAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		s, stream, sub := subscribed(t, jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{c.Dial()}}, 1)
		fill(t, s, stream, 100)
		got := take(s, sub, 100, time.Hour, time.Second)
		done := make(answered, len(got))
		for _, d := range got {
			b := &broker.Batch{}
			b.Settle(d.Ref, broker.ReasonAcked)
			b.End()
			s.Submit(b, broker.Durable, done)
		}
		if err := s.Drop(t.Context(), sub); err != nil {
			t.Error(err)
		}
		for range got {
			if err := (<-done).Units[0].Result.Err; err != nil && !errors.Is(err, broker.ErrGone) {
				t.Errorf("a settlement answers %v", err)
			}
		}
		if err := s.State().Err; err != nil {
			t.Error(err)
		}
		kv := keyValue(t, c, "mr_subs")
		if keys, err := kv.Keys(t.Context()); !errors.Is(err, natsjs.ErrNoKeysFound) {
			t.Errorf("keys %v are left, %v", keys, err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
