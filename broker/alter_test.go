package broker_test

import (
	"errors"
	"testing"
	"time"

	"millrace/broker"
)

// TestTwoNodesThatChangeOneThingAtOnceBothDo: of a queue, a stream and a subscription.
func TestTwoNodesThatChangeOneThingAtOnceBothDo(t *testing.T) {
	a, b := two(t)
	a.queue("q", "t/#")
	if _, err := a.CreateStream(a.ctx, broker.NewStreamConfig("s", "t/#")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CreateSubscription(a.ctx, broker.NewSubscriptionConfig("s", "sub"), broker.Place{}); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	// The second change is made while the first one is thought about.
	asked, nested := 0, 0
	q, err := a.UpdateQueue(a.ctx, "q", func(c *broker.QueueConfig) error {
		if asked++; asked == 1 {
			_, err := b.UpdateQueue(b.ctx, "q", func(c *broker.QueueConfig) error { c.MaxRetries, c.Filter, nested = 7, "u/#", nested+1; return nil })
			must(err)
		}
		c.TTL = time.Hour
		return nil
	})
	if err != nil || q.TTL != time.Hour || q.MaxRetries != 7 || q.Filter != "u/#" || asked != 2 {
		t.Errorf("the queue is %+v after %d times, %v", q.QueueConfig, asked, err)
	}
	other := false
	s, err := a.UpdateStream(a.ctx, "s", func(c *broker.StreamConfig) error {
		if !other {
			other = true
			_, err := b.UpdateStream(b.ctx, "s", func(c *broker.StreamConfig) error { c.Partitions, nested = 3, nested+1; return nil })
			must(err)
		}
		c.Retention = 48 * time.Hour
		return nil
	})
	if err != nil || s.Retention != 48*time.Hour || s.Partitions != 3 {
		t.Errorf("the stream is %+v, %v", s.StreamConfig, err)
	}
	other = false
	i, err := a.UpdateSubscription(a.ctx, "s", "sub", func(c *broker.SubscriptionConfig) error {
		if !other {
			other = true
			_, err := b.UpdateSubscription(b.ctx, "s", "sub", func(c *broker.SubscriptionConfig) error { c.MaxRetries, nested = 7, nested+1; return nil })
			must(err)
		}
		c.MaxInFlight = 5
		return nil
	})
	if err != nil || i.MaxRetries != 7 || i.MaxInFlight != 5 {
		t.Errorf("the subscription is %+v, %v", i.SubscriptionConfig, err)
	}
	if nested != 3 {
		t.Errorf("three changes that nobody disturbed were made in %d tries", nested)
	}
}

// TestAChangeIsJudgedByWhatIsThere: one that only the settings before it allow is
// refused, and so is one of a thing that is deleted meanwhile, or is changed without end.
func TestAChangeIsJudgedByWhatIsThere(t *testing.T) {
	a, b := two(t)
	a.queue("q", "t/#")
	stop := errors.New("it is paused")
	_, err := a.UpdateQueue(a.ctx, "q", func(c *broker.QueueConfig) error {
		if c.Paused {
			return stop
		}
		if _, err := b.UpdateQueue(b.ctx, "q", func(c *broker.QueueConfig) error { c.Paused = true; return nil }); err != nil {
			t.Error(err)
		}
		c.TTL = time.Hour
		return nil
	})
	if !errors.Is(err, stop) {
		t.Errorf("a change that the other one forbids ends with %v", err)
	}
	_, err = a.UpdateQueue(a.ctx, "q", func(c *broker.QueueConfig) error {
		_, err := b.UpdateQueue(b.ctx, "q", func(c *broker.QueueConfig) error { c.TTL += time.Second; return nil })
		c.MaxRetries = 7
		return err
	})
	wantKind(t, err, broker.Conflict, broker.NoSubject)
	_, err = a.UpdateQueue(a.ctx, "q", func(c *broker.QueueConfig) error {
		c.MaxRetries = 8
		return b.DeleteQueue(b.ctx, "q")
	})
	wantKind(t, err, broker.NotFound, broker.QueueSubject)
}
