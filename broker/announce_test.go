package broker_test

import (
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// collect is a Sink that keeps topics and payloads.
type collect struct{ got chan string }

func (c *collect) Deliver(m *broker.Message, to []*broker.Subscription) {
	c.got <- m.Topic + "=" + string(m.Payload)
}

func (c *collect) want(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-c.got:
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("%s never came", want)
	}
}

func TestWhatTheServerTellsOfItself(t *testing.T) {
	f := open(t)
	f.queue("events", "$events/#")
	f.queue("all", "#")
	a := f.NewAnnouncer(func(err error) { t.Errorf("not stored: %v", err) })
	sink := &collect{make(chan string, 10)}
	for _, filter := range []string{"$SYS/#", "$events/+/x/connected", "#"} {
		if err := f.Subscribe(&broker.Subscription{Filter: filter, Principal: admin, Sink: sink}); err != nil {
			t.Fatal(err)
		}
	}
	a.Announce(&broker.Message{Topic: "$events/client/x/connected", Payload: []byte("1"), QoS: 1})
	a.Flush()
	sink.want(t, "$events/client/x/connected=1")
	a.Announce(&broker.Message{Topic: "$SYS/broker/uptime", Payload: []byte("2"), Retain: true})
	a.Flush()
	sink.want(t, "$SYS/broker/uptime=2")
	if ds := f.receive("events", 10); len(ds) != 1 || string(ds[0].Payload) != "1" {
		t.Errorf("the queue that names it has %v", ds)
	}
	if ds := f.receive("all", 10); len(ds) != 0 {
		t.Errorf("the queue of # has %v", ds)
	}
	seen := func(p *auth.Principal, filter string) string {
		var all []string
		if err := f.Retained(f.ctx, p, filter, func(m *broker.Message) bool {
			all = append(all, m.Topic+"="+string(m.Payload))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(all, " ")
	}
	if got := seen(admin, "$SYS/#"); got != "$SYS/broker/uptime=2" {
		t.Errorf("a new subscriber gets %q", got)
	}
	if got := seen(admin, "#") + seen(admin, "$events/#") + seen(&auth.Principal{Name: "dev"}, "$SYS/#"); got != "" {
		t.Errorf("others get %q", got)
	}
	if n := f.Stats().Retained; n != 0 {
		t.Errorf("%d retained messages are counted", n)
	}
}

func TestAnAnnouncerKeepsToItsTopics(t *testing.T) {
	f := open(t)
	var failed []error
	a := f.NewAnnouncer(func(err error) { failed = append(failed, err) })
	for _, topic := range []string{"a/b", "$queue/q", "$delayed/1/$SYS/x", "$SYS/+", "$events"} {
		a.Announce(&broker.Message{Topic: topic, QoS: 1})
	}
	a.Flush()
	if len(failed) != 4 { // $events is its own
		t.Errorf("refused %d: %v", len(failed), failed)
	}
}

func TestStatsCountSubscriptions(t *testing.T) {
	f := open(t)
	f.queue("fed", "a/#")
	f.queue("direct", "")
	s := &broker.Subscription{Filter: "b/#", Principal: admin, Sink: &collect{}}
	if err := f.Subscribe(s); err != nil {
		t.Fatal(err)
	}
	if n := f.Stats().Subscriptions; n != 1 {
		t.Errorf("%d subscriptions, want 1", n)
	}
	f.Unsubscribe(s)
	if n := f.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions, want 0", n)
	}
}
