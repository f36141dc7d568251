package scenario

import (
	"context"
	"errors"
	"testing/synctest"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
)

// CoreWorld is the World of a broker that can be opened again over the store that
// the last one left behind. Where it is played, time is fake.
type CoreWorld struct {
	Core
	// OpenStore opens that store.
	OpenStore func() (broker.Store, error)

	store broker.Store
}

// PlayIn plays s through a new broker, as Play does, and closes it. It must be
// called in a bubble of testing/synctest.
func PlayIn(s *Script, openStore func() (broker.Store, error), restartAt int) error {
	w := &CoreWorld{OpenStore: openStore}
	if err := w.Open(); err != nil {
		return err
	}
	return errors.Join(Play(s, w, restartAt), w.Close())
}

// Open opens the store and a broker over it.
func (w *CoreWorld) Open() (err error) {
	w.Ctx = auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "test", Role: auth.Administrator})
	if w.store, err = w.OpenStore(); err != nil {
		return err
	}
	a, err := auth.Open(w.Ctx, auth.Options{Store: broker.NewKeys(w.store, broker.SpaceAuth), Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	w.Broker, err = broker.Open(w.Ctx, broker.Options{Store: w.store, Auth: a, Log: zerolog.Nop()})
	return err
}

// Close closes both.
func (w *CoreWorld) Close() error {
	return errors.Join(w.Broker.Close(w.Ctx), w.store.Close(w.Ctx))
}

// Restart implements World.
func (w *CoreWorld) Restart() error {
	if err := w.Close(); err != nil {
		return err
	}
	return w.Open()
}

// Settle implements World.
func (w *CoreWorld) Settle() { synctest.Wait() }
