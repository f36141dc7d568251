package cluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/cluster"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
	"millrace/persistence/storetest"
)

// place is one server with two nodes, the second of which is what is tested.
type place struct{ c *jetstreamtest.Cluster }

func newPlace(tb testing.TB) storetest.Place {
	tb.Helper()
	return place{jetstreamtest.InProcess(tb)}
}

// follows is a node that follows, and the one that it follows.
type follows struct {
	*cluster.Store
	leader *cluster.Store
}

// Bind binds both: the one that leads tells.
func (f follows) Bind(e broker.Events) {
	f.leader.Bind(e)
	f.Store.Bind(e)
}

// Stored is the leader's: the node that follows has it with its next beat.
func (f follows) Stored() int64 { return f.leader.Stored() }

// Close closes both.
func (f follows) Close(ctx context.Context) error {
	return errors.Join(f.Store.Close(ctx), f.leader.Close(ctx))
}

func (p place) Open(tb testing.TB) broker.Store {
	tb.Helper()
	f := follows{leader: p.node(tb, "a"), Store: p.node(tb, "b")}
	if f.Leads() || !f.leader.Leads() {
		tb.Fatal("the node that came first does not lead")
	}
	return f
}

func (p place) node(tb testing.TB, name string) *cluster.Store {
	tb.Helper()
	return open(tb, jetstream.Options{URL: "nats://lone", Replicas: 1, Sync: jetstream.SyncAlways, Hold: time.Hour, Node: name, Dial: []nats.Option{p.c.Dial()}})
}

func open(tb testing.TB, o jetstream.Options) *cluster.Store {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := cluster.Open(ctx, cluster.Options{Store: o, Version: "1", MQTT: o.Node + ".example:1883"})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestANodeThatFollowsPassesTheSuite(t *testing.T) { storetest.Run(t, newPlace) }
