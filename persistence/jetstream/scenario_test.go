package jetstream_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/scenario"
	"millrace/persistence/jetstream/jetstreamtest"
)

func play(t *testing.T, s *scenario.Script, restartAt int) {
	t.Helper()
	var failure error
	synctest.Test(t, func(t *testing.T) {
		place := lone{jetstreamtest.InProcess(t)}
		failure = scenario.PlayIn(s, func() (broker.Store, error) { return place.Open(t), nil }, restartAt)
	})
	if failure != nil {
		t.Error(failure)
	}
}

func TestScenarios(t *testing.T) {
	scripts, err := scenario.Load("../../testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		s.Shorten(24 * time.Hour) // a server that is at work costs something for every hour
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
