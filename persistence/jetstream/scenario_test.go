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

// without are the scenarios of what this store does not keep.
var without = map[string]string{
	"fifo-groups": "FIFO groups: a queue with them is refused",
}

func play(t *testing.T, s *scenario.Script, restartAt int) {
	t.Helper()
	var failure error
	synctest.Test(t, func(t *testing.T) {
		place := lone{jetstreamtest.InProcess(t)}
		failure = scenario.PlayIn(s, func() (broker.Store, error) { return place.Open(t), nil }, restartAt)
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
