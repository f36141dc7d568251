package broker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
)

// subscribe makes a subscription "sub" on the stream "s", and returns it.
func (f *fixture) subscribe(p broker.Place, set ...func(*broker.SubscriptionConfig)) broker.Source {
	f.tb.Helper()
	c := broker.NewSubscriptionConfig("s", "sub")
	for _, change := range set {
		change(&c)
	}
	if _, err := f.CreateSubscription(f.ctx, c, p); err != nil {
		f.tb.Fatal(err)
	}
	return f.sub()
}

func (f *fixture) sub() broker.Source {
	f.tb.Helper()
	s, err := f.FromSubscription(f.ctx, "s", "sub")
	if err != nil {
		f.tb.Fatal(err)
	}
	return s
}

// from receives what is there and wants exactly these payloads.
func (f *fixture) from(s broker.Source, want ...string) []broker.Received {
	f.tb.Helper()
	got, err := s.Receive(f.ctx, broker.ReceiveOptions{Max: max(1, len(want)+1), Lease: broker.DefaultLease})
	if err != nil || fmt.Sprint(texts(got)) != fmt.Sprint(want) {
		f.tb.Fatalf("got %q and %v, want %q", texts(got), err, want)
	}
	return got
}

func TestASubscriptionIsConsumedLikeAQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		s := f.subscribe(broker.Place{})
		for _, text := range []string{"0", "1", "2"} {
			f.publish("a/b", text)
		}
		got := f.from(s, "0", "1", "2")
		if state, err := s.Ack(f.ctx, got[1].ID, got[1].Receipt); state != broker.Removed || err != nil {
			t.Fatalf("ack answers %s, %v", state, err)
		}
		if state, err := s.Ack(f.ctx, got[1].ID, got[1].Receipt); state != broker.Gone || err != nil {
			t.Fatalf("a second ack answers %s, %v", state, err)
		}
		if _, err := s.Nack(f.ctx, got[0].ID, got[0].Receipt, 0); err != nil {
			t.Fatal(err)
		}
		if until, err := s.Extend(f.ctx, got[2].ID, got[2].Receipt, time.Hour); err != nil || time.Until(until) != time.Hour {
			t.Fatalf("extended until %v, %v", until, err)
		}
		again := f.from(s, "0")
		if again[0].Attempt != 2 || again[0].Offset != 0 {
			t.Fatalf("attempt %d of offset %d", again[0].Attempt, again[0].Offset)
		}
		_, err := s.Ack(f.ctx, got[0].ID, got[0].Receipt)
		if broker.KindOf(err) != broker.Invalid {
			t.Fatalf("ack with an old receipt answers %v", err)
		}
		ds, err := s.Browse(f.ctx, broker.Leased, 0, 10)
		if err != nil || len(ds) != 2 {
			t.Fatalf("browse shows %d, %v", len(ds), err)
		}
		info, err := f.Subscription(f.ctx, "s", "sub")
		if err != nil || info.Leased != 2 || info.Partitioned[0] != (broker.SubscriptionPartition{Acked: 0, Next: 3, End: 3}) {
			t.Fatalf("info is %+v, %v", info.Partitioned, err)
		}
	})
}

func TestASubscriptionBeginsAndIsMovedWhereItIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		var third time.Time
		for i := range 4 {
			if time.Sleep(time.Minute); i == 2 {
				third = time.Now()
			}
			f.publish("a/b", fmt.Sprint(i))
		}
		places := []struct {
			p    broker.Place
			want []string
		}{
			{broker.Place{}, []string{"0", "1", "2", "3"}},
			{broker.Place{Latest: true}, nil},
			{broker.Place{Time: third}, []string{"2", "3"}},
			{broker.Place{Time: time.Now().Add(time.Hour)}, nil},
			{broker.Place{Offsets: []broker.Offset{{Offset: 1}}}, []string{"1", "2", "3"}},
		}
		for _, place := range places {
			f.from(f.subscribe(place.p), place.want...)
			if err := f.DeleteSubscription(f.ctx, "s", "sub"); err != nil {
				t.Fatal(err)
			}
		}
		s := f.subscribe(broker.Place{Latest: true})
		for _, place := range places {
			if _, err := f.Seek(f.ctx, "s", "sub", place.p); err != nil {
				t.Fatal(err)
			}
			f.from(s, place.want...)
		}
		for _, bad := range [][]broker.Offset{{{Offset: 5}}, {{Partition: 1}}, {{}, {}}} {
			if _, err := f.Seek(f.ctx, "s", "sub", broker.Place{Offsets: bad}); broker.KindOf(err) != broker.Invalid && broker.KindOf(err) != broker.NotFound {
				t.Errorf("seek to %v answers %v", bad, err)
			}
		}
	})
}

func TestASubscriptionIsAcknowledgedUpToAnOffset(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		s := f.subscribe(broker.Place{})
		for i := range 5 {
			f.publish("a/b", fmt.Sprint(i))
		}
		if n, err := f.AckUpTo(f.ctx, "s", "sub", broker.Offset{Offset: 2}); n != 3 || err != nil {
			t.Fatalf("acknowledged %d, %v", n, err)
		}
		rs, err := f.AckAt(f.ctx, "s", "sub", broker.Offset{Offset: 1}, broker.Offset{Offset: 3}, broker.Offset{Offset: 9}, broker.Offset{Partition: 1})
		if err != nil || rs[0].State != broker.Gone || rs[1].State != broker.Removed ||
			broker.KindOf(rs[2].Err) != broker.Invalid || broker.KindOf(rs[3].Err) != broker.NotFound {
			t.Fatalf("acks by offset answer %v, %v", rs, err)
		}
		if _, err := f.AckUpTo(f.ctx, "s", "sub", broker.Offset{Offset: 5}); broker.KindOf(err) != broker.Invalid {
			t.Fatalf("beyond the end: %v", err)
		}
		f.from(s, "4")
	})
}

func TestASubscriptionDeadLettersInOneCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		f.queue("dlq", "dead/#")
		s := f.subscribe(broker.Place{}, func(c *broker.SubscriptionConfig) {
			c.MaxRetries, c.DeadLetterTopic = 1, "dead/s"
		})
		f.publish("a/b", "bad")
		for range 2 {
			f.from(s, "bad")
			time.Sleep(31 * time.Second)
		}
		synctest.Wait()
		got := f.expect("dlq", "bad")
		props := map[string]string{}
		for _, p := range got[0].Properties {
			props[p.Name] = p.Value
		}
		if props[broker.PropertyOriginQueue] != "stream:s/sub" || props[broker.PropertyAttempts] != "2" || props[broker.PropertyOriginalTopic] != "a/b" {
			t.Fatalf("dead letter says %v", props)
		}
		info, err := f.Subscription(f.ctx, "s", "sub")
		if err != nil || info.Out[broker.ReasonDeadLettered] != 1 || info.Partitioned[0].Acked != 1 || info.Difference() != 0 {
			t.Fatalf("info is %+v, %v", info.Info, err)
		}
	})
}

func TestASubscriptionNeedsTheRightToConsumeAndAStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		f.subscribe(broker.Place{})
		nobody := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "p", Role: auth.Publisher})
		calls := map[string]func(ctx context.Context, stream, name string) error{
			"create": func(ctx context.Context, stream, name string) error {
				_, err := f.CreateSubscription(ctx, broker.NewSubscriptionConfig(stream, name+"2"), broker.Place{})
				return err
			},
			"show": func(ctx context.Context, stream, name string) error {
				_, err := f.Subscription(ctx, stream, name)
				return err
			},
			"list":   func(ctx context.Context, stream, _ string) error { _, err := f.Subscriptions(ctx, stream); return err },
			"delete": func(ctx context.Context, stream, name string) error { return f.DeleteSubscription(ctx, stream, name) },
			"seek": func(ctx context.Context, stream, name string) error {
				_, err := f.Seek(ctx, stream, name, broker.Place{})
				return err
			},
			"ack up to": func(ctx context.Context, stream, name string) error {
				_, err := f.AckUpTo(ctx, stream, name, broker.Offset{})
				return err
			},
			"receive": func(ctx context.Context, stream, name string) error {
				_, err := f.FromSubscription(ctx, stream, name)
				return err
			},
		}
		for name, call := range calls {
			if err := call(nobody, "s", "sub"); broker.KindOf(err) != broker.Forbidden {
				t.Errorf("%s without the right: %v", name, err)
			}
			if err := call(f.ctx, "none", "sub"); broker.KindOf(err) != broker.NotFound {
				t.Errorf("%s of no stream: %v", name, err)
			}
			if err := call(f.ctx, "s", "none"); name != "create" && name != "list" && broker.KindOf(err) != broker.NotFound {
				t.Errorf("%s of no subscription: %v", name, err)
			}
		}
		_, err := f.CreateSubscription(f.ctx, broker.NewSubscriptionConfig("s", "sub"), broker.Place{})
		if broker.KindOf(err) != broker.Conflict {
			t.Errorf("a second one: %v", err)
		}
		for _, bad := range []string{"", "a\nb"} {
			if _, err := f.CreateSubscription(f.ctx, broker.NewSubscriptionConfig("s", bad), broker.Place{}); broker.KindOf(err) != broker.Invalid {
				t.Errorf("name %q: %v", bad, err)
			}
		}
	})
}

func TestADeletedStreamEndsTheReceivesOfItsSubscriptions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		s := f.subscribe(broker.Place{})
		ended := make(chan error)
		go func() {
			_, err := s.Receive(f.ctx, broker.ReceiveOptions{Max: 1, Wait: time.Hour, Lease: broker.DefaultLease})
			ended <- err
		}()
		synctest.Wait()
		if err := f.DeleteStream(f.ctx, "s"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; broker.KindOf(err) != broker.NotFound {
			t.Fatalf("the receive answers %v", err)
		}
		f.stream("s", "a/#", 1)
		if _, err := f.Subscription(f.ctx, "s", "sub"); broker.KindOf(err) != broker.NotFound {
			t.Fatalf("the stream made anew: %v", err)
		}
	})
}

func TestASubscriptionIsThereAfterAStart(t *testing.T) {
	dir := t.TempDir()
	start := func() (*broker.Broker, context.Context, func()) {
		s, err := local.Open(local.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx := auth.WithPrincipal(context.Background(), admin)
		a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(s, broker.SpaceAuth), Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		b, err := broker.Open(ctx, broker.Options{Store: s, Auth: a, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		return b, ctx, func() {
			if err := errors.Join(b.Close(ctx), s.Close(ctx)); err != nil {
				t.Error(err)
			}
		}
	}
	b, ctx, stop := start()
	if _, err := b.CreateStream(ctx, broker.NewStreamConfig("x/y", "a")); err != nil {
		t.Fatal(err)
	}
	c := broker.NewSubscriptionConfig("x/y", "sub")
	c.Lease, c.MaxRetries = time.Hour, 7
	if _, err := b.CreateSubscription(ctx, c, broker.Place{}); err != nil {
		t.Fatal(err)
	}
	stop()
	b, ctx, stop = start()
	defer stop()
	info, err := b.Subscription(ctx, "x/y", "sub")
	if err != nil || info.Lease != time.Hour || info.MaxRetries != 7 || info.Stream != "x/y" || info.Created.IsZero() {
		t.Fatalf("after a start: %+v, %v", info.SubscriptionConfig, err)
	}
	info, err = b.UpdateSubscription(ctx, "x/y", "sub", func(c *broker.SubscriptionConfig) error { c.Paused = true; return nil })
	if err != nil || !info.Paused || info.MaxRetries != 7 {
		t.Fatalf("after a change: %+v, %v", info.SubscriptionConfig, err)
	}
}
