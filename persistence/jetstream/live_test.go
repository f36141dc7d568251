package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
	"millrace/persistence/storetest"
)

// shared is a place of its own prefix on servers that others use too.
type shared struct {
	c      *jetstreamtest.Cluster
	prefix string
}

var prefixes atomic.Int64

// newShared returns a place, which is swept when the test ends.
func newShared(tb testing.TB, c *jetstreamtest.Cluster) shared {
	tb.Helper()
	s := shared{c, fmt.Sprintf("t%d", prefixes.Add(1))}
	tb.Cleanup(func() { s.sweep(tb) })
	return s
}

func (s shared) Open(tb testing.TB) broker.Store {
	tb.Helper()
	return open(tb, jetstream.Options{URL: s.c.URL(), Prefix: s.prefix})
}

// sweep removes every stream of the place.
func (s shared) sweep(tb testing.TB) {
	tb.Helper()
	sweep(tb, s.c.URL(), s.prefix)
}

// sweep removes every stream of a prefix.
func sweep(tb testing.TB, url, prefix string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	nc, err := nats.Connect(url)
	if err != nil {
		tb.Error(err)
		return
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		tb.Error(err)
		return
	}
	for name := range js.StreamNames(ctx).Name() {
		if strings.HasPrefix(strings.TrimPrefix(name, "KV_"), prefix+"_") {
			_ = js.DeleteStream(ctx, name) // the servers end soon
		}
	}
}

func TestThreeServersPassTheSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes its time")
	}
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 3})
	storetest.RunLive(t, func(tb testing.TB) storetest.Place {
		tb.Helper()
		return newShared(tb, c)
	})
}
