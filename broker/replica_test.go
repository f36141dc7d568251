package broker_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clustertest"
)

// two starts two nodes over one store of the memory driver.
func two(t *testing.T) (a, b *fixture) {
	t.Helper()
	s := share(t, "")
	return s.start("a"), s.start("b")
}

func TestAQueueMadeOnOneNodeIsThereOnAnother(t *testing.T) {
	a, b := two(t)
	a.queue("q", "t/#")
	b.publish("t/1", "one") // answered: no node routes by what was before
	a.expect("q", "one")
	if _, err := b.UpdateQueue(b.ctx, "q", func(c *broker.QueueConfig) error { c.Filter = "u/#"; return nil }); err != nil {
		t.Fatal(err)
	}
	a.publish("t/2", "lost")
	a.publish("u/2", "two")
	got := b.expect("q", "two")
	if s := a.ack("q", got[0]); s != broker.Removed {
		t.Errorf("acknowledged on the other node it is %v", s)
	}
	if err := b.DeleteQueue(b.ctx, "q"); err != nil {
		t.Fatal(err)
	}
	if p := a.publish("u/3", "nobody's"); p.Matched.Queues != 0 {
		t.Errorf("a deleted queue is still fed: %+v", p.Matched)
	}
	_, err := a.Queue(a.ctx, "q")
	wantKind(t, err, broker.NotFound, broker.QueueSubject)
	a.queue("q", "t/#")
	b.publish("t/4", "anew")
	b.expect("q", "anew")
}

func TestAStreamMadeOnOneNodeIsThereOnAnother(t *testing.T) {
	a, b := two(t)
	if _, err := a.CreateStream(a.ctx, broker.NewStreamConfig("s", "t/#")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateSubscription(b.ctx, broker.NewSubscriptionConfig("s", "sub"), broker.Place{}); err != nil {
		t.Fatal(err)
	}
	if p := b.publish("t/1", "one"); p.Matched.Streams != 1 {
		t.Errorf("matched %+v", p.Matched)
	}
	if _, err := a.UpdateSubscription(a.ctx, "s", "sub", func(c *broker.SubscriptionConfig) error { c.MaxRetries = 7; return nil }); err != nil {
		t.Fatal(err)
	}
	if i, err := b.Subscription(b.ctx, "s", "sub"); err != nil || i.MaxRetries != 7 || i.Ready != 1 {
		t.Errorf("the other node shows %+v, %v", i, err)
	}
	if _, err := b.UpdateStream(b.ctx, "s", func(c *broker.StreamConfig) error { c.Partitions = 3; return nil }); err != nil {
		t.Fatal(err)
	}
	if i, err := a.Stream(a.ctx, "s"); err != nil || len(i.Partitioned) != 3 {
		t.Errorf("the other node shows %+v, %v", i, err)
	}
	if err := a.DeleteStream(a.ctx, "s"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Stream(b.ctx, "s")
	wantKind(t, err, broker.NotFound, broker.StreamSubject)
}

// TestNodesThatDefineAtOnceAgree has nodes make, change and delete queues of the
// same names at the same time: in the end all have what the store has, once.
func TestNodesThatDefineAtOnceAgree(t *testing.T) {
	s := share(t, t.TempDir())
	nodes := []*fixture{s.start("a"), s.start("b"), s.start("c")}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for round := range 20 {
				name := fmt.Sprintf("q%d", round%3)
				c := broker.NewQueueConfig(name, fmt.Sprintf("t/%d/%d/new", i, round))
				if _, err := n.CreateQueue(n.ctx, c); err != nil && broker.KindOf(err) != broker.Conflict && broker.KindOf(err) != broker.NotFound {
					t.Error(err)
				}
				if _, err := n.UpdateQueue(n.ctx, name, func(c *broker.QueueConfig) error {
					c.Filter = fmt.Sprintf("t/%d/%d", i, round)
					return nil
				}); err != nil && broker.KindOf(err) != broker.NotFound {
					t.Error(err)
				}
				if round%4 == i {
					if err := n.DeleteQueue(n.ctx, name); err != nil && broker.KindOf(err) != broker.NotFound {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	recorded, err := s.store.Definitions(nodes[0].ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		qs, err := n.Queues(n.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(qs) != len(recorded)-1 { // without that of delayed messages
			t.Errorf("a node has %d queues, the store %d", len(qs), len(recorded)-1)
		}
		for _, q := range qs {
			before := q.In
			if p := n.publish(q.Filter, "x"); p.Matched.Queues != 1 {
				t.Errorf("filter %s matches %d queues", q.Filter, p.Matched.Queues)
			}
			if now := n.info(q.Name).In; now != before+1 {
				t.Errorf("queue %s got %d messages for one", q.Name, now-before)
			}
		}
	}
}

// TestNodesThatStartAtOnceOnAnEmptyStoreAgree opens two at the same time: a
// receipt of one is good on the other, and there is one queue of delayed messages.
func TestNodesThatStartAtOnceOnAnEmptyStoreAgree(t *testing.T) {
	for range 20 {
		s := share(t, "")
		nodes := []*clustertest.View{s.Join("a"), s.Join("b"), s.Join("c")}
		fixtures := make([]*fixture, len(nodes))
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() { fixtures[i] = s.open(n) })
		}
		wg.Wait()
		fixtures[0].queue("q", "t")
		for i, f := range fixtures {
			f.publish("t", fmt.Sprint(i))
			got := f.expect("q", fmt.Sprint(i))
			if st := fixtures[(i+1)%len(fixtures)].ack("q", got[0]); st != broker.Removed {
				t.Fatalf("a receipt of another node is %v", st)
			}
		}
		if _, err := fixtures[0].Publish(fixtures[0].ctx, &broker.Message{Topic: "$delayed/60/t", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		for _, f := range fixtures {
			if n, err := f.DelayedCount(f.ctx); n != 1 || err != nil {
				t.Fatalf("a node sees %d delayed messages, %v", n, err)
			}
		}
	}
}

// TestANodeThatStartsHearsWhatChangesMeanwhile has one make queues and set
// retained messages while others read the store.
func TestANodeThatStartsHearsWhatChangesMeanwhile(t *testing.T) {
	s := share(t, "")
	a := s.start("a")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			name := fmt.Sprintf("q%d", i%7)
			if err := a.DeleteQueue(a.ctx, name); err != nil && broker.KindOf(err) != broker.NotFound {
				t.Error(err)
			}
			a.queue(name, fmt.Sprintf("t/%d", i))
			a.retain(fmt.Sprintf("r/%d", i%5), []string{"", "x"}[i%2])
		}
	})
	var late []*fixture
	for i := range 5 {
		late = append(late, s.start(fmt.Sprintf("late%d", i)))
	}
	wg.Wait()
	want := a.names()
	for _, f := range late {
		if got := f.names(); !slices.Equal(got, want) {
			t.Errorf("a node that came late has %q, want %q", got, want)
		}
	}
}

// names are the queues with their filters and the topics with retained messages.
func (f *fixture) names() (list []string) {
	f.tb.Helper()
	qs, err := f.Queues(f.ctx)
	if err != nil {
		f.tb.Fatal(err)
	}
	for i := range qs {
		list = append(list, qs[i].Name+" "+qs[i].Filter)
	}
	ms, _, err := f.RetainedPage(f.ctx, "#", 0, 1000)
	if err != nil {
		f.tb.Fatal(err)
	}
	for _, m := range ms {
		list = append(list, m.Topic)
	}
	return append(list, fmt.Sprint(f.RetainedCount()))
}

// TestRetainedMessagesAreThereOnAllNodes has several set and clear those of a few
// topics: all nodes come to the same.
func TestRetainedMessagesAreThereOnAllNodes(t *testing.T) {
	s := share(t, t.TempDir())
	nodes := []*fixture{s.start("a"), s.start("b")}
	nodes[0].retain("r", "x")
	if n := nodes[1].RetainedCount(); n != 1 {
		t.Errorf("the other node knows %d", n)
	}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for round := range 50 {
				n.retain(fmt.Sprintf("r/%d", round%3), []string{"", "x"}[(round+i)%2])
			}
			if _, err := n.ClearRetained(n.ctx, "r/1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	kept := map[string]bool{}
	if err := s.store.List(nodes[0].ctx, broker.SpaceRetained, "", func(e broker.Entry) bool {
		kept[e.Key] = true
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if got := n.RetainedCount(); got != len(kept) {
			t.Errorf("a node knows %d topics with retained messages, the store %d", got, len(kept))
		}
	}
}

// TestExpiredRetainedMessagesAreRemovedByTheLeader also after it has changed.
func TestExpiredRetainedMessagesAreRemovedByTheLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		first := s.Join("a")
		s.open(first)
		b := s.start("b")
		set := func(topic string, after time.Duration) {
			t.Helper()
			m := &broker.Message{Topic: topic, Payload: []byte("x"), Retain: true, Expires: b.Now().Add(after).UnixMilli()}
			if _, err := b.Publish(b.ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		set("soon", time.Second)
		set("later", time.Minute)
		time.Sleep(2 * time.Second)
		if n := b.RetainedCount(); n != 1 {
			t.Errorf("%d topics are left, want 1", n)
		}
		first.Kill()
		time.Sleep(time.Minute)
		if n := b.RetainedCount(); n != 0 {
			t.Errorf("%d topics are left after the leader has changed", n)
		}
	})
}

func TestKeysOfANodeAreItsOwn(t *testing.T) {
	a, b := two(t)
	all := broker.NewKeys(a.store, broker.SpaceSystem)
	of := map[string]*broker.Keys{"a": all.Of("a"), "b": broker.NewKeys(b.store, broker.SpaceSystem).Of("b")}
	for name, k := range of {
		if err := k.Put(a.ctx, "alarm/x", []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := of["b"].Delete(a.ctx, "alarm/x"); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := of["a"].Get(a.ctx, "alarm/x"); string(v) != "a" || !ok || err != nil {
		t.Errorf("got %q, %t, %v", v, ok, err)
	}
	if m, err := of["a"].List(a.ctx, "alarm/"); len(m) != 1 || string(m["alarm/x"]) != "a" || err != nil {
		t.Errorf("got %q, %v", m, err)
	}
	if _, ok, err := all.Get(a.ctx, "alarm/x"); ok || err != nil {
		t.Errorf("a key of a node is one of all: %v", err)
	}
}

// TestAUserOfOneNodeIsOneOfAnother when the first has answered.
func TestAUserOfOneNodeIsOneOfAnother(t *testing.T) {
	a, b := two(t)
	spec := auth.UserSpec{Username: "u", Password: "a long enough one"}
	if err := a.Auth().AddUser(a.ctx, spec); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Auth().Login(b.ctx, "u", spec.Password, "c", "", false); err != nil {
		t.Errorf("login on the other node: %v", err)
	}
	if err := b.Auth().DeleteUser(b.ctx, "u"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Auth().Login(a.ctx, "u", spec.Password, "c", "", false); err == nil {
		t.Error("a user that was deleted on the other node logs in")
	}
}

func TestWatchedTopicsAreWatchedOnAllNodes(t *testing.T) {
	a, b := two(t)
	if err := a.WatchTopic(a.ctx, "w"); err != nil {
		t.Fatal(err)
	}
	b.publish("w", "x")
	if all := b.WatchedTopics(); len(all) != 1 || all[0].Total.In[1] != 1 {
		t.Errorf("the other node has %+v", all)
	}
	wantKind(t, b.WatchTopic(b.ctx, "w"), broker.Conflict, broker.TopicSubject)
	if err := b.UnwatchTopic(b.ctx, "w"); err != nil {
		t.Fatal(err)
	}
	if all := a.WatchedTopics(); len(all) != 0 {
		t.Errorf("the first node has %+v", all)
	}
}

// TestWhatLapsesGoesToTheDeadLetterTopicOnce on whatever node it was received.
func TestWhatLapsesGoesToTheDeadLetterTopicOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a := s.start("a")
		b := s.start("b")
		b.queue("dead", "dead/#")
		b.queue("q", "t", func(c *broker.QueueConfig) { c.DeadLetterTopic, c.MaxRetries, c.Lease = "dead/q", 0, time.Second })
		b.publish("t", "x")
		b.expect("q", "x")
		time.Sleep(2 * time.Second)
		a.expect("dead", "x")
		a.expect("q")
		b.balanced(new(a.info("q")))
	})
}
