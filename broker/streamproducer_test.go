package broker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// producer opens one for the stream of a topic.
func (f *fixture) producer(name, topic string, create bool) *broker.StreamProducer {
	f.tb.Helper()
	p, err := f.NewStreamProducer(f.ctx, broker.NewStreamConfig(name, topic), create)
	if err != nil {
		f.tb.Fatal(err)
	}
	return &p
}

func message(text string) broker.StreamMessage {
	return broker.StreamMessage{Message: &broker.Message{Payload: []byte(text), QoS: 1}, Partition: broker.AnyPartition}
}

// place publishes and returns "partition/offset" of each, or its error's kind.
func (f *fixture) place(p *broker.StreamProducer, ms ...broker.StreamMessage) (all []string) {
	f.tb.Helper()
	if err := p.Publish(f.ctx, ms); err != nil {
		f.tb.Fatal(err)
	}
	for i := range ms {
		at := &ms[i].Placed
		text := fmt.Sprintf("%d/%d", at.Partition, at.Offset)
		if at.Duplicate {
			text += " again"
		}
		if !at.Known {
			text = "nowhere"
		}
		if at.Err != nil {
			text = fmt.Sprint("kind ", broker.KindOf(at.Err))
		}
		all = append(all, text)
	}
	return all
}

func same(tb testing.TB, got []string, want ...string) {
	tb.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		tb.Errorf("got %q, want %q", got, want)
	}
}

func TestAStreamProducerTellsWhereAMessageWent(t *testing.T) {
	f := open(t)
	f.stream("other", "a", 2) // matched by the same topic, and no matter
	f.stream("s", "a", 5)
	p := f.producer("s", "a", false)
	var ms []broker.StreamMessage
	for i := range 10 {
		ms = append(ms, message(fmt.Sprint(i)))
	}
	count := map[string]int{}
	for _, at := range f.place(p, ms...) {
		count[at[:1]]++
	}
	for n := range 5 {
		if count[fmt.Sprint(n)] != 2 {
			t.Errorf("10 messages in turn over 5 partitions: %v", count)
		}
	}
	explicit, keyed, other, wrong := message("x"), message("x"), message("x"), message("x")
	explicit.Partition, wrong.Partition = 3, 5
	keyed.Key, other.Key = "k", "k"
	got := f.place(p, explicit, wrong, keyed, other)
	if got[0] != "3/2" || got[1] != fmt.Sprint("kind ", broker.Invalid) || got[2][0] != got[3][0] {
		t.Errorf("got %q", got)
	}
}

func TestAStreamProducerReachesItsStreamAndTheRouter(t *testing.T) {
	f := open(t)
	f.queue("q", "b/#")
	f.stream("s", "elsewhere", 1)
	p := f.producer("s", "b/c", false)
	same(t, f.place(p, message("x")), "0/0")
	f.expect("q", "x")
	if got, _ := f.read("s", broker.Pos{Begin: true}, 0); got != "[x]" {
		t.Errorf("the stream has %s", got)
	}
	f.publish("elsewhere", "y")
	if got, _ := f.read("s", broker.Pos{Begin: true}, 0); got != "[x y]" {
		t.Errorf("the stream has %s", got)
	}
}

func TestAStreamProducerMakesItsStreamOnce(t *testing.T) {
	f := open(t)
	_, err := f.NewStreamProducer(f.ctx, broker.NewStreamConfig("s", "a"), false)
	wantKind(t, err, broker.NotFound, broker.StreamSubject)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { f.place(f.producer("s", "a", true), message("x")) })
	}
	wait.Wait()
	if got, _ := f.read("s", broker.Pos{Begin: true}, 0); got != "[x x x x x x x x]" {
		t.Errorf("the stream has %s", got)
	}
	_, err = f.NewStreamProducer(f.ctx, broker.NewStreamConfig("s2", "a/+"), true)
	wantKind(t, err, broker.Invalid, broker.TopicSubject)
}

func TestAStreamProducerNeedsTheRightToPublish(t *testing.T) {
	f := open(t)
	f.stream("other", "b", 1)
	ctx := func(role auth.Role, scopes ...string) context.Context {
		return auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "k", Role: role, Scopes: scopes})
	}
	open := func(ctx context.Context, name, topic string) error {
		_, err := f.NewStreamProducer(ctx, broker.NewStreamConfig(name, topic), true)
		return err
	}
	wantKind(t, open(ctx(auth.Viewer), "s", "a"), broker.Forbidden, broker.NoSubject)
	wantKind(t, open(ctx(auth.Publisher, "c"), "s", "a"), broker.Forbidden, broker.NoSubject)
	if err := open(ctx(auth.Publisher, "a"), "s", "a"); err != nil {
		t.Errorf("whoever may publish to the topic has it kept: %v", err)
	}
	// A stream of another filter is more than the topic kept.
	wantKind(t, open(ctx(auth.Publisher, "a"), "other", "a"), broker.Forbidden, broker.NoSubject)
}

func TestARepeatedSequenceIsToldItsFirstPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		p := f.producer("s", "a", true)
		keyed := func(key, text string) broker.StreamMessage {
			m := message(text)
			m.DedupKey = key
			return m
		}
		f.place(p, message("before"))
		same(t, f.place(p, keyed("k", "x"), keyed("k", "x"), keyed("k", "other")), "0/1", "0/1 again", fmt.Sprint("kind ", broker.Conflict))
		time.Sleep(4 * time.Minute)
		for range 1500 {
			f.place(p, message("more"))
		}
		same(t, f.place(p, keyed("k", "x")), "0/1 again")
		time.Sleep(2 * time.Minute)
		same(t, f.place(p, keyed("k", "x")), "0/1502")
	})
}

func TestSchemasHaveTheVersionOfTheirFirstRegistration(t *testing.T) {
	f := open(t)
	p := f.producer("s", "a", true)
	register := func(text string) int {
		t.Helper()
		v, err := p.RegisterSchema(f.ctx, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i, text := range []string{"one", "two", "one", "three", "two"} {
		if got, want := register(text), []int{0, 1, 0, 2, 1}[i]; got != want {
			t.Errorf("%s has version %d, want %d", text, got, want)
		}
	}
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() { register(fmt.Sprint("at once ", i/4)) })
	}
	wait.Wait()
	if got := register("last"); got != 8 {
		t.Errorf("after 8 schemas the next has version %d", got)
	}
	if s, err := f.Schema(f.ctx, "s", 2); err != nil || string(s) != "three" {
		t.Errorf("version 2 is %q, %v", s, err)
	}
	_, err := p.Schema(f.ctx, 99)
	wantKind(t, err, broker.NotFound, broker.NoSubject)
	_, err = p.RegisterSchema(f.ctx, make([]byte, 256<<10+1))
	wantKind(t, err, broker.TooLarge, broker.FieldSubject)
	if err := f.DeleteStream(f.ctx, "s"); err != nil {
		t.Fatal(err)
	}
	if v, err := f.producer("s", "a", true).RegisterSchema(f.ctx, []byte("two")); err != nil || v != 0 {
		t.Errorf("a stream made anew gives version %d, %v", v, err)
	}
	left := 0
	if err := f.store.List(f.ctx, broker.SpaceSchemas, "", func(broker.Entry) bool { left++; return true }); err != nil || left != 2 {
		t.Errorf("%d keys are left, %v", left, err)
	}
}
