package main_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// The kill rounds go through the rules of queues as well: delay, dead letter,
// de-duplication, and retained messages.

// killQueues are the queues and the stream of the rounds: "kill" takes everything below k,
// "fail" dead-letters what it hands out once, "dead" keeps that.
const killQueues = `
queues:
- {name: kill, topic_filter: "k/#", max_retries: null, max_size_mb: 4096}
- {name: fail, topic_filter: "f/#", max_retries: 0, dead_letter_topic: d/fail, max_size_mb: 4096}
- {name: dead, topic_filter: "d/#", max_retries: null, max_size_mb: 4096}
streams:
- {name: kills, topic_filter: "s/#", partition_count: 2}
`

// delayed publishes messages that are due a second later.
func (d *load) delayed(ctx context.Context, r *rand.Rand) error {
	for {
		n, payload := d.ledger.send("delayed", r, true)
		body := map[string]any{"payload": string(payload), "delay_seconds": 1}
		if err := d.api.call(ctx, http.MethodPost, "/topics/k/delayed/messages", body, nil); err != nil {
			return err
		}
		d.ledger.acked(n)
	}
}

// failing publishes to the queue whose messages fail at once.
func (d *load) failing(ctx context.Context, r *rand.Rand) error {
	for {
		n, payload := d.ledger.send("fail", r, true)
		if err := d.api.publish(ctx, "f/x", string(payload)); err != nil {
			return err
		}
		d.ledger.acked(n)
	}
}

// fail takes what failing published, and gives it back for the last time.
func (d *load) fail(ctx context.Context, _ *rand.Rand) error {
	for {
		got, err := d.api.consume(ctx, "fail", 20, 1, leaseSeconds)
		if err != nil {
			return err
		}
		for _, h := range got {
			d.ledger.received(h, false)
			if err := tolerateStale(d.api.nack(ctx, "fail", h)); err != nil {
				return err
			}
		}
	}
}

// repeats are publishes under an idempotency key, to be sent again after the kill.
type repeats struct {
	mu   sync.Mutex
	sent []repeat
}

type repeat struct {
	n       int
	payload string
	id      string // of the answer; "" when there was none
}

// once publishes under a key, and remembers what it was told.
func (d *load) once(ctx context.Context, r *rand.Rand) error {
	for {
		n, payload := d.ledger.send("once", r, true)
		d.repeats.mu.Lock()
		at := len(d.repeats.sent)
		d.repeats.sent = append(d.repeats.sent, repeat{n: n, payload: string(payload)})
		d.repeats.mu.Unlock()
		got, err := d.api.publishOnce(ctx, n, string(payload))
		if err != nil {
			return err
		}
		d.ledger.acked(n)
		d.repeats.mu.Lock()
		d.repeats.sent[at].id = got.ID
		d.repeats.mu.Unlock()
	}
}

type published struct {
	ID        string `json:"message_id"`
	Duplicate bool   `json:"duplicate"`
}

func (s *service) publishOnce(ctx context.Context, n int, payload string) (p published, err error) {
	return p, s.callWith(ctx, http.Header{"Idempotency-Key": {"once-" + strconv.Itoa(n)}},
		http.MethodPost, "/topics/k/once/messages", map[string]string{"payload": payload}, &p)
}

// again repeats every publish under its key: what was answered before is a
// duplicate of the same message, also when it was consumed meanwhile; what was
// not may be either.
func (rs *repeats) again(t *testing.T, l *ledger, api *service) {
	t.Helper()
	for _, r := range rs.sent {
		got, err := api.publishOnce(t.Context(), r.n, r.payload)
		switch {
		case err != nil:
			t.Fatal(err)
		case r.id != "" && (!got.Duplicate || got.ID != r.id):
			l.fault("stored twice", "message %d was %s, and again under its key %s (duplicate %t)", r.n, r.id, got.ID, got.Duplicate)
		}
		l.acked(r.n)
	}
}

// originals gives dead letters the ids they had before they failed.
func originals(queue string, got []held) []held {
	if queue != "dead" {
		return got
	}
	named := make([]held, len(got))
	for i, h := range got {
		named[i] = h
		if id := h.Properties["original-id"]; id != "" {
			named[i].ID = "msg_" + id
		}
	}
	return named
}

// drainAll empties the queues in the order in which messages move on.
func drainAll(t *testing.T, l *ledger, api *service) {
	t.Helper()
	for _, queue := range []string{"kill", "fail", "dead", killSubscription} {
		drain(t, l, api, queue)
	}
	for _, queue := range []string{"kill", "fail", "dead", killSubscription} {
		c, err := api.counts(t.Context(), queue)
		if err != nil {
			t.Fatal(err)
		}
		if c.Books.Difference != 0 {
			l.fault("books", "those of queue %s are out by %d", queue, c.Books.Difference)
		}
		if c.Dead != 0 {
			l.fault("parked", "%s", fmt.Sprintf("queue %s holds %d dead messages, though their dead letters have a taker", queue, c.Dead))
		}
	}
}

// keepers are the retained messages of all rounds: on each topic a number that
// only grows.
type keepers struct {
	mu    sync.Mutex
	last  int
	sent  map[string]int
	acked map[string]int
}

func newKeepers() *keepers { return &keepers{sent: map[string]int{}, acked: map[string]int{}} }

// keep sets retained messages, one topic after the other.
func (d *load) keep(ctx context.Context, _ *rand.Rand) error {
	for {
		topic, n := d.keepers.next()
		body := map[string]any{"payload": strconv.Itoa(n), "retain": true}
		if err := d.api.call(ctx, http.MethodPost, "/topics/"+topic+"/messages", body, nil); err != nil {
			return err
		}
		d.keepers.answered(topic, n)
	}
}

func (k *keepers) next() (topic string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last++
	topic = "r/" + strconv.Itoa(k.last%7)
	k.sent[topic] = k.last
	return topic, k.last
}

func (k *keepers) answered(topic string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acked[topic] = n
}

// check subscribes after the restart: each topic must have the newest value
// that was answered, or a newer one that was sent.
func (k *keepers) check(t *testing.T, l *ledger, s *server) {
	t.Helper()
	if len(k.acked) == 0 {
		return
	}
	c, err := wire.Dial(t.Context(), s.ports["mqtt"], wire.Login{ClientID: "keeper", User: testKeyID, Password: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe("r/#", 0); err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(k.acked)
	for len(left) > 0 {
		p, err := c.Read1()
		if err != nil {
			l.fault("retained", "no value of %v was sent to a new subscriber: %v", left, err)
			return
		}
		topic, _, payload, err := p.Message()
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(payload))
		if err != nil || n < k.acked[topic] || n > k.sent[topic] {
			l.fault("retained", "%s holds %q; %d was answered and %d sent", topic, payload, k.acked[topic], k.sent[topic])
		}
		delete(left, topic)
	}
}
