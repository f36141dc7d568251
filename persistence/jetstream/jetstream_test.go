package jetstream_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
	"millrace/persistence/storetest"
)

// lone is a place on one server, without a socket.
type lone struct{ c *jetstreamtest.Cluster }

func newLone(tb testing.TB) storetest.Place {
	tb.Helper()
	return lone{jetstreamtest.InProcess(tb)}
}

func (l lone) Open(tb testing.TB) broker.Store {
	tb.Helper()
	return open(tb, jetstream.Options{URL: "nats://lone", Replicas: 1, Sync: jetstream.SyncAlways, Hold: time.Hour, Dial: []nats.Option{l.c.Dial()}})
}

func open(tb testing.TB, o jetstream.Options) *jetstream.Store {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := jetstream.Open(ctx, o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// dial opens a connection to the server of InProcess beside those of stores.
func dial(t *testing.T, c *jetstreamtest.Cluster) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("nats://lone", c.Dial())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// request asks a server. nats.go keeps the timers of its own time limits for whoever comes
// next, and one of another bubble of fake time ends the tests: only a context sets none.
func request(t *testing.T, nc *nats.Conn, m *nats.Msg) (*nats.Msg, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return nc.RequestMsgWithContext(ctx, m)
}

// flush waits until the server has all that was sent; see request.
func flush(t *testing.T, nc *nats.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
}

// jetStream is what others see of that server.
func jetStream(t *testing.T, c *jetstreamtest.Cluster) natsjs.JetStream {
	t.Helper()
	js, err := natsjs.New(dial(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestOneServerPassesTheSuite(t *testing.T) { storetest.Run(t, newLone) }

func TestSubscriptionsAgreeWithTheModel(t *testing.T) {
	few(t)
	storetest.RunStreamModel(t, newLone)
}

// few has a model be compared in some cases only, unless it is told how many: a
// server is started for each.
func few(t *testing.T) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	if was := f.Value.String(); was == f.DefValue {
		_ = f.Value.Set("20") // a number
		t.Cleanup(func() { _ = f.Value.Set(was) })
	}
}
