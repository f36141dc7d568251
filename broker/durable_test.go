package broker_test

import (
	"fmt"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// Every call that answers positively is held as long as the sync of its commit
// is, and answers once it is released.
func TestNothingIsAnsweredBeforeItIsOnDisk(t *testing.T) {
	gate := journaltest.NewGateFS(journal.OS())
	s, err := local.Open(local.Options{Dir: t.TempDir(), FS: gate})
	if err != nil {
		t.Fatal(err)
	}
	f := openOver(t, s)
	f.queue("q", "t")
	f.queue("victim", "victim")
	f.publish("victim", "x")
	for i := range 4 {
		f.publish("t", fmt.Sprint(i))
	}
	got := f.expect("q", "0", "1", "2", "3")
	answered := make(chan error, 1)
	producer := f.NewProducer(admin, func(os []broker.Outcome) { answered <- os[0].Err })
	for name, call := range map[string]func() error{
		"publish": func() error {
			_, err := f.Publish(f.ctx, &broker.Message{Topic: "t", QoS: 1})
			return err
		},
		"publish of QoS 0 that somebody waits for": func() error {
			_, err := f.Publish(f.ctx, &broker.Message{Topic: "t"})
			return err
		},
		"batch": func() error {
			_, err := f.PublishBatch(f.ctx, []*broker.Message{{Topic: "t"}, {Topic: "t"}})
			return err
		},
		"retained": func() error {
			_, err := f.Publish(f.ctx, &broker.Message{Topic: "r", Payload: []byte("x"), Retain: true})
			return err
		},
		"ack": func() error { _, err := f.Ack(f.ctx, "q", got[0].ID, got[0].Receipt); return err },
		"ack batch": func() error {
			rs, err := f.AckBatch(f.ctx, "q", []broker.Settlement{{ID: got[1].ID, Receipt: got[1].Receipt}})
			if err != nil {
				return err
			}
			return rs[0].Err
		},
		"nack":   func() error { _, err := f.Nack(f.ctx, "q", got[2].ID, got[2].Receipt, time.Hour); return err },
		"extend": func() error { _, err := f.Extend(f.ctx, "q", got[3].ID, got[3].Receipt, time.Hour); return err },
		"purge":  func() error { _, err := f.Purge(f.ctx, "victim", true); return err },
		"create": func() error { _, err := f.CreateQueue(f.ctx, broker.NewQueueConfig("new", "new")); return err },
		"user": func() error {
			return f.Auth().AddUser(f.ctx, auth.UserSpec{Username: "u", Password: "a long enough one"})
		},
	} {
		held(t, gate, name, func() { answered <- call() }, answered)
	}
	held(t, gate, "delete", func() { answered <- f.DeleteQueue(f.ctx, "victim") }, answered)
	held(t, gate, "producer", func() {
		producer.Publish(&broker.Message{Topic: "t", QoS: 1}, 1)
		producer.Flush()
	}, answered)
}

func held(t *testing.T, gate *journaltest.GateFS, name string, call func(), answered <-chan error) {
	t.Helper()
	gate.Hold()
	go call()
	select {
	case <-gate.Held():
	case err := <-answered:
		t.Errorf("%s: answered (%v) without a sync", name, err)
		gate.Release()
		return
	}
	select {
	case err := <-answered:
		t.Errorf("%s: answered (%v) before the sync", name, err)
	default:
	}
	gate.Release()
	if err := <-answered; err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

func TestTheMakerOfAQueueStays(t *testing.T) {
	dir := t.TempDir()
	start := func(t *testing.T) *fixture {
		s, err := local.Open(local.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return openOver(t, s)
	}
	t.Run("changes", func(t *testing.T) {
		f := start(t)
		f.queue("q", "", func(c *broker.QueueConfig) { c.Maker, c.MaxPayload = "door", 7 })
		q, err := f.UpdateQueue(f.ctx, "q", func(c *broker.QueueConfig) error {
			c.Maker, c.MaxMessages = "other", 1
			return nil
		})
		if err != nil || q.Maker != "door" || q.MaxMessages != 1 {
			t.Errorf("%+v, %v", q, err)
		}
	})
	t.Run("restart", func(t *testing.T) {
		f := start(t)
		publisher := auth.WithPrincipal(f.ctx, &auth.Principal{Kind: auth.Key, Role: auth.Publisher})
		if c, err := f.Settings(publisher, auth.Publish, "q"); err != nil || c.Maker != "door" || c.MaxPayload != 7 {
			t.Errorf("%+v, %v", c, err)
		}
		if q, err := f.QueueFor(publisher, auth.Publish, "q"); err != nil || q.Name != "q" {
			t.Errorf("%+v, %v", q, err)
		}
		_, err := f.Settings(publisher, auth.Manage, "q")
		wantKind(t, err, broker.Forbidden, "")
		_, err = f.QueueFor(publisher, auth.View, "q")
		wantKind(t, err, broker.Forbidden, "")
	})
}
