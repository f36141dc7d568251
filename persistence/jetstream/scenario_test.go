package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/scenario"
	"millrace/persistence/jetstream/jetstreamtest"
)

// world is a broker over JetStream, which can be opened again.
type world struct {
	scenario.Core
	t     *testing.T
	place lone
	store broker.Store
}

var admin = &auth.Principal{Kind: auth.Key, Name: "test", Role: auth.Administrator}

func (w *world) open() (err error) {
	w.Ctx = auth.WithPrincipal(context.Background(), admin)
	w.store = w.place.Open(w.t)
	a, err := auth.Open(w.Ctx, auth.Options{Store: broker.NewKeys(w.store, broker.SpaceAuth), Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	w.Broker, err = broker.Open(w.Ctx, broker.Options{Store: w.store, Auth: a, Log: zerolog.Nop()})
	return err
}

func (w *world) close() error {
	return errors.Join(w.Broker.Close(w.Ctx), w.store.Close(w.Ctx))
}

func (w *world) Restart() error {
	if err := w.close(); err != nil {
		return err
	}
	return w.open()
}

func (w *world) Settle() { synctest.Wait() }

// without are the scenarios of what this store does not keep.
var without = map[string]string{
	"fifo-groups": "FIFO groups: a queue with them is refused",
}

func play(t *testing.T, s *scenario.Script, restartAt int) {
	t.Helper()
	var failure error
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, place: lone{jetstreamtest.InProcess(t)}}
		if failure = w.open(); failure != nil {
			return
		}
		failure = errors.Join(scenario.Play(s, w, restartAt), w.close())
	})
	if why := without[s.Name]; why != "" {
		if failure == nil {
			t.Errorf("it passes, although the store has no %s", why)
		}
		return
	}
	if failure != nil {
		t.Error(failure)
	}
}

// shorten cuts what a script waits to a day: a server that is at work all the
// time costs something for every hour.
func shorten(s *scenario.Script) {
	for i := range s.Steps {
		if x := &s.Steps[i]; x.Verb == "wait" {
			if d, err := time.ParseDuration(x.Args[0]); err == nil && d > 24*time.Hour {
				x.Args[0] = "24h"
			}
		}
	}
}

func TestScenarios(t *testing.T) {
	scripts, err := scenario.Load("../../testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		shorten(s)
		t.Run(s.Name, func(t *testing.T) {
			t.Run("through", func(t *testing.T) { play(t, s, scenario.NoRestart) })
			for i := range s.Steps {
				if i%5 != 1 {
					continue
				}
				t.Run(fmt.Sprintf("restart before line %d", s.Steps[i].Line), func(t *testing.T) { play(t, s, i) })
			}
		})
	}
}
