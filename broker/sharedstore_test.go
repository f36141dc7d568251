package broker_test

import (
	"context"
	"testing"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clustertest"
	"millrace/persistence/local"
)

// sharedStore is one store of which tests start several nodes.
type sharedStore struct {
	*clustertest.Shared
	tb    testing.TB
	store broker.Store
}

// share makes a shared store of the memory driver; on, of a directory.
func share(tb testing.TB, dir string) *sharedStore {
	tb.Helper()
	s, err := local.Open(local.Options{Dir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return &sharedStore{clustertest.NewShared(s), tb, s}
}

// start adds a node with a broker.
func (s *sharedStore) start(name string, change ...func(*broker.Options)) *fixture {
	s.tb.Helper()
	return s.open(s.Join(name), change...)
}

// open starts the broker of a node.
func (s *sharedStore) open(n *clustertest.View, change ...func(*broker.Options)) *fixture {
	s.tb.Helper()
	ctx := auth.WithPrincipal(context.Background(), admin)
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(n, broker.SpaceAuth), AllowAnonymous: true, Log: zerolog.Nop()})
	if err != nil {
		s.tb.Fatal(err)
	}
	o := broker.Options{Store: n, Cluster: n, Auth: a, Log: zerolog.Nop()}
	for _, f := range change {
		f(&o)
	}
	b, err := broker.Open(ctx, o)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() {
		if err := b.Close(ctx); err != nil {
			s.tb.Errorf("close the broker of %s: %v", n.Node.Name, err)
		}
	})
	n.Arrived()
	return &fixture{Broker: b, ctx: ctx, store: n, tb: s.tb}
}
