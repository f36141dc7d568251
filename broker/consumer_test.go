package broker_test

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// taker is the sink of a consumer.
type taker struct {
	mu     sync.Mutex
	credit int
	got    []string
	refs   []broker.Ref
	ended  error
}

func (k *taker) Credit() int { k.mu.Lock(); defer k.mu.Unlock(); return k.credit }

func (k *taker) Take(ds []broker.Delivery) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range ds {
		k.credit--
		k.got = append(k.got, string(ds[i].Payload))
		k.refs = append(k.refs, ds[i].Ref)
	}
}

func (k *taker) Ended(err error) { k.mu.Lock(); defer k.mu.Unlock(); k.ended = err }

func (k *taker) add(n int) { k.mu.Lock(); defer k.mu.Unlock(); k.credit += n }

func (k *taker) texts() []string { k.mu.Lock(); defer k.mu.Unlock(); return slices.Clone(k.got) }

func TestConsumerTakesAsMuchAsItsCredit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		k := &taker{credit: 2}
		c, err := f.Consume(f.ctx, "q", k)
		if err != nil {
			t.Fatal(err)
		}
		f.publish("t", "1")
		if len(k.texts()) > 0 {
			t.Error("took before Kick")
		}
		c.Kick()
		for _, text := range []string{"2", "3"} {
			f.publish("t", text)
		}
		if got := k.texts(); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("took %q", got)
		}
		k.add(1)
		c.Kick()
		if got := k.texts(); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("took %q", got)
		}
		s := f.NewSettlements()
		done := make(chan error, 1)
		s.Ack(k.refs[0], func(err error) { done <- err })
		s.GiveBack(k.refs[1])
		s.Return(k.refs[2], nil)
		s.Submit()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for i, want := range []uint32{2, 1} {
			if got := f.receive("q", 1)[0]; got.Attempt != want || string(got.Payload) != []string{"2", "3"}[i] {
				t.Errorf("got %s, attempt %d", got.Payload, got.Attempt)
			}
		}
		c.Close()
	})
}

// TestConsumerIsKickedWhileItIsServed: it has each message once, and the race detector
// nothing to say.
func TestConsumerIsKickedWhileItIsServed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const messages = 300
		f := open(t)
		f.queue("q", "t")
		k := &taker{credit: messages}
		c, err := f.Consume(f.ctx, "q", k)
		if err != nil {
			t.Fatal(err)
		}
		var over atomic.Bool
		var kicks sync.WaitGroup
		kicks.Go(func() {
			for !over.Load() {
				c.Kick()
				runtime.Gosched()
			}
		})
		for range messages {
			f.publish("t", "m")
		}
		over.Store(true)
		kicks.Wait()
		c.Kick()
		synctest.Wait()
		c.Close()
		if got := len(k.texts()); got != messages {
			t.Errorf("took %d messages, want %d", got, messages)
		}
	})
}

// TestConsumerThatIsGoneTakesNothing: neither closed, nor without credit, and
// the next in line is served at once.
func TestConsumerThatIsGoneTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		closed, broke := &taker{credit: 10}, &taker{credit: 10}
		for _, k := range []*taker{closed, broke} {
			c, err := f.Consume(f.ctx, "q", k)
			if err != nil {
				t.Fatal(err)
			}
			c.Kick()
			if k == closed {
				c.Close()
				c.Close()
				c.Kick()
				continue
			}
			k.add(-10)
			c.Kick()
			defer c.Close()
		}
		f.publish("t", "1")
		if got := f.expect("q", "1")[0]; got.Attempt != 1 {
			t.Errorf("attempt %d", got.Attempt)
		}
		if len(closed.texts())+len(broke.texts()) > 0 {
			t.Errorf("%q and %q were taken", closed.texts(), broke.texts())
		}
	})
}

func TestConsumerEndsWithItsQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		k := &taker{credit: 1}
		c, err := f.Consume(f.ctx, "q", k)
		if err != nil {
			t.Fatal(err)
		}
		c.Kick()
		time.Sleep(49 * time.Hour) // its waits are made anew
		if err := f.DeleteQueue(f.ctx, "q"); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if k.ended == nil {
			t.Error("it was not told")
		}
		_, err = f.Consume(f.ctx, "q", k)
		wantKind(t, err, broker.NotFound, broker.QueueSubject)
		f.queue("q", "t")
		ctx := auth.WithPrincipal(f.ctx, &auth.Principal{Kind: auth.Key, Name: "k", Role: auth.Publisher})
		_, err = f.Consume(ctx, "q", k)
		wantKind(t, err, broker.Forbidden, broker.NoSubject)
	})
}
