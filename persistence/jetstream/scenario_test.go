package jetstream_test

import (
	"fmt"
	"slices"
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

// TestARetainedMessageEndsUnread over this store too, also after a restart.
func TestARetainedMessageEndsUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		place := lone{jetstreamtest.InProcess(t)}
		var store broker.Store
		w := &scenario.CoreWorld{OpenStore: func() (broker.Store, error) { store = place.Open(t); return store, nil }}
		if err := w.Open(); err != nil {
			t.Fatal(err)
		}
		for topic, life := range map[string]time.Duration{"while-closed": 10 * time.Second, "after": time.Minute, "before": 5 * time.Second} {
			m := &broker.Message{Topic: topic, Payload: []byte("x"), QoS: 1, Retain: true, Expires: w.Broker.Now().Add(life).UnixMilli()}
			if _, err := w.Broker.Publish(w.Ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		kept := func() (topics []string) {
			t.Helper()
			synctest.Wait()
			if err := store.List(w.Ctx, broker.SpaceRetained, "", func(e broker.Entry) bool {
				topics = append(topics, e.Key)
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if n := w.Broker.RetainedCount(); n != len(topics) {
				t.Errorf("the index has %d topics, the store %q", n, topics)
			}
			return topics
		}
		time.Sleep(6 * time.Second)
		if got := kept(); !slices.Equal(got, []string{"after", "while-closed"}) {
			t.Errorf("before the restart: %q", got)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := w.Open(); err != nil {
			t.Fatal(err)
		}
		if got := kept(); !slices.Equal(got, []string{"after"}) {
			t.Errorf("after the restart: %q", got)
		}
		time.Sleep(time.Minute)
		if got := kept(); len(got) != 0 {
			t.Errorf("later: %q", got)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
