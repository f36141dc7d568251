package broker_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/scenario"
	"millrace/persistence/local"
)

func TestDelayedMessageReachesSubscribersWhenItIsDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		sink := new(collector)
		if err := f.Subscribe(&broker.Subscription{Filter: "#", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		f.publish("$delayed/10/t", "later")
		f.publish("$delayed/0/t", "now")
		synctest.Wait()
		f.expect("q", "now")
		if got := sink.texts(); len(got) != 1 || got[0] != "now" {
			t.Errorf("before it was due the subscriber got %q", got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := f.expect("q", "later")[0]; got.Topic != "t" {
			t.Errorf("topic %s", got.Topic)
		}
		time.Sleep(time.Hour)
		if got := sink.texts(); len(got) != 2 || got[1] != "later" {
			t.Errorf("the subscriber got %q", got)
		}
		if qs, err := f.Queues(f.ctx); err != nil || len(qs) != 1 {
			t.Errorf("%d queues are listed, %v", len(qs), err)
		}
	})
}

func TestDelayedRetainedMessageIsRetainedWhenItIsDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.retain("$delayed/5/t", "x")
		if got := f.retained(admin, "#"); got != "" {
			t.Errorf("at once: %q", got)
		}
		time.Sleep(6 * time.Second)
		if got := f.retained(admin, "#"); got != "t=x" {
			t.Errorf("when due: %q", got)
		}
	})
}

// TestDelayedMessageReachesTheSessionsThatAreThereWhenItIsDue: as with live
// subscribers, it does not matter who was there when it was published.
func TestDelayedMessageReachesTheSessionsThatAreThereWhenItIsDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.kept("before", "t", broker.SubscriptionOptions{QoS: 1})
		for _, key := range []string{"", "key"} {
			m := &broker.Message{Topic: "$delayed/10/t", Payload: []byte("x" + key), QoS: 1, DedupKey: key}
			if p, err := f.Publish(f.ctx, m); err != nil || p.Matched.Subscribers != 1 {
				t.Fatalf("%+v, %v", p, err)
			}
		}
		f.kept("after", "t", broker.SubscriptionOptions{QoS: 1})
		time.Sleep(9 * time.Second)
		if got := f.waiting("before"); len(got) != 0 {
			t.Errorf("before it was due the session has %q", got)
		}
		time.Sleep(2 * time.Second)
		for _, id := range []string{"before", "after"} {
			if got := f.waiting(id); !slices.Equal(got, []string{"x", "xkey"}) {
				t.Errorf("%s has %q", id, got)
			}
		}
		if n := f.Stats().Published; n != 2 {
			t.Errorf("%d messages were taken, want 2", n)
		}
	})
}

func TestDelayedMessageSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	bubble(t, func(t *testing.T) {
		w := &scenario.CoreWorld{OpenStore: stored(dir)}
		if err := w.Open(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Broker.Publish(w.Ctx, &broker.Message{Topic: "$delayed/60/t", Payload: []byte("x"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if err := w.Restart(); err != nil {
			t.Fatal(err)
		}
		sink := new(collector)
		if err := w.Broker.Subscribe(&broker.Subscription{Filter: "t", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if got := sink.texts(); len(got) != 1 {
			t.Errorf("the subscriber got %q", got)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDelayIsChecked(t *testing.T) {
	f := open(t)
	for _, topic := range []string{"$delayed", "$delayed/5", "$delayed/5/", "$delayed/x/t", "$delayed/-1/t", "$delayed/5/$SYS/x", "$delayed/5/a/#", "$delayed/5/$delayed/5/t"} {
		_, err := f.Publish(f.ctx, &broker.Message{Topic: topic})
		wantKind(t, err, broker.Invalid, broker.TopicSubject)
	}
	_, err := f.Publish(f.ctx, &broker.Message{Topic: "$delayed/604801/t"})
	wantKind(t, err, broker.Invalid, broker.FieldSubject)
	f.publish("$delayed/604800/t", "exactly the limit")
	_, err = f.Publish(f.ctx, &broker.Message{Topic: "t", NotBefore: time.Now().Add(-time.Hour).UnixMilli()})
	if err != nil {
		t.Errorf("a time in the past: %v", err)
	}
}

func TestReceiveRepeatedUnderItsAttemptIDGivesTheSame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		for _, s := range []string{"1", "2", "3", "4"} {
			f.publish("t", s)
		}
		attempt := func(id string) []broker.Received {
			t.Helper()
			got, err := f.ReceiveAttempt(f.ctx, "q", id, broker.ReceiveOptions{Max: 3, Lease: broker.DefaultLease})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first, again := attempt("a"), attempt("a")
		if len(first) != 3 || len(again) != 3 || first[2].Receipt != again[2].Receipt || again[0].Attempt != 1 {
			t.Fatalf("first %q, again %q", texts(first), texts(again))
		}
		if got := attempt("b"); len(got) != 1 {
			t.Errorf("another attempt got %q", texts(got))
		}
		if got := attempt("c"); len(got) != 0 {
			t.Errorf("a third got %q", texts(got))
		}
		f.publish("t", "5")
		if got := attempt("c"); len(got) != 1 { // what took nothing is not remembered
			t.Errorf("the third repeated got %q", texts(got))
		}
		time.Sleep(31 * time.Second)
		if got := attempt("a"); len(got) != 3 || got[0].Attempt != 2 {
			t.Errorf("after its leases: %q", texts(got))
		}
	})
}

// TestABrokerThatClosesWhileADelayedMessageIsCommitted must not keep the store
// from telling the outcome, although nobody waits for it any more.
func TestABrokerThatClosesWhileADelayedMessageIsCommitted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner, err := local.Open(local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store := &slowStore{Store: inner}
		f := openOver(t, store)
		sink := new(collector)
		if err := f.Subscribe(&broker.Subscription{Filter: "#", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		f.publish("$delayed/10/t", "later")
		held := make(chan func())
		store.hold(held)
		release := <-held // it is due
		store.hold(nil)
		if err := f.Close(f.ctx); err != nil {
			t.Fatal(err)
		}
		release()
		ctx, cancel := context.WithTimeout(f.ctx, time.Minute)
		defer cancel()
		if err := inner.Close(ctx); err != nil {
			t.Fatalf("close the store: %v", err)
		}
		if got := sink.texts(); len(got) != 1 || got[0] != "later" {
			t.Errorf("the subscriber got %q", got)
		}
	})
}
