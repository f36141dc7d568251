package broker_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"millrace/broker"
	"millrace/persistence/local"
)

// away is a store whose servers cannot be asked while it says so: it has nothing then.
type away struct {
	broker.Store
	is atomic.Bool
}

func (a *away) State() broker.State {
	st := a.Store.State()
	if a.is.Load() {
		st.Err = errors.New("no connection")
	}
	return st
}

// TestNobodyIsToldThatNothingIsThereWithoutAStore: whether something is there is not
// known then.
func TestNobodyIsToldThatNothingIsThereWithoutAStore(t *testing.T) {
	inner, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &away{Store: inner}
	f := openOver(t, s)
	if _, err := f.CreateQueue(f.ctx, broker.NewQueueConfig("q", "q")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CreateStream(f.ctx, broker.NewStreamConfig("s", "s")); err != nil {
		t.Fatal(err)
	}
	for _, is := range []bool{false, true, false} {
		s.is.Store(is)
		_, received := f.Receive(f.ctx, "q", broker.ReceiveOptions{Max: 1})
		_, read := f.ReadStream(f.ctx, "s", broker.ReadOptions{Max: 1})
		for _, err := range []error{received, read} {
			if (err != nil) != is || is && broker.KindOf(err) != broker.Unavailable {
				t.Errorf("away: %v, and the answer is %v", is, err)
			}
		}
	}
}
