package broker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/scenario"
	"millrace/persistence/local"
)

// world is a broker over a store that can be opened again.
type world struct {
	scenario.Core
	dir   string // "" = the memory driver
	store broker.Store
}

func (w *world) open() error {
	w.Ctx = auth.WithPrincipal(context.Background(), admin)
	s, err := local.Open(local.Options{Dir: w.dir, SegmentSize: 1 << 20, FirstSegmentSize: 64 << 10})
	if err != nil {
		return err
	}
	a, err := auth.Open(w.Ctx, auth.Options{Store: broker.NewKeys(s, broker.SpaceAuth), Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	w.store = s
	w.Broker, err = broker.Open(w.Ctx, broker.Options{Store: s, Auth: a, Log: zerolog.Nop()})
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

// play runs a script in fake time over a new broker.
func play(t *testing.T, s *scenario.Script, dir string, restartAt int) {
	t.Helper()
	var failure error
	synctest.Test(t, func(*testing.T) {
		w := &world{dir: dir}
		if failure = w.open(); failure != nil {
			return
		}
		failure = errors.Join(scenario.Play(s, w, restartAt), w.close())
	})
	if failure != nil {
		t.Error(failure)
	}
}

func TestScenarios(t *testing.T) {
	scripts, err := scenario.Load("../testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		t.Run(s.Name, func(t *testing.T) {
			t.Run("memory", func(t *testing.T) { play(t, s, "", scenario.NoRestart) })
			t.Run("disk", func(t *testing.T) { play(t, s, t.TempDir(), scenario.NoRestart) })
			for i := range s.Steps {
				if testing.Short() && i%5 != 1 {
					continue
				}
				t.Run(fmt.Sprintf("restart before line %d", s.Steps[i].Line), func(t *testing.T) {
					play(t, s, t.TempDir(), i)
				})
			}
		})
	}
}
