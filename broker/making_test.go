package broker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"millrace/broker"
	"millrace/persistence/local"
)

// slowDefine is a store in which a Define takes until ready is closed.
type slowDefine struct {
	broker.Store
	under atomic.Int32
	ready chan struct{}
}

func (s *slowDefine) Define(ctx context.Context, d broker.Def) (broker.Target, error) {
	s.under.Add(1)
	<-s.ready
	return s.Store.Define(ctx, d)
}

func TestQueuesAreMadeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, err := local.Open(local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := &slowDefine{Store: inner, ready: make(chan struct{})}
		close(s.ready)
		f := openOver(t, s, func(o *broker.Options) { o.Queues = 3 })
		s.ready = make(chan struct{})
		s.under.Store(0)
		made := make(chan error, 4)
		create := func(name string) {
			_, err := f.CreateQueue(f.ctx, broker.NewQueueConfig(name, ""))
			made <- err
		}
		for _, name := range []string{"a", "b", "c"} {
			go create(name)
		}
		synctest.Wait()
		if n := s.under.Load(); n != 3 {
			t.Errorf("%d queues are being made, want 3 at once", n)
		}
		go create("d")
		synctest.Wait()
		wantKind(t, <-made, broker.Full, broker.LimitSubject) // those under way count
		f.limit(broker.Limits{Queues: 4})
		go create("a") // waits for the other
		synctest.Wait()
		if len(made) > 0 || s.under.Load() != 3 {
			t.Errorf("a name that is being made is not waited for: %d", s.under.Load())
		}
		close(s.ready)
		conflicts := 0
		for range 4 {
			if err := <-made; broker.KindOf(err) == broker.Conflict {
				conflicts++
			} else if err != nil {
				t.Error(err)
			}
		}
		if conflicts != 1 {
			t.Errorf("%d conflicts, want 1: the second of a name", conflicts)
		}
	})
}
