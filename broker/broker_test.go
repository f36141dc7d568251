package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
)

// fixture is a broker over the memory driver, and a context of its administrator.
type fixture struct {
	*broker.Broker
	ctx   context.Context
	store broker.Store
	tb    testing.TB
}

var admin = &auth.Principal{Kind: auth.Key, Name: "admin", Role: auth.Administrator}

// open starts a broker over the memory driver. In a synctest bubble all its
// time is fake.
func open(tb testing.TB, change ...func(*broker.Options)) *fixture {
	tb.Helper()
	s, err := local.Open(local.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return openOver(tb, s, change...)
}

func openOver(tb testing.TB, s broker.Store, change ...func(*broker.Options)) *fixture {
	tb.Helper()
	ctx := auth.WithPrincipal(context.Background(), admin)
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(s, broker.SpaceAuth), AllowAnonymous: true, Log: zerolog.Nop()})
	if err != nil {
		tb.Fatal(err)
	}
	o := broker.Options{Store: s, Auth: a, Log: zerolog.Nop()}
	for _, f := range change {
		f(&o)
	}
	b, err := broker.Open(ctx, o)
	if err != nil {
		tb.Fatal(err)
	}
	f := &fixture{Broker: b, ctx: ctx, store: s, tb: tb}
	tb.Cleanup(func() {
		if qs, err := b.Queues(ctx); err == nil { // unless the test closed it
			for i := range qs {
				f.balanced(&qs[i])
			}
		}
		if err := b.Close(ctx); err != nil {
			tb.Errorf("close the broker: %v", err)
		}
		if err := s.Close(ctx); err != nil {
			tb.Errorf("close the store: %v", err)
		}
	})
	return f
}

// bubble runs f in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// queue makes a queue fed by filter, with settings changed by set.
func (f *fixture) queue(name, filter string, set ...func(*broker.QueueConfig)) {
	f.tb.Helper()
	c := broker.NewQueueConfig(name, filter)
	for _, s := range set {
		s(&c)
	}
	if _, err := f.CreateQueue(f.ctx, c); err != nil {
		f.tb.Fatal(err)
	}
}

// publish publishes text to topic with QoS 1.
func (f *fixture) publish(topic, text string) broker.Published {
	f.tb.Helper()
	p, err := f.Publish(f.ctx, &broker.Message{Topic: topic, Payload: []byte(text), QoS: 1})
	if err != nil {
		f.tb.Fatalf("publish %s to %s: %v", text, topic, err)
	}
	return p
}

// receive takes what is there now, at most n messages.
func (f *fixture) receive(queue string, n int) []broker.Received {
	f.tb.Helper()
	return f.await(queue, n, 0)
}

func (f *fixture) await(queue string, n int, wait time.Duration) []broker.Received {
	f.tb.Helper()
	got, err := f.Receive(f.ctx, queue, broker.ReceiveOptions{Max: n, Wait: wait, Lease: broker.DefaultLease})
	if err != nil {
		f.tb.Fatalf("receive from %s: %v", queue, err)
	}
	return got
}

// expect receives and wants exactly these payloads.
func (f *fixture) expect(queue string, want ...string) []broker.Received {
	f.tb.Helper()
	got := f.receive(queue, max(1, len(want)+1))
	if fmt.Sprint(texts(got)) != fmt.Sprint(want) {
		f.tb.Fatalf("queue %s gave %q, want %q", queue, texts(got), want)
	}
	return got
}

func texts(got []broker.Received) []string {
	var ts []string
	for _, g := range got {
		ts = append(ts, string(g.Payload))
	}
	return ts
}

func (f *fixture) ack(queue string, r broker.Received) broker.AckState {
	f.tb.Helper()
	s, err := f.Ack(f.ctx, queue, r.ID, r.Receipt)
	if err != nil {
		f.tb.Fatalf("ack %s: %v", r.Payload, err)
	}
	return s
}

// info returns the counts of a queue, after checking that its books balance.
func (f *fixture) info(queue string) broker.QueueInfo {
	f.tb.Helper()
	i, err := f.Queue(f.ctx, queue)
	if err != nil {
		f.tb.Fatal(err)
	}
	f.balanced(&i)
	return i
}

// balanced fails unless the books of a queue balance.
func (f *fixture) balanced(i *broker.QueueInfo) {
	f.tb.Helper()
	if d := i.Difference(); d != 0 {
		f.tb.Errorf("books of %s are out by %d: %+v", i.Name, d, i.Info)
	}
}

// wantKind fails unless err is of the kind and about the subject.
func wantKind(tb testing.TB, err error, k broker.Kind, s broker.Subject) {
	tb.Helper()
	e, _ := errors.AsType[*broker.Error](err)
	if e == nil || e.Kind != k || e.Subject != s {
		tb.Errorf("got error %#v (%v), want kind %d about %q", err, err, k, s)
	}
}

// collector is a Sink that keeps what it was given.
type collector struct {
	mu  sync.Mutex
	got []string
}

func (c *collector) Deliver(m *broker.Message, to []*broker.Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range to {
		c.got = append(c.got, string(m.Payload))
	}
}

func (c *collector) texts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.got...)
}
