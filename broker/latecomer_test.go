package broker_test

import (
	"slices"
	"testing"

	"millrace/broker"
	"millrace/persistence/local"
)

// slowStore holds each Submit back until it is let go.
type slowStore struct {
	broker.Store
	held chan func()
}

func (s *slowStore) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	if s.held == nil {
		s.Store.Submit(b, l, c)
		return
	}
	s.held <- func() { s.Store.Submit(b, l, c) }
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

	store.held = make(chan func())
	done := make(chan struct{})
	go func() { defer close(done); retain("new") }()
	release := <-store.held // it has been matched
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
	store.held = nil
	release()
	<-done
	late.want(t, "t=new")
	there.want(t, "t=new")
	if n := len(late.got) + len(there.got); n != 0 {
		t.Errorf("%d messages came twice", n)
	}
}
