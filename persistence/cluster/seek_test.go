package cluster_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"millrace/persistence/cluster"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// TestASearchForALeaderThatFailsIsToldOnce, once it has lasted for longer than a leader
// that is lost is waited for, and goes on.
func TestASearchForALeaderThatFailsIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hold = time.Second
		lone := jetstreamtest.InProcess(t)
		log := &logged{}
		o := jetstream.Options{
			URL: "nats://lone", Replicas: 1, Sync: jetstream.SyncAlways, Hold: hold, Node: "a", Dial: []nats.Option{lone.Dial()},
			Log: zerolog.New(log).Level(zerolog.WarnLevel),
		}
		if err := open(t, o).Close(t.Context()); err != nil { // the bucket is there
			t.Fatal(err)
		}
		nc, err := nats.Connect("", lone.Dial())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		// Nobody can read who holds the prefix.
		if _, err := js.Publish(t.Context(), "$KV.mr_node.member", []byte("no JSON")); err != nil {
			t.Fatal(err)
		}
		opened := make(chan error, 1)
		go func() {
			s, err := cluster.Open(context.Background(), cluster.Options{Store: o})
			if err == nil {
				err = s.Close(context.Background())
			}
			opened <- err
		}()
		told := func() int {
			log.mu.Lock()
			defer log.mu.Unlock()
			return strings.Count(log.text.String(), "no leader of the cluster yet; it is tried again")
		}
		time.Sleep(hold)
		if n := told(); n != 0 {
			t.Errorf("it is told %d times in the first %s: %s", n, hold, log.text.String())
		}
		time.Sleep(2 * hold)
		if n := told(); n != 1 || !strings.Contains(log.text.String(), `uses the nats prefix`) {
			t.Errorf("it is told %d times in %s: %s", n, 3*hold, log.text.String())
		}
		s, err := js.Stream(t.Context(), "KV_mr_node")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Purge(t.Context(), natsjs.WithPurgeSubject("$KV.mr_node.member")); err != nil {
			t.Fatal(err)
		}
		if err := <-opened; err != nil {
			t.Error(err)
		}
		if n := told(); n != 1 {
			t.Errorf("it is told %d times in all", n)
		}
	})
}
