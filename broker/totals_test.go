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

// total is how far a limit of Totals is reached.
func (f *fixture) total(name string) broker.Total {
	f.tb.Helper()
	for _, t := range f.Totals() {
		if t.Name == name {
			return t
		}
	}
	f.tb.Fatalf("no total %q", name)
	return broker.Total{}
}

// limit sets limits while the broker runs.
func (f *fixture) limit(l broker.Limits) {
	f.tb.Helper()
	if err := f.SetLimits(l); err != nil {
		f.tb.Fatal(err)
	}
}

func TestQueuesAndStreamsAreMadeUpToTheirLimit(t *testing.T) { // D29
	f := open(t, func(o *broker.Options) { o.Queues, o.Streams = 2, 2 })
	for what, d := range map[string]struct {
		create func(name string) error
		drop   func(ctx context.Context, name string) error
		more   broker.Limits
	}{
		"queues": {
			create: func(name string) error {
				_, err := f.CreateQueue(f.ctx, broker.NewQueueConfig(name, ""))
				return err
			},
			drop: f.DeleteQueue,
			more: broker.Limits{Queues: 3, Streams: 2},
		},
		"streams": {
			create: func(name string) error {
				_, err := f.CreateStream(f.ctx, broker.NewStreamConfig(name, name))
				return err
			},
			drop: f.DeleteStream,
			more: broker.Limits{Queues: 2, Streams: 3},
		},
	} {
		f.limit(broker.Limits{Queues: 2, Streams: 2})
		taken := func(name string) {
			t.Helper()
			if err := d.create(name); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused := func(name string) {
			t.Helper()
			wantKind(t, d.create(name), broker.Full, broker.LimitSubject)
		}
		taken("one")
		taken("two")
		refused("three")
		wantKind(t, d.create("two"), broker.Conflict, map[string]broker.Subject{"queues": broker.QueueSubject, "streams": broker.StreamSubject}[what])
		if err := d.drop(f.ctx, "one"); err != nil {
			t.Error(err)
		}
		taken("three")
		refused("four")
		f.limit(d.more)
		taken("four")
		refused("five")
		f.limit(broker.Limits{Queues: 1, Streams: 1}) // nothing that is there goes
		if err := d.drop(f.ctx, "two"); err != nil {
			t.Error(err)
		}
		refused("two")
		if got := f.total(what); got != (broker.Total{Name: what, Now: 2, Most: 1, Refused: 4}) {
			t.Errorf("%+v", got)
		}
		f.limit(broker.Limits{})
		taken("two")
	}
}

// TestAStreamThatAPublishWouldMakeIsCounted: the producer of a stream that is not there
// makes it, within the limit.
func TestAStreamThatAPublishWouldMakeIsCounted(t *testing.T) { // D29
	f := open(t, func(o *broker.Options) { o.Streams = 1 })
	if _, err := f.NewStreamProducer(f.ctx, broker.NewStreamConfig("a", "a"), true); err != nil {
		t.Error(err)
	}
	if _, err := f.NewStreamProducer(f.ctx, broker.NewStreamConfig("a", "a"), true); err != nil {
		t.Error(err)
	}
	_, err := f.NewStreamProducer(f.ctx, broker.NewStreamConfig("b", "b"), true)
	wantKind(t, err, broker.Full, broker.LimitSubject)
}

// TestWhatIsStoredHasALimit goes up to the edge by the byte, and by every way on
// which something is stored.
func TestWhatIsStoredHasALimit(t *testing.T) { // D29
	f := open(t)
	f.queue("q", "t")
	f.queue("oldest", "o", func(c *broker.QueueConfig) { c.MaxMessages = 1 })
	f.stream("s", "s", 1)
	f.publish("t", "one")
	f.publish("o", "one")
	now := f.total("stored").Now
	f.limit(broker.Limits{Stored: now + 1})
	f.publish("t", "two") // there was a byte left
	full := func() {
		t.Helper()
		wantKind(t, f.everywhere(), broker.Full, broker.LimitSubject)
	}
	full()
	f.limit(broker.Limits{Stored: f.total("stored").Now})
	full()
	f.limit(broker.Limits{Stored: f.total("stored").Now + 1})
	f.publish("s", "three")
	full()

	var live collector
	if err := f.Subscribe(&broker.Subscription{Filter: "elsewhere", Principal: admin, Sink: &live}); err != nil {
		t.Fatal(err)
	}
	for qos := range uint8(3) { // nothing has to be stored for it
		if _, err := f.Publish(f.ctx, &broker.Message{Topic: "elsewhere", QoS: qos, Payload: []byte("live")}); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t"}); broker.KindOf(err) != broker.Full {
		t.Errorf("QoS 0 into a queue: %v", err)
	}
	if got := fmt.Sprint(live.texts()); got != "[live live live]" {
		t.Errorf("live: %s", got)
	}
	f.limit(broker.Limits{Stored: f.total("stored").Now})
	before := f.total("stored")
	for _, r := range f.expect("q", "one", "two") {
		full() // a leased message is still there
		f.ack("q", r)
		f.publish("t", "new") // takes as much as was given back
		full()
	}
	if after := f.total("stored"); before.Refused == 0 || after.Refused <= before.Refused {
		t.Errorf("refused: %d, later %d", before.Refused, after.Refused)
	}
	f.limit(broker.Limits{})
	f.expect("q", "new", "new")
}

// everywhere publishes by every way on which something is stored, and returns the
// first error if all are of one kind.
func (f *fixture) everywhere() error {
	f.tb.Helper()
	_, publish := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1})
	_, oldest := f.Publish(f.ctx, &broker.Message{Topic: "o", QoS: 1})
	_, delayed := f.Publish(f.ctx, &broker.Message{Topic: "$delayed/5/elsewhere", QoS: 1})
	_, send := f.Send(f.ctx, "q", &broker.Message{})
	_, batch := f.PublishBatch(f.ctx, []*broker.Message{{Topic: "elsewhere"}, {Topic: "s"}})
	sp := f.producer("s", "s", false)
	ms := []broker.StreamMessage{{Message: &broker.Message{}}}
	stream := sp.Publish(f.ctx, ms)
	if stream == nil {
		stream = ms[0].Placed.Err
	}
	var os []broker.Outcome
	p := f.NewProducer(auth.From(f.ctx), func(more []broker.Outcome) { os = append(os, more...) })
	p.Publish(&broker.Message{Topic: "t"}, 7)
	p.Flush()
	p.Close()
	if len(os) != 1 {
		f.tb.Errorf("%d outcomes", len(os))
	}
	errs := map[string]error{
		"publish": publish, "oldest": oldest, "delayed": delayed, "send": send, "batch": batch, "stream": stream, "producer": os[0].Err,
	}
	for what, err := range errs {
		if broker.KindOf(err) != broker.KindOf(publish) {
			f.tb.Errorf("%s: %v, and publish %v", what, err, publish)
		}
	}
	return publish
}

// TestWhatIsStoredMovesOnAtTheLimit has messages fail, be dead-lettered, redriven and
// come due while nothing more is taken.
func TestWhatIsStoredMovesOnAtTheLimit(t *testing.T) { // D29
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("work", "t", deadLetterTo("failed"), func(c *broker.QueueConfig) { c.MaxRetries = 0 })
		f.queue("failed", "failed")
		f.kept("away", "later", broker.SubscriptionOptions{QoS: 1})
		f.publish("t", "a")
		f.publish("$delayed/5/later", "b")
		f.limit(broker.Limits{Stored: 1})
		if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1}); broker.KindOf(err) != broker.Full {
			t.Errorf("publish: %v", err)
		}
		f.fail("work", 1)
		f.expect("failed", "a")
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(f.waiting("away")); got != "[b]" {
			t.Errorf("the session has %s", got)
		}
	})
}

// TestQueuesThatAreMadeAtOnceKeepTheLimit has many made at the same time.
func TestQueuesThatAreMadeAtOnceKeepTheLimit(t *testing.T) { // D29
	f := open(t, func(o *broker.Options) { o.Queues, o.Streams = 3, 3 })
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			_, err := f.CreateQueue(f.ctx, broker.NewQueueConfig(fmt.Sprint("q", i), ""))
			if err != nil {
				wantKind(t, err, broker.Full, broker.LimitSubject)
			}
			if _, err = f.CreateStream(f.ctx, broker.NewStreamConfig(fmt.Sprint("s", i), "s")); err != nil {
				wantKind(t, err, broker.Full, broker.LimitSubject)
			}
		})
	}
	all.Wait()
	for _, name := range []string{"queues", "streams"} {
		if got := f.total(name); got != (broker.Total{Name: name, Now: 3, Most: 3, Refused: 17}) {
			t.Errorf("%+v", got)
		}
	}
}
