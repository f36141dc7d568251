package broker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// join makes a member of the subscription sub of the stream s.
func (f *fixture) join(o broker.JoinOptions) *broker.Member {
	f.tb.Helper()
	m, err := f.Join(f.ctx, "s", "sub", o)
	if err != nil {
		f.tb.Fatal(err)
	}
	return m
}

// take has a member receive what is there, and wants exactly these payloads.
func (f *fixture) take(m *broker.Member, want ...string) []broker.Received {
	f.tb.Helper()
	got, err := m.Receive(f.ctx, broker.ReceiveOptions{Max: 10})
	if err != nil || fmt.Sprint(texts(got)) != fmt.Sprint(want) {
		f.tb.Fatalf("got %q and %v, want %q", texts(got), err, want)
	}
	return got
}

// withMembers opens a stream with a subscription.
func withMembers(t *testing.T, set ...func(*broker.SubscriptionConfig)) *fixture {
	t.Helper()
	f := open(t)
	f.stream("s", "a", 1)
	f.subscribe(broker.Place{}, set...)
	return f
}

func TestAMemberKeepsItsMessagesForAsLongAsItIsUsed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := withMembers(t)
		one, two := f.join(broker.JoinOptions{}), f.join(broker.JoinOptions{})
		f.publish("a", "x")
		f.publish("a", "y")
		f.take(one, "x", "y")
		for range 100 {
			time.Sleep(4 * time.Minute)
			if _, err := f.Member(f.ctx, "s", "sub", one.ID()); err != nil {
				t.Fatal(err)
			}
			f.take(two)
		}
		if rs, err := f.AckAt(f.ctx, "s", "sub", broker.Offset{}); err != nil || rs[0].State != broker.Removed {
			t.Fatalf("ack answers %v, %v", rs, err)
		}
		time.Sleep(broker.MemberIdle + time.Minute)
		_, err := f.Member(f.ctx, "s", "sub", one.ID())
		wantKind(t, err, broker.NotFound, broker.ConsumerSubject)
		if _, err := f.Member(f.ctx, "s", "sub", two.ID()); err == nil {
			t.Error("the other one was idle as well")
		}
		got := f.take(f.join(broker.JoinOptions{}), "y")
		if got[0].Attempt != 2 {
			t.Errorf("attempt %d", got[0].Attempt)
		}
	})
}

func TestAMemberThatLeavesGivesItsMessagesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := withMembers(t)
		one, two := f.join(broker.JoinOptions{}), f.join(broker.JoinOptions{})
		for i := range 3 {
			f.publish("a", fmt.Sprint(i))
		}
		f.take(one, "0", "1", "2")
		f.take(two)
		ended := make(chan error)
		go func() {
			_, err := one.Receive(f.ctx, broker.ReceiveOptions{Max: 1, Wait: time.Hour})
			ended <- err
		}()
		synctest.Wait()
		if err := one.Leave(f.ctx); err != nil {
			t.Fatal(err)
		}
		wantKind(t, <-ended, broker.NotFound, broker.ConsumerSubject)
		f.take(two, "0", "1", "2")
		wantKind(t, one.Leave(f.ctx), broker.NotFound, broker.ConsumerSubject)
		_, err := one.Receive(f.ctx, broker.ReceiveOptions{Max: 1})
		wantKind(t, err, broker.NotFound, broker.ConsumerSubject)
	})
}

func TestAMemberGivesBackWhatItHoldsAndNothingElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := withMembers(t)
		one, two := f.join(broker.JoinOptions{}), f.join(broker.JoinOptions{})
		f.publish("a", "x")
		f.publish("a", "y")
		f.take(one, "x", "y")
		back, err := two.Nack(f.ctx, 0, broker.Offset{})
		if len(back) > 0 || err != nil {
			t.Errorf("who holds nothing gives back %v, %v", back, err)
		}
		back, err = one.Nack(f.ctx, 0, broker.Offset{Offset: 1}, broker.Offset{Offset: 7})
		if fmt.Sprint(back) != "[{0 1}]" || err != nil {
			t.Errorf("given back %v, %v", back, err)
		}
		f.take(two, "y")
		if back, err := one.Nack(f.ctx, broker.Backoff, broker.Offset{Offset: 1}); len(back) > 0 || err != nil {
			t.Errorf("what another one holds: %v, %v", back, err)
		}
		if back, err := one.Nack(f.ctx, broker.Backoff, broker.Offset{}); len(back) != 1 || err != nil {
			t.Errorf("given back %v, %v", back, err)
		}
		f.take(two)
		time.Sleep(2 * time.Second)
		f.take(two, "x")
		_, err = one.Nack(f.ctx, 13*time.Hour, broker.Offset{})
		wantKind(t, err, broker.Invalid, broker.FieldSubject)
	})
}

func TestAnAcknowledgementTimeoutHoldsForMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := withMembers(t, func(c *broker.SubscriptionConfig) { c.MQTTLease = 10 * time.Second })
		one, two := f.join(broker.JoinOptions{}), f.join(broker.JoinOptions{})
		f.publish("a", "x")
		f.take(one, "x")
		time.Sleep(9 * time.Second)
		f.take(two)
		time.Sleep(2 * time.Second)
		f.take(two, "x")
		time.Sleep(time.Minute)
		f.take(one, "x")
	})
}

func TestMembersHaveNamesAndOwners(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := withMembers(t)
		one := f.join(broker.JoinOptions{Name: "one", Note: []byte("n")})
		_, err := f.Join(f.ctx, "s", "sub", broker.JoinOptions{Name: "one"})
		wantKind(t, err, broker.Conflict, broker.ConsumerSubject)
		if again := f.join(broker.JoinOptions{ID: one.ID(), Name: "other"}); again != one || string(again.Note) != "n" {
			t.Error("the id of a member that is there makes another one")
		}
		stranger := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "stranger", Role: auth.Client})
		_, err = f.Member(stranger, "s", "sub", one.ID())
		wantKind(t, err, broker.NotFound, broker.ConsumerSubject)
		if m, err := f.Join(stranger, "s", "sub", broker.JoinOptions{ID: one.ID()}); err != nil || m == one {
			t.Errorf("a stranger is given the member of somebody else: %v", err)
		}
		viewer := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "v", Role: auth.Viewer})
		_, err = f.Join(viewer, "s", "sub", broker.JoinOptions{})
		wantKind(t, err, broker.Forbidden, broker.NoSubject)
		if err := one.Leave(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.join(broker.JoinOptions{Name: "one"})
		if err := f.DeleteSubscription(f.ctx, "s", "sub"); err != nil {
			t.Fatal(err)
		}
		_, err = one.Receive(f.ctx, broker.ReceiveOptions{Max: 1})
		wantKind(t, err, broker.NotFound, broker.ConsumerSubject)
		time.Sleep(time.Minute) // the members of what is gone end
	})
}

func TestMembersNeverShareAMessage(t *testing.T) {
	f := withMembers(t)
	const n, consumers = 500, 6
	for i := range n {
		f.publish("a", fmt.Sprint(i))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wait sync.WaitGroup
	for range consumers {
		m := f.join(broker.JoinOptions{})
		wait.Go(func() {
			for {
				got, err := m.Receive(f.ctx, broker.ReceiveOptions{Max: 7})
				if err != nil || len(got) == 0 {
					return
				}
				mu.Lock()
				for _, g := range got {
					seen[string(g.Payload)]++
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for text, times := range seen {
		if times != 1 {
			t.Errorf("message %s was given to %d consumers", text, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d messages of %d were received", len(seen), n)
	}
}

func TestThereIsALimitOfMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := withMembers(t)
		for range 10_000 {
			f.join(broker.JoinOptions{})
		}
		_, err := f.Join(f.ctx, "s", "sub", broker.JoinOptions{})
		wantKind(t, err, broker.Full, broker.NoSubject)
		time.Sleep(broker.MemberIdle + time.Minute)
		f.join(broker.JoinOptions{})
	})
}
