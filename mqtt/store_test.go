package mqtt_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
	"millrace/persistence/local"
)

// overJetStream says that a NATS server keeps what is kept.
var overJetStream = os.Getenv("MILLRACE_TEST_STORE") == "jetstream"

// natsIn has the NATS servers that stand for directories.
var natsIn sync.Map

// openStore opens the store in dir, or one that keeps nothing if that is empty.
// With MILLRACE_TEST_STORE=jetstream either is a store over a NATS server.
func openStore(tb testing.TB, dir string) (s broker.Store, check func() error) {
	tb.Helper()
	if overJetStream {
		return openJetStream(tb, dir), func() error { return nil }
	}
	inner, err := local.Open(local.Options{Dir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	return inner, inner.Check
}

// embedded skips a test where the store is another one.
func embedded(t *testing.T, why string) {
	t.Helper()
	if overJetStream {
		t.Skip(why)
	}
}

// years is d, or a few hours over NATS: a server is always at work, and takes minutes
// for so much time.
func years(d time.Duration) time.Duration {
	if overJetStream {
		return min(d, 6*time.Hour)
	}
	return d
}

func openJetStream(tb testing.TB, dir string) broker.Store {
	tb.Helper()
	c, there := natsIn.Load(dir)
	if !there || dir == "" {
		c = jetstreamtest.InProcess(tb)
		natsIn.Store(dir, c)
		tb.Cleanup(func() { natsIn.Delete(dir) })
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := jetstream.Open(ctx, jetstream.Options{
		URL: "nats://lone", Replicas: 1, Sync: jetstream.SyncAlways, Hold: time.Hour,
		Dial: []nats.Option{c.(*jetstreamtest.Cluster).Dial()},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
