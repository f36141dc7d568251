package cluster_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

var somebody = &auth.Principal{Kind: auth.Key, Name: "somebody", Role: auth.Administrator}

// startBroker starts a node with a broker.
func startBroker(tb testing.TB, c *jetstreamtest.Cluster, name string) *broker.Broker {
	tb.Helper()
	ctx := auth.WithPrincipal(tb.Context(), somebody)
	s := open(tb, jetstream.Options{
		URL: "nats://" + c.Servers[0].Addr().String(), Replicas: 1, Hold: patient, Node: name, Failed: func(error) {},
	})
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(s, broker.SpaceAuth), AllowAnonymous: true, Log: zerolog.Nop()})
	if err != nil {
		tb.Fatal(err)
	}
	b, err := broker.Open(ctx, broker.Options{Store: s, Cluster: s, Auth: a, Log: zerolog.Nop()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = b.Close(ctx)
		_ = s.Close(ctx)
	})
	return b
}

// ear is a Sink that wants messages 0, 1, 2 and so on, and passes over "probe".
type ear struct {
	tb  testing.TB
	got atomic.Int64
}

func (e *ear) Deliver(m *broker.Message, _ []*broker.Subscription) {
	if string(m.Payload) == "probe" {
		return
	}
	if n := strconv.FormatInt(e.got.Load(), 10); string(m.Payload) != n {
		e.tb.Errorf("got message %s, want %s", m.Payload, n)
	}
	e.got.Add(1)
}

func TestBrokersOfACluster(t *testing.T) {
	c := servers(t)
	brokers := map[string]*broker.Broker{}
	for _, name := range []string{"a", "b", "c"} {
		brokers[name] = startBroker(t, c, name)
	}
	here, there := &ear{tb: t}, &ear{tb: t}
	for b, s := range map[*broker.Broker]broker.Sink{brokers["a"]: here, brokers["b"]: there} {
		if err := b.Subscribe(&broker.Subscription{Filter: "t/#", Principal: somebody, Sink: s}); err != nil {
			t.Fatal(err)
		}
	}
	ctx := auth.WithPrincipal(t.Context(), somebody)
	for name, b := range brokers { // SUBACK waits for a second at most, which is too short here
		eventually(t, name+" knows of the subscribers", func() bool {
			p, err := b.Publish(ctx, &broker.Message{Topic: "t/1", Payload: []byte("probe")})
			return err == nil && p.Matched.Subscribers == 2
		})
	}
	const n = 3000
	names := []string{"a", "b", "c"}
	for i := range n {
		from := names[i*len(names)/n]
		p, err := brokers[from].Publish(ctx, &broker.Message{Topic: "t/1", Payload: strconv.AppendInt(nil, int64(i), 10), QoS: byte(i % 2)})
		if err != nil || p.Matched.Subscribers != 2 {
			t.Fatalf("publish on %s: %+v, %v", from, p, err)
		}
		if i%(n/len(names)) == n/len(names)-1 { // order holds for one publisher
			eventually(t, "all have come", func() bool { return here.got.Load() == int64(i+1) && there.got.Load() == int64(i+1) })
		}
	}
	for name, b := range brokers {
		if st := b.Stats().Nodes; st.Lost+st.Shed != 0 {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// A QoS 0 publish of 256 bytes to a subscriber on another node.
func BenchmarkLiveToAnotherNode(b *testing.B) {
	c := servers(b)
	from, to := startBroker(b, c, "a"), startBroker(b, c, "b")
	var got atomic.Int64
	if err := to.Subscribe(&broker.Subscription{Filter: "t/#", Principal: somebody, Sink: counting{&got}}); err != nil {
		b.Fatal(err)
	}
	p := from.NewProducer(somebody, nil)
	m := &broker.Message{Topic: "t/1", Payload: make([]byte, 256)}
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		p.Publish(m, 0)
		if n++; n%1000 == 0 {
			for got.Load() < n-10_000 { // no faster than it comes
				<-time.After(50 * time.Microsecond)
			}
		}
	}
	eventually(b, "all have come", func() bool { return got.Load() == n })
	st := from.Stats().Nodes
	b.ReportMetric(float64(st.Sent)/float64(max(1, st.Frames)), "messages/frame")
}

type counting struct{ n *atomic.Int64 }

func (c counting) Deliver(*broker.Message, []*broker.Subscription) { c.n.Add(1) }
