package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker"
	"millrace/broker/auth"
)

func TestPublishTellsWhatMatched(t *testing.T) {
	f := open(t)
	f.queue("a", "orders/#")
	f.queue("b", "orders/+/new")
	f.queue("direct", "")
	if _, err := f.CreateStream(f.ctx, broker.NewStreamConfig("s", "orders/#")); err != nil {
		t.Fatal(err)
	}
	sink := new(collector)
	if err := f.Subscribe(&broker.Subscription{Filter: "+/eu/#", Principal: admin, Sink: sink}); err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]broker.Matched{
		"orders/eu/new": {Subscribers: 1, Queues: 2, Streams: 1},
		"orders":        {Queues: 1, Streams: 1},
		"other":         {},
	} {
		if diff := cmp.Diff(want, f.publish(topic, "x").Matched); diff != "" {
			t.Errorf("%s: %s", topic, diff)
		}
	}
	if got := sink.texts(); len(got) != 1 {
		t.Errorf("the subscriber got %q", got)
	}
}

func TestPublishRefusesWhatCanNeverSucceed(t *testing.T) {
	f := open(t)
	f.queue("all", "#")
	for topic, why := range map[string]string{
		"":                        "empty",
		"a/+":                     "wildcard",
		"a/#":                     "wildcard",
		"$SYS/x":                  "reserved",
		"$queue/all":              "reserved",
		"$share/g/t":              "reserved",
		strings.Repeat("t", 1025): "too long",
		strings.Repeat("/", 201):  "too deep",
		"a\x00b":                  "NUL",
		"a\xff":                   "not UTF-8",
	} {
		_, err := f.Publish(f.ctx, &broker.Message{Topic: topic, QoS: 1})
		if t.Run(why, func(t *testing.T) { wantKind(t, err, broker.Invalid, broker.TopicSubject) }); err == nil {
			t.Errorf("%q (%s) was published", topic, why)
		}
	}
	for _, topic := range []string{"$any/x", strings.Repeat("t", 1024), strings.Repeat("/", 200), "a//b", "/"} {
		f.publish(topic, "fine")
	}
	_, err := f.Publish(f.ctx, &broker.Message{Topic: "t", Payload: make([]byte, 4<<20+1)})
	wantKind(t, err, broker.TooLarge, broker.PayloadSubject)
	if _, err := f.Publish(f.ctx, &broker.Message{Topic: "t", Payload: make([]byte, 4<<20)}); err != nil {
		t.Errorf("a payload of exactly the limit: %v", err)
	}
	if n := f.info("all").Ready; n != 5 { // without $any/x
		t.Errorf("%d messages were stored, want 5", n)
	}
}

func TestPublishAsksForTheRight(t *testing.T) {
	f := open(t)
	f.queue("all", "#")
	m := &broker.Message{Topic: "t", QoS: 1}
	_, err := f.Publish(context.Background(), m)
	wantKind(t, err, broker.Forbidden, "")
	viewer := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "v", Role: auth.Viewer})
	_, err = f.Publish(viewer, m)
	wantKind(t, err, broker.Forbidden, "")
	if n := f.info("all").In; n != 0 {
		t.Errorf("%d messages were stored", n)
	}
}

func TestBatchIsStoredWholeOrNotAtAll(t *testing.T) {
	f := open(t)
	f.queue("q", "#")
	ms := func(topics ...string) (ms []*broker.Message) {
		for _, topic := range topics {
			ms = append(ms, &broker.Message{Topic: topic, QoS: 1})
		}
		return ms
	}
	_, err := f.PublishBatch(f.ctx, ms("a", "b", "c/#", "d"))
	be, ok := errors.AsType[*broker.BatchError](err)
	if !ok || be.Index != 2 {
		t.Fatalf("got %v, want the error of entry 2", err)
	}
	if n := f.info("q").In; n != 0 {
		t.Fatalf("%d messages of a refused batch were stored", n)
	}
	ps, err := f.PublishBatch(f.ctx, ms("a", "b", "none"))
	if err != nil || len(ps) != 3 {
		t.Fatal(ps, err)
	}
	if n := f.info("q").Ready; n != 3 {
		t.Errorf("%d messages are ready, want 3", n)
	}
}

func TestFullRejectingQueueRefusesThePublishEverywhere(t *testing.T) {
	f := open(t)
	f.queue("small", "t", func(c *broker.QueueConfig) { c.MaxMessages, c.Overflow = 2, broker.Reject })
	f.queue("large", "#")
	sink := new(collector)
	if err := f.Subscribe(&broker.Subscription{Filter: "#", Principal: admin, Sink: sink}); err != nil {
		t.Fatal(err)
	}
	f.publish("t", "1")
	f.publish("t", "2")
	_, err := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1})
	wantKind(t, err, broker.Full, broker.QueueSubject)
	if !strings.Contains(fmt.Sprint(err), "small") {
		t.Errorf("the error does not name the queue: %v", err)
	}
	if n := f.info("large").In; n != 2 {
		t.Errorf("the other queue took %d messages, want 2", n)
	}
	if got := sink.texts(); len(got) != 2 {
		t.Errorf("the subscriber got %q", got)
	}
}

func TestFullQueueDropsItsOldest(t *testing.T) {
	f := open(t)
	f.queue("q", "t", func(c *broker.QueueConfig) { c.MaxMessages = 2 })
	for _, s := range []string{"1", "2", "3", "4"} {
		f.publish("t", s)
	}
	if n := f.info("q").Out[broker.ReasonOverflow]; n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
	f.expect("q", "3", "4")
}

func TestProducerAnswersInOrderAndKeepsOrderInTheFanOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "stored/#")
		sink := new(collector)
		if err := f.Subscribe(&broker.Subscription{Filter: "#", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		var tags []uint64
		p := f.NewProducer(admin, func(os []broker.Outcome) {
			for _, o := range os {
				if bad := o.Tag%7 == 3; bad != (o.Err != nil) {
					t.Errorf("publish %d: %v", o.Tag, o.Err)
				}
				tags = append(tags, o.Tag)
			}
		})
		var want []string
		for i := range 100 {
			topic := []string{"stored/a", "live", "stored/b"}[i%3]
			if i%7 == 3 {
				topic = "bad/+"
			} else {
				want = append(want, fmt.Sprint(i))
			}
			p.Publish(&broker.Message{Topic: topic, Payload: fmt.Append(nil, i), QoS: 1}, uint64(i))
			if i%10 == 9 {
				p.Flush()
			}
		}
		p.Flush()
		synctest.Wait()
		for i, tag := range tags {
			if tag != uint64(i) {
				t.Fatalf("outcomes came in the order %v", tags)
			}
		}
		if len(tags) != 100 {
			t.Fatalf("%d outcomes, want 100", len(tags))
		}
		if diff := cmp.Diff(want, sink.texts()); diff != "" {
			t.Errorf("fan-out: %s", diff)
		}
	})
}

func TestQoS0NeedsNoOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "stored")
		sink := new(collector)
		if err := f.Subscribe(&broker.Subscription{Filter: "live", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		p := f.NewProducer(admin, func(os []broker.Outcome) { t.Errorf("outcomes %v", os) })
		p.Publish(&broker.Message{Topic: "live", Payload: []byte("now")}, 1)
		if got := sink.texts(); len(got) != 1 {
			t.Errorf("a QoS 0 message waits: %q", got)
		}
		p.Publish(&broker.Message{Topic: "stored", Payload: []byte("kept")}, 2)
		p.Flush()
		synctest.Wait()
		f.expect("q", "kept")
	})
}

func TestMessageComesOutAsItWentIn(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	in := broker.Message{
		Topic: "t", Payload: bytes.Repeat([]byte{0, 0x53, 0x80, 0xff}, 1000), ContentType: "x/y",
		Properties:    []broker.Property{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}, {Name: "b", Value: "3"}, {Name: "", Value: ""}},
		ResponseTopic: "r/t", Correlation: []byte{0, 1}, UTF8: true, QoS: 2, Publisher: "dev", Key: "k",
		EventTime: 5, Producer: "p", Sequence: 6, Expires: 4_000_000_000_000,
	}
	m := in
	if _, err := f.Publish(f.ctx, &m); err != nil {
		t.Fatal(err)
	}
	out := f.expect("q", string(in.Payload))[0]
	in.ID, in.Published = m.ID, m.Published
	if diff := cmp.Diff(in, out.Message); diff != "" {
		t.Error(diff)
	}
}

func TestIdempotencyKeyTellsARepeatFromAnotherMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "#")
		sink := new(collector)
		if err := f.Subscribe(&broker.Subscription{Filter: "#", Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
		send := func(topic, text, key string) (broker.Published, error) {
			return f.Publish(f.ctx, &broker.Message{Topic: topic, Payload: []byte(text), QoS: 1, DedupKey: key})
		}
		first, err := send("t", "1", "k")
		if err != nil || first.Duplicate {
			t.Fatal(first, err)
		}
		f.ack("q", f.expect("q", "1")[0])
		again, err := send("t", "1", "k")
		if err != nil || !again.Duplicate || again.ID != first.ID {
			t.Errorf("repeat: %+v, %v; want a duplicate of %s", again, err, first.ID)
		}
		_, err = send("t", "2", "k")
		wantKind(t, err, broker.Conflict, broker.MessageSubject)
		if p, err := send("other", "1", "k"); err != nil || p.Duplicate {
			t.Errorf("the same key for another topic: %+v, %v", p, err)
		}
		_, err = send("t", "1", strings.Repeat("k", 129))
		wantKind(t, err, broker.Invalid, broker.FieldSubject)
		if _, err := send("t", "1", strings.Repeat("k", 128)); err != nil {
			t.Errorf("a key of exactly the limit: %v", err)
		}
		if got := sink.texts(); len(got) != 3 {
			t.Errorf("the subscriber got %q", got)
		}
		time.Sleep(6 * time.Minute)
		if p, err := send("t", "2", "k"); err != nil || p.Duplicate {
			t.Errorf("after the window: %+v, %v", p, err)
		}
	})
}

func TestBatchStoresARepeatedKeyOnce(t *testing.T) {
	f := open(t)
	f.queue("q", "#")
	batch := func(texts ...string) (ms []*broker.Message) {
		for _, s := range texts {
			text, key, _ := strings.Cut(s, "@")
			ms = append(ms, &broker.Message{Topic: "t", Payload: []byte(text), QoS: 1, DedupKey: key})
		}
		return ms
	}
	ps, err := f.PublishBatch(f.ctx, batch("1", "2@a", "3", "2@a", "4@b"))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ps {
		if p.Duplicate != (i == 3) {
			t.Errorf("entry %d: duplicate %t", i, p.Duplicate)
		}
	}
	if ps[3].ID != ps[1].ID {
		t.Errorf("the repeat has id %s, the first %s", ps[3].ID, ps[1].ID)
	}
	f.expect("q", "1", "2", "3", "4")
	ps, err = f.PublishBatch(f.ctx, batch("5", "2@a"))
	if err != nil || ps[0].Duplicate || !ps[1].Duplicate {
		t.Errorf("%+v, %v", ps, err)
	}
	_, err = f.PublishBatch(f.ctx, batch("6", "7@c", "8@c"))
	if be, ok := errors.AsType[*broker.BatchError](err); !ok || be.Index != 2 {
		t.Errorf("got %v, want the error of entry 2", err)
	}
}

func TestSendGoesToOneQueueAndPastTheRouter(t *testing.T) {
	f := open(t)
	f.queue("direct", "")
	f.queue("all", "#")
	sink := new(collector)
	if err := f.Subscribe(&broker.Subscription{Filter: "#", Principal: admin, Sink: sink}); err != nil {
		t.Fatal(err)
	}
	ps, err := f.Send(f.ctx, "direct", &broker.Message{Payload: []byte("1")}, &broker.Message{Payload: []byte("2")})
	if err != nil || len(ps) != 2 || ps[0].Matched != (broker.Matched{Queues: 1}) {
		t.Fatal(ps, err)
	}
	if got := f.expect("direct", "1", "2"); got[0].Topic != "$queue/direct" {
		t.Errorf("topic %s", got[0].Topic)
	}
	f.expect("all")
	if len(sink.texts()) != 0 {
		t.Errorf("a subscriber got %q", sink.texts())
	}
	_, err = f.Send(f.ctx, "none", &broker.Message{})
	wantKind(t, err, broker.NotFound, broker.QueueSubject)
	_, err = f.Send(context.Background(), "direct", &broker.Message{})
	wantKind(t, err, broker.Forbidden, "")
}

func TestPayloadsOfAQueueAreLimitedByThemselves(t *testing.T) {
	f := open(t)
	f.queue("q", "t", func(c *broker.QueueConfig) { c.MaxPayload, c.Overflow = 5, broker.Reject })
	send := func(text string) error {
		_, err := f.Send(f.ctx, "q", &broker.Message{Payload: []byte(text), Publisher: "p"})
		return errors.Unwrap(err) // of the batch
	}
	wantKind(t, send("123456"), broker.TooLarge, broker.PayloadSubject)
	if err := send("12345"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, send("1"), broker.Full, broker.QueueSubject)
	_, err := f.Publish(f.ctx, &broker.Message{Topic: "t", Payload: []byte("1"), QoS: 1})
	wantKind(t, err, broker.Full, broker.QueueSubject)
	if q, err := f.Queue(f.ctx, "q"); err != nil || q.Payload != 5 || q.Bytes <= 5 {
		t.Errorf("payload %d, bytes %d, %v", q.Payload, q.Bytes, err)
	}
}

func TestGiveBackUndoesADelivery(t *testing.T) {
	f := open(t)
	f.queue("q", "t", func(c *broker.QueueConfig) { c.MaxRetries = 0 })
	f.publish("t", "1")
	f.publish("t", "2")
	f.GiveBack(f.receive("q", 1))
	if got := f.expect("q", "1", "2"); got[0].Attempt != 1 {
		t.Errorf("attempt %d", got[0].Attempt)
	}
}
