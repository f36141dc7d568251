package broker_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/clustertest"
	"millrace/persistence/local"
)

// slowStore holds each Submit back until it is let go.
type slowStore struct {
	broker.Store
	mu   sync.Mutex
	held chan func()
}

// hold has every Submit from now on wait in the channel, or none if that is nil.
func (s *slowStore) hold(in chan func()) {
	s.mu.Lock()
	s.held = in
	s.mu.Unlock()
}

func (s *slowStore) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held == nil {
		s.Store.Submit(b, l, c)
		return
	}
	held <- func() { s.Store.Submit(b, l, c) }
}

// TestARetainedMessageReachesWhoSubscribesDuringItsCommit: such a subscriber
// has been given what was retained before, and must not be left with it.
func TestARetainedMessageReachesWhoSubscribesDuringItsCommit(t *testing.T) {
	inner, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := &slowStore{Store: inner}
	f := openOver(t, store)
	there := &collect{got: make(chan string, 10)}
	if err := f.Subscribe(&broker.Subscription{Filter: "t", Principal: admin, Sink: there}); err != nil {
		t.Fatal(err)
	}
	retain := func(text string) {
		if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t", Payload: []byte(text), QoS: 1, Retain: true}); err != nil {
			t.Error(err)
		}
	}
	retain("old")
	there.want(t, "t=old")

	held := make(chan func())
	store.hold(held)
	done := make(chan struct{})
	go func() { defer close(done); retain("new") }()
	release := <-held // it has been matched
	late := &collect{got: make(chan string, 10)}
	if err := f.Subscribe(&broker.Subscription{Filter: "+", Principal: admin, Sink: late}); err != nil {
		t.Fatal(err)
	}
	var given []string
	err = f.RetainedAt(f.ctx, admin, "+", f.RetainedMark(), func(m *broker.Message) bool {
		given = append(given, string(m.Payload))
		return true
	})
	if err != nil || !slices.Equal(given, []string{"old"}) {
		t.Errorf("given %q at first, %v", given, err)
	}
	store.hold(nil)
	release()
	<-done
	late.want(t, "t=new")
	there.want(t, "t=new")
	if n := len(late.got) + len(there.got); n != 0 {
		t.Errorf("%d messages came twice", n)
	}
}

// TestARetainedMessageReachesASessionThatSubscribesDuringItsCommit is the same
// for a durable session, whose message comes to its backlog.
func TestARetainedMessageReachesASessionThatSubscribesDuringItsCommit(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		synctest.Test(t, func(t *testing.T) { lateSession(t, qos) })
	}
}

func lateSession(t *testing.T, qos byte) {
	t.Helper()
	inner, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := &slowStore{Store: inner}
	f := openOver(t, store)
	retain := func(text string) {
		if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t", Payload: []byte(text), QoS: 1, Retain: true}); err != nil {
			t.Error(err)
		}
	}
	retain("old")
	f.kept("there", "t", broker.SubscriptionOptions{QoS: 1})

	held := make(chan func())
	store.hold(held)
	done := make(chan struct{})
	go func() { defer close(done); retain("new") }()
	release := <-held // it has been matched
	store.hold(nil)
	live := &collect{got: make(chan string, 10)}
	s, _, err := f.OpenSession(f.ctx, broker.SessionOptions{ClientID: "late", Principal: admin, Expiry: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	for filter, o := range map[string]broker.SubscriptionOptions{"+": {QoS: qos}, "t/#": {QoS: qos, Handling: 2}} {
		if err := s.Subscribe(f.ctx, &broker.Subscription{Filter: filter, Principal: admin, Sink: live}, o); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(f.ctx); err != nil {
		t.Fatal(err)
	}
	release()
	<-done
	if qos == 0 {
		live.want(t, "t=new")
	} else {
		synctest.Wait()
		if got := f.waiting("late"); !slices.Equal(got, []string{"new"}) {
			t.Errorf("the late session has %q", got)
		}
	}
	if got := f.waiting("there"); !slices.Equal(got, []string{"new"}) {
		t.Errorf("who was there has %q", got)
	}
}

// TestARetainedMessageComesOnceToAGroupThatGrowsDuringItsCommit: its members have it of
// one of them, also where another node has become one that might have been chosen.
func TestARetainedMessageComesOnceToAGroupThatGrowsDuringItsCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		inner, err := local.Open(local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store, an := &slowStore{Store: inner}, bus.Join("a")
		a := openOver(t, store, func(o *broker.Options) { o.Cluster = an })
		b, _ := start(t, bus, "b")
		_, here := a.listen("$share/g/t/#")
		synctest.Wait()
		ms := make([]*broker.Message, 40) // for some of which b would be chosen
		for i := range ms {
			ms[i] = &broker.Message{Topic: fmt.Sprint("t/", i), Payload: fmt.Append(nil, i), QoS: 1, Retain: true}
		}
		held := make(chan func())
		store.hold(held)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := a.PublishBatch(a.ctx, ms); err != nil {
				t.Error(err)
			}
		}()
		release := <-held // they have been matched
		store.hold(nil)
		_, there := b.listen("$share/g/t/#")
		_, plain := b.listen("t/#")
		synctest.Wait()
		release()
		<-done
		time.Sleep(time.Second)
		if got := here.take(); len(got) != len(ms) {
			t.Errorf("the member that was there has %d of %d", len(got), len(ms))
		}
		if got := there.take(); len(got) != 0 {
			t.Errorf("the member that came has %q, too", got)
		}
		if got := plain.take(); len(got) != len(ms) {
			t.Errorf("who subscribed by itself has %d of %d", len(got), len(ms))
		}
	})
}
