package broker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
)

// torn is a store whose units are not atomic. While it is cut, it does what of a
// unit comes first, the keys, and nobody hears how the unit ends.
type torn struct {
	broker.Store
	cut bool
}

func (s *torn) State() broker.State {
	st := s.Store.State()
	st.Atomic = false
	return st
}

func (s *torn) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	if !s.cut {
		s.Store.Submit(b, l, c)
		return
	}
	keys := &broker.Batch{}
	for i := range b.Units {
		for _, op := range b.OpsOf(i) {
			if op.Kind == broker.OpPut {
				keys.Put(op.Space, op.Key, op.Value, op.Rev)
			}
		}
		keys.End()
	}
	s.Store.Submit(keys, l, unheard{b, c})
}

// unheard tells that a batch ended nobody knows how.
type unheard struct {
	b *broker.Batch
	c broker.Completion
}

func (u unheard) Done(*broker.Batch) {
	for i := range u.b.Units {
		u.b.Units[i].Result.Err = broker.ErrUnknown
	}
	u.c.Done(u.b)
}

// tornClient is a client over such a store; again lets it come back to a broker that
// was started anew.
type tornClient struct {
	*testing.T
	store *torn
	f     *fixture
	s     *broker.Session
}

func newTornClient(t *testing.T) *tornClient {
	t.Helper()
	inner, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &tornClient{T: t, store: &torn{Store: inner}}
	c.again()
	t.Cleanup(func() { _ = inner.Close(context.Background()) })
	return c
}

func (c *tornClient) again() {
	c.Helper()
	c.store.cut = false
	if c.f != nil {
		if err := c.f.Close(c.f.ctx); err != nil {
			c.Fatal(err)
		}
	}
	c.f = bare(c.T, c.store)
	c.Cleanup(func() { _ = c.f.Close(context.Background()) })
	var err error
	c.s, _, err = c.f.OpenSession(c.f.ctx, broker.SessionOptions{ClientID: "c", Principal: &auth.Principal{Kind: auth.Anonymous}, Expiry: broker.NeverExpires})
	if err != nil {
		c.Fatal(err)
	}
}

// publish publishes in QoS 2 under the packet id 7.
func (c *tornClient) publish(again bool) (id broker.ID, err error) {
	done := make(chan broker.Outcome, 1)
	p := c.f.NewProducer(admin, func(os []broker.Outcome) { done <- os[0] })
	p.PublishOnce(&broker.Message{Topic: "t", Payload: []byte("x"), QoS: 2}, 2, c.s, 7, again)
	p.Flush()
	out := <-done
	return out.ID, out.Err
}

func (c *tornClient) ids(what string, got []uint16, want ...uint16) {
	c.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		c.Errorf("%s are %v, want %v", what, got, want)
	}
}

func TestAPublishThatIsRepeatedAfterACrashIsTheSameMessage(t *testing.T) {
	c := newTornClient(t)
	c.store.cut = true
	first, err := c.publish(false)
	if broker.KindOf(err) != broker.Unknown {
		t.Fatalf("a publish whose end nobody heard answers %v", err)
	}
	c.again()
	c.ids("received", c.s.Received())
	c.ids("claimed", c.s.Claimed(), 7)
	second, err := c.publish(true)
	if err != nil || second != first {
		t.Fatalf("the repeat is message %v, %v; want %v", second, err, first)
	}
	c.ids("received", c.s.Received(), 7)
	c.ids("claimed", c.s.Claimed())

	// The end of the connection says that it was stored: then it is known for good.
	c.s.Close(c.f.ctx, false)
	c.again()
	c.ids("received", c.s.Received(), 7)
	c.ids("claimed", c.s.Claimed())
}

func TestANewPublishUnderAPacketIDThatWasClaimedIsAnother(t *testing.T) {
	c := newTornClient(t)
	c.store.cut = true
	first, _ := c.publish(false)
	c.again()
	second, err := c.publish(false)
	if err != nil || second == first {
		t.Fatalf("a new publish is message %v, %v; the one before was %v", second, err, first)
	}
}

func TestADeliveryThatTheClientHasIsNotSentAgainAfterACrash(t *testing.T) {
	c := newTornClient(t)
	live := &broker.Subscription{Filter: "t", Principal: &auth.Principal{Kind: auth.Anonymous}, Sink: new(collector)}
	err := c.s.Subscribe(c.f.ctx, live, broker.SubscriptionOptions{QoS: 2})
	if err = errors.Join(err, c.s.Commit(c.f.ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.publish(false); err != nil {
		t.Fatal(err)
	}
	got := make(taken, 1)
	in := c.s.Receive(got)
	in.Kick()
	d := <-got
	in.Close()
	c.store.cut = true
	handed := make(chan error, 1)
	st := c.f.NewSettlements()
	st.Handed(c.s, d.Ref, 9, func(err error) { handed <- err })
	st.Submit()
	if err := <-handed; err == nil {
		t.Fatal("a settlement whose end nobody heard is told as done")
	}
	c.again()
	c.ids("released", c.s.Released(), 9)
	if ds, err := c.s.InFlight(c.f.ctx, 0, 10, nil); err != nil || len(ds) != 0 {
		t.Errorf("%d messages would be sent again, %v", len(ds), err)
	}
}

// TestADeliveryOfAQueueIsNotTakenForOneOfTheSession, which has the same sequence.
func TestADeliveryOfAQueueIsNotTakenForOneOfTheSession(t *testing.T) {
	c := newTornClient(t)
	live := &broker.Subscription{Filter: "t", Principal: &auth.Principal{Kind: auth.Anonymous}, Sink: new(collector)}
	err := c.s.Subscribe(c.f.ctx, live, broker.SubscriptionOptions{QoS: 2})
	if err = errors.Join(err, c.s.Commit(c.f.ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.publish(false); err != nil {
		t.Fatal(err)
	}
	c.f.queue("q", "u")
	c.f.publish("u", "1")
	got := make(taken, 1)
	of, err := c.f.Consume(c.f.ctx, "q", got)
	if err != nil {
		t.Fatal(err)
	}
	of.Kick()
	d := <-got
	of.Close()
	handed := make(chan error, 1)
	st := c.f.NewSettlements()
	st.Handed(c.s, d.Ref, 50_000, func(err error) { handed <- err })
	st.Submit()
	if err := <-handed; err != nil {
		t.Fatal(err)
	}
	c.again()
	c.ids("released", c.s.Released(), 50_000)
	if ds, err := c.s.Waiting(c.f.ctx, 0, 10, nil); err != nil || len(ds) != 1 {
		t.Errorf("%d messages wait for the client, %v; want the one that it has not", len(ds), err)
	}
}

// taken is a ConsumerSink that takes one message.
type taken chan broker.Delivery

func (c taken) Credit() int               { return 1 - len(c) }
func (c taken) Take(ds []broker.Delivery) { c <- ds[0] }
func (taken) Ended(error)                 {}
func (taken) Missed()                     {}
