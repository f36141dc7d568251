package broker_test

import (
	"context"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// kept opens a session of a client that subscribes to filter and leaves.
func (f *fixture) kept(id, filter string, o broker.SubscriptionOptions) {
	f.tb.Helper()
	s, _, err := f.OpenSession(f.ctx, broker.SessionOptions{ClientID: id, Principal: admin, Expiry: 1 << 30})
	if err != nil {
		f.tb.Fatal(err)
	}
	if filter != "" {
		if err := s.Subscribe(f.ctx, &broker.Subscription{Filter: filter, Principal: admin, Sink: new(collector)}, o); err != nil {
			f.tb.Fatal(err)
		}
		if err := s.Commit(f.ctx); err != nil {
			f.tb.Fatal(err)
		}
	}
	s.Close(f.ctx, false)
}

// waiting are the messages in a session's backlog.
func (f *fixture) waiting(id string) (texts []string) {
	f.tb.Helper()
	s, _, err := f.Session(f.ctx, id)
	if err != nil {
		f.tb.Fatal(err)
	}
	ds, err := s.Waiting(f.ctx, 0, 100, nil)
	if err != nil {
		f.tb.Fatal(err)
	}
	for i := range ds {
		texts = append(texts, string(ds[i].Payload))
	}
	return texts
}

// TestSessionsThatComeAndGoCostNothing has one client connect many times, and
// the end of its session wait far in the future.
func TestSessionsThatComeAndGoCostNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		for range 1000 {
			f.kept("c", "", broker.SubscriptionOptions{})
			time.Sleep(time.Second)
		}
		if n := broker.Wakes(f.Broker); n > 100 {
			t.Errorf("%d times to look at one session", n)
		}
	})
}

// TestDeadLettersThatOnlySessionsTakeStay: a subscriber that is away is nobody
// who works on a message, but gets its copy.
func TestDeadLettersThatOnlySessionsTakeStay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("work", "orders/#", deadLetterTo("failed/orders"))
		f.kept("c", "failed/#", broker.SubscriptionOptions{QoS: 1})
		f.publish("orders/1", "x")
		f.fail("work", 3)
		f.receive("work", 1)
		time.Sleep(31 * time.Second)
		if i := f.info("work"); i.Dead != 1 || i.Difference() != 0 {
			t.Errorf("%+v", i.Info)
		}
		if got := f.waiting("c"); len(got) != 1 || got[0] != "x" {
			t.Errorf("the session has %q", got)
		}
	})
}

// TestLimitsOfSessionsChangeForThoseThatBegin leaves what is there as it was.
func TestLimitsOfSessionsChangeForThoseThatBegin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.kept("before", "t", broker.SubscriptionOptions{QoS: 1})
		if err := f.SetLimits(broker.Limits{SessionMessages: 1}); err != nil {
			t.Fatal(err)
		}
		f.kept("after", "t", broker.SubscriptionOptions{QoS: 1})
		f.publish("t", "1")
		f.publish("t", "2")
		if before, after := f.waiting("before"), f.waiting("after"); len(before) != 2 || len(after) != 1 || after[0] != "2" {
			t.Errorf("the old session has %q, the new one %q", before, after)
		}
		if err := f.SetLimits(broker.Limits{SessionPolicy: "whatever"}); err == nil {
			t.Error("a policy that there is not is taken")
		}
	})
}

// TestSessionsAreManaged lists them, shows them, and ends them.
func TestSessionsAreManaged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.kept("b", "t", broker.SubscriptionOptions{QoS: 1})
		f.kept("a", "t", broker.SubscriptionOptions{QoS: 2})
		f.publish("t", "x")
		var ids []string
		for i := range f.Sessions() {
			ids = append(ids, i.ClientID)
			if i.Connected || i.Subscriptions != 1 || i.Expiry != 1<<30 || i.Disconnected.IsZero() {
				t.Errorf("%+v", i)
			}
		}
		if len(ids) != 2 || ids[0] != "a" {
			t.Errorf("sessions are %q", ids)
		}
		s, _, err := f.Session(f.ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		if i, err := s.Backlog(f.ctx); err != nil || i.Ready != 1 {
			t.Errorf("%+v, %v", i, err)
		}
		nobody := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Anonymous})
		if err := f.EndSession(nobody, "a"); broker.KindOf(err) != broker.Forbidden {
			t.Errorf("anybody may end a session: %v", err)
		}
		if err := f.EndSession(f.ctx, "a"); err != nil {
			t.Error(err)
		}
		if err := f.EndSession(f.ctx, "a"); broker.KindOf(err) != broker.NotFound {
			t.Errorf("the second end answered %v", err)
		}
		if got := f.waiting("b"); len(got) != 1 {
			t.Errorf("the other session has %q", got)
		}
	})
}
