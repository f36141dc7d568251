package broker_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"millrace/broker"
	"millrace/broker/clustertest"
)

// start opens a broker on a new node of the bus.
func start(tb testing.TB, bus *clustertest.Bus, name string, change ...func(*broker.Options)) (*fixture, *clustertest.Node) {
	tb.Helper()
	n := bus.Join(name)
	f := open(tb, append(change, func(o *broker.Options) { o.Cluster = n })...)
	return f, n
}

// recorder is a sink that keeps what it was given.
type recorder struct {
	mu  sync.Mutex
	got []string
	ms  []*broker.Message
}

func (r *recorder) Deliver(m *broker.Message, to []*broker.Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, string(m.Payload))
	r.ms = append(r.ms, m)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// listen adds a live subscription with a sink of its own.
func (f *fixture) listen(filter string) (*broker.Subscription, *recorder) {
	f.tb.Helper()
	r := &recorder{}
	s := &broker.Subscription{Filter: filter, Principal: admin, Sink: r}
	if group, rest, shared := strings.Cut(strings.TrimPrefix(filter, "$share/"), "/"); strings.HasPrefix(filter, "$share/") && shared && group != "" {
		s.Filter, s.Share = rest, filter
	}
	if err := f.Subscribe(s); err != nil {
		f.tb.Fatal(err)
	}
	return s, r
}

// say publishes text in a QoS to topic, and returns what it matched.
func (f *fixture) say(qos byte, topic, text string) broker.Matched {
	f.tb.Helper()
	p, err := f.Publish(f.ctx, &broker.Message{Topic: topic, Payload: []byte(text), QoS: qos})
	if err != nil {
		f.tb.Fatal(err)
	}
	return p.Matched
}

// wantText wants exactly these, in order.
func wantText(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
