package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"millrace/broker"
	"millrace/broker/scenario"
	"millrace/persistence/local"
)

// stored opens the store in dir; "" is the memory driver.
func stored(dir string) func() (broker.Store, error) {
	return func() (broker.Store, error) {
		return local.Open(local.Options{Dir: dir, SegmentSize: 1 << 20, FirstSegmentSize: 64 << 10})
	}
}

// play runs a script in fake time over a new broker.
func play(t *testing.T, s *scenario.Script, dir string, restartAt int) {
	t.Helper()
	var failure error
	synctest.Test(t, func(*testing.T) {
		failure = scenario.PlayIn(s, stored(dir), restartAt)
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
