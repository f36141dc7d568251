package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker"
)

// fail hands the only ready message of a queue out and nacks it until its
// attempts are used up.
func (f *fixture) fail(queue string, times int) {
	f.tb.Helper()
	for i := range times {
		got := f.receive(queue, 1)
		if len(got) != 1 {
			f.tb.Fatalf("attempt %d: queue %s gave %d messages", i+1, queue, len(got))
		}
		if _, err := f.Nack(f.ctx, queue, got[0].ID, got[0].Receipt, 0); err != nil {
			f.tb.Fatal(err)
		}
		synctest.Wait()
	}
}

func deadLetterTo(topic string) func(*broker.QueueConfig) {
	return func(c *broker.QueueConfig) { c.DeadLetterTopic = topic }
}

func TestLastAttemptGoesToTheDeadLetterTopic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("work", "orders/#", deadLetterTo("failed/orders"))
		f.queue("dead", "failed/#")
		sink := new(collector)
		if err := f.Subscribe(&broker.Subscription{Filter: "failed/#", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		p := f.publish("orders/1", "x")
		f.fail("work", 3)
		f.receive("work", 1) // the fourth lapses
		time.Sleep(31 * time.Second)
		got := f.expect("dead", "x")[0]
		if got.Topic != "failed/orders" || got.ID == p.ID {
			t.Errorf("the dead letter is %s to %s", got.ID, got.Topic)
		}
		props := map[string]string{}
		for _, p := range got.Properties {
			props[p.Name] = p.Value
		}
		delete(props, broker.PropertyDeadTime)
		if diff := cmp.Diff(map[string]string{
			broker.PropertyOriginQueue: "work", broker.PropertyOriginalTopic: "orders/1",
			broker.PropertyOriginalID: p.ID.String(), broker.PropertyAttempts: "4", broker.PropertyReason: "attempts",
		}, props); diff != "" {
			t.Error(diff)
		}
		if i := f.info("work"); i.Out[broker.ReasonDeadLettered] != 1 || i.Held+i.Dead+i.Leased+i.Ready != 0 {
			t.Errorf("%+v", i.Info)
		}
		if len(sink.texts()) != 1 {
			t.Errorf("the subscriber got %q", sink.texts())
		}
	})
}

func TestExhaustedMessageIsParkedWhenNothingTakesIt(t *testing.T) {
	for name, set := range map[string]func(*broker.QueueConfig){
		"no topic":           func(*broker.QueueConfig) {},
		"nothing bound":      deadLetterTo("nobody/there"),
		"only its own queue": deadLetterTo("t"),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := open(t)
				f.queue("q", "t", set)
				f.publish("t", "x")
				f.fail("q", 4)
				f.expect("q")
				i := f.info("q")
				if i.Dead != 1 || i.Ready != 0 {
					t.Fatalf("%+v", i.Info)
				}
				ds, err := f.Browse(f.ctx, "q", broker.Dead, 0, 10)
				if err != nil || len(ds) != 1 || ds[0].Attempt != 4 || ds[0].Reason != broker.ReasonAttempts {
					t.Errorf("%+v, %v", ds, err)
				}
			})
		})
	}
}

func TestDeadLetterStaysParkedWhileItsTargetIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("work", "t", deadLetterTo("failed"), func(c *broker.QueueConfig) { c.MaxRetries = 0 })
		f.queue("dead", "failed", func(c *broker.QueueConfig) { c.MaxMessages, c.Overflow = 10, broker.Reject })
		for i := range 100 {
			f.publish("t", fmt.Sprint(i))
		}
		for range 100 {
			f.fail("work", 1)
		}
		if i := f.info("dead"); i.Ready != 10 {
			t.Errorf("%+v", i.Info)
		}
		if i := f.info("work"); i.Dead != 90 || i.Out[broker.ReasonDeadLettered] != 10 {
			t.Errorf("%+v", i.Info)
		}
		f.publish("t", "healthy")
		f.expect("work", "healthy")
	})
}

func TestDeadLetterNeverEntersAQueueItCameFrom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		once := func(c *broker.QueueConfig) { c.MaxRetries = 0 }
		f.queue("own", "orders/#", deadLetterTo("orders/dead"), once) // the seed's own example
		f.queue("beside", "orders/dead", once, deadLetterTo("orders/dead"))
		f.publish("orders/1", "x")
		f.fail("own", 1)
		f.expect("own")
		f.fail("beside", 1)
		f.expect("own")
		f.expect("beside")
		if i := f.info("beside"); i.Dead != 1 {
			t.Errorf("%+v", i.Info)
		}
	})
}

func TestRingOfQueuesEndsParked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		for i := range 3 {
			f.queue(fmt.Sprintf("q%d", i), fmt.Sprintf("t%d", i), deadLetterTo(fmt.Sprintf("t%d", (i+1)%3)),
				func(c *broker.QueueConfig) { c.MaxRetries = 0 })
		}
		f.publish("t0", "x")
		for i := range 3 {
			f.fail(fmt.Sprintf("q%d", i), 1)
		}
		if i := f.info("q2"); i.Dead != 1 {
			t.Errorf("%+v", i.Info)
		}
	})
}

func TestSixteenHopsAreTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		for i := range 18 {
			f.queue(fmt.Sprintf("q%d", i), fmt.Sprintf("t%d", i), deadLetterTo(fmt.Sprintf("t%d", i+1)),
				func(c *broker.QueueConfig) { c.MaxRetries = 0 })
		}
		f.publish("t0", "x")
		for i := range 17 {
			f.fail(fmt.Sprintf("q%d", i), 1)
		}
		if i := f.info("q16"); i.Out[broker.ReasonHops] != 1 {
			t.Errorf("%+v", i.Info)
		}
		if i := f.info("q17"); i.In != 0 {
			t.Errorf("%+v", i.Info)
		}
	})
}

func TestDropExhaustedDrops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t", func(c *broker.QueueConfig) { c.MaxRetries, c.DropExhausted = 0, true })
		f.publish("t", "x")
		f.fail("q", 1)
		if i := f.info("q"); i.Out[broker.ReasonAttempts] != 1 || i.Dead != 0 {
			t.Errorf("%+v", i.Info)
		}
	})
}

func TestUnlimitedRetriesNeverEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t", func(c *broker.QueueConfig) { c.MaxRetries = broker.Unlimited })
		f.publish("t", "x")
		f.fail("q", 30)
		if got := f.expect("q", "x"); got[0].Attempt != 31 {
			t.Errorf("attempt %d", got[0].Attempt)
		}
	})
}

func TestOverflowAndExpiryGoToTheDeadLetterTopicWhenAskedTo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t", deadLetterTo("failed"), func(c *broker.QueueConfig) {
			c.MaxMessages, c.TTL, c.LapseExpired = 1, time.Minute, true
		})
		f.queue("dead", "failed", func(c *broker.QueueConfig) { c.Lease = time.Hour })
		f.publish("t", "1")
		f.publish("t", "2")
		synctest.Wait()
		f.expect("dead", "1")
		time.Sleep(61 * time.Second)
		f.expect("dead", "2")
		if i := f.info("q"); i.Out[broker.ReasonDeadLettered] != 2 || i.Ready+i.Held != 0 {
			t.Errorf("%+v", i.Info)
		}
	})
}
