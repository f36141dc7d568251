package broker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

func (f *fixture) move(queue string, o broker.Move) broker.Moved {
	f.tb.Helper()
	m, err := f.Move(f.ctx, queue, o)
	if err != nil {
		f.tb.Fatal(err)
	}
	return m
}

func TestMoveTakesManyPages(t *testing.T) {
	f := open(t)
	f.queue("from", "t/#")
	f.queue("to", "other")
	for i := range 350 {
		f.publish(fmt.Sprintf("t/%d", i%2), fmt.Sprint(i))
	}
	if m := f.move("from", broker.Move{States: broker.Ready, To: "other", Filter: "t/1"}); m != (broker.Moved{Matched: 175, Moved: 175}) {
		t.Errorf("%+v", m)
	}
	if i := f.info("from"); i.Ready != 175 || i.Out[broker.ReasonMoved] != 175 {
		t.Errorf("%+v", i.Info)
	}
	if i := f.info("to"); i.Ready != 175 {
		t.Errorf("%+v", i.Info)
	}
	if m := f.move("from", broker.Move{States: broker.Ready, To: "other", Limit: 120}); m.Moved != 120 {
		t.Errorf("with a limit: %+v", m)
	}
}

func TestMoveIntoItsOwnQueueEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		for i := range 150 {
			f.publish("t", fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		if m := f.move("q", broker.Move{States: broker.Ready, To: "t"}); m.Moved != 150 {
			t.Errorf("%+v", m)
		}
		if i := f.info("q"); i.Ready != 150 {
			t.Errorf("%+v", i.Info)
		}
	})
}

func TestMoveKeepsItsRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("from", "t")
		f.queue("to", "other")
		for i := range 300 {
			f.publish("t", fmt.Sprint(i))
		}
		start := time.Now()
		f.move("from", broker.Move{States: broker.Ready, To: "other", Rate: 10})
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("300 messages at 10/s took %v", took)
		}
	})
}

func TestMoveThatNobodyTakesLeavesTheMessagesWhereTheyAre(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	f.publish("t", "x")
	if m := f.move("q", broker.Move{States: broker.Ready, To: "nobody"}); m != (broker.Moved{Matched: 1}) {
		t.Errorf("%+v", m)
	}
	f.expect("q", "x")
}

func TestMoveIntoAFullQueueStopsAndLosesNothing(t *testing.T) {
	f := open(t)
	f.queue("from", "t")
	f.queue("to", "other", func(c *broker.QueueConfig) { c.MaxMessages, c.Overflow = 3, broker.Reject })
	for i := range 10 {
		f.publish("t", fmt.Sprint(i))
	}
	m, err := f.Move(f.ctx, "from", broker.Move{States: broker.Ready, To: "other"})
	wantKind(t, err, broker.Full, broker.QueueSubject)
	if from, to := f.info("from").Ready, f.info("to").Ready; m.Moved != 3 || from != 7 || to != 3 {
		t.Errorf("moved %d, %d stayed, %d arrived", m.Moved, from, to)
	}
}

func TestMoveLeavesWhatAConsumerHolds(t *testing.T) {
	f := open(t)
	f.queue("from", "t")
	f.queue("to", "other")
	f.publish("t", "held")
	f.publish("t", "waits")
	got := f.receive("from", 1)[0]
	if m := f.move("from", broker.Move{States: broker.Ready | broker.Delayed, To: "other"}); m.Moved != 1 {
		t.Errorf("%+v", m)
	}
	f.ack("from", got)
	f.expect("to", "waits")
}

func TestMoveAsksForBothRights(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	client := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "c", Role: auth.Client})
	_, err := f.Move(client, "q", broker.Move{States: broker.Ready, To: "t"})
	wantKind(t, err, broker.Forbidden, "")
	for _, o := range []broker.Move{{To: "a/#"}, {Filter: "a#"}, {Limit: -1}, {Rate: -1}} {
		o.States = broker.Ready
		if _, err := f.Move(f.ctx, "q", o); broker.KindOf(err) != broker.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
	_, err = f.Move(f.ctx, "none", broker.Move{States: broker.Ready})
	wantKind(t, err, broker.NotFound, broker.QueueSubject)
}

func TestDeadLettersOfTwoHopsGoBackOneAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		once := func(c *broker.QueueConfig) { c.MaxRetries = 0 }
		f.queue("a", "t", deadLetterTo("da"), once)
		f.queue("b", "da", deadLetterTo("db"), once)
		f.queue("c", "db")
		f.publish("t", "x")
		f.fail("a", 1)
		f.fail("b", 1)
		if m := f.move("c", broker.Move{States: broker.Ready}); m.Moved != 1 {
			t.Fatalf("%+v", m)
		}
		got := f.expect("b", "x")[0]
		if got.Topic != "da" || len(got.Origins) != 1 || got.Attempt != 1 {
			t.Errorf("%s, origins %v, attempt %d", got.Topic, got.Origins, got.Attempt)
		}
		if _, err := f.Nack(f.ctx, "b", got.ID, got.Receipt, 0); err != nil {
			t.Fatal(err)
		}
	})
}
