package broker_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/scenario"
	"millrace/persistence/local"
)

// retainFor retains text on topic for a time; 0 = without an expiry.
func (f *fixture) retainFor(topic, text string, life time.Duration) {
	f.tb.Helper()
	m := &broker.Message{Topic: topic, Payload: []byte(text), QoS: 1, Retain: true}
	if life > 0 {
		m.Expires = f.Now().Add(life).UnixMilli()
	}
	if _, err := f.Publish(f.ctx, m); err != nil {
		f.tb.Fatal(err)
	}
}

// keptTopics are the topics that the store has a retained message of, and they
// must be as many as the index has.
func keptTopics(tb testing.TB, b *broker.Broker, s broker.Store) (topics []string) {
	tb.Helper()
	if err := s.List(tb.Context(), broker.SpaceRetained, "", func(e broker.Entry) bool {
		topics = append(topics, e.Key)
		return true
	}); err != nil {
		tb.Fatal(err)
	}
	if n := b.RetainedCount(); n != len(topics) {
		tb.Errorf("the index has %d topics, the store %q", n, topics)
	}
	return topics
}

func TestARetainedMessageEndsUnread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t, func(o *broker.Options) { o.Retained = 2 })
		f.retainFor("short", "x", 10*time.Second)
		f.retainFor("long", "x", 48*time.Hour)
		_, err := f.Publish(f.ctx, &broker.Message{Topic: "more", Payload: []byte("x"), Retain: true})
		wantKind(t, err, broker.Full, broker.LimitSubject)
		time.Sleep(10*time.Second - time.Millisecond)
		synctest.Wait()
		if got := keptTopics(t, f.Broker, f.store); !slices.Equal(got, []string{"long", "short"}) {
			t.Errorf("before its end: %q", got)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := keptTopics(t, f.Broker, f.store); !slices.Equal(got, []string{"long"}) {
			t.Errorf("after its end: %q", got)
		}
		f.retain("more", "x") // there is room again
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if got := keptTopics(t, f.Broker, f.store); !slices.Equal(got, []string{"more"}) {
			t.Errorf("two days later: %q", got)
		}
	})
}

// TestAReplacedRetainedMessageEndsInItsOwnTime, not in that of the one before.
func TestAReplacedRetainedMessageEndsInItsOwnTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, start := open(t), time.Now()
		for _, topic := range []string{"later", "sooner", "never", "cleared", "cleared/by-filter", "again"} {
			f.retainFor(topic, "old", 10*time.Second)
		}
		f.retainFor("then", "old", 0)
		f.retainFor("later", "new", 30*time.Second)
		f.retainFor("sooner", "new", 5*time.Second)
		f.retainFor("never", "new", 0)
		f.retainFor("then", "new", 20*time.Second)
		f.retain("cleared", "")
		if n, err := f.ClearRetained(f.ctx, "cleared/#"); n != 1 || err != nil {
			t.Fatalf("cleared %d, %v", n, err)
		}
		f.retain("again", "")
		f.retainFor("again", "new", 15*time.Second)
		for _, step := range []struct {
			at   time.Duration
			want []string
		}{
			{4, []string{"again", "later", "never", "sooner", "then"}},
			{6, []string{"again", "later", "never", "then"}},
			{14, []string{"again", "later", "never", "then"}},
			{16, []string{"later", "never", "then"}},
			{21, []string{"later", "never"}},
			{31, []string{"never"}},
			{3600, []string{"never"}},
		} {
			time.Sleep(time.Until(start.Add(step.at * time.Second)))
			synctest.Wait()
			if got := keptTopics(t, f.Broker, f.store); !slices.Equal(got, step.want) {
				t.Errorf("after %d s: %q, want %q", step.at, got, step.want)
			}
		}
	})
}

// TestARetainedMessageEndsAfterARestart, also one whose time came meanwhile.
func TestARetainedMessageEndsAfterARestart(t *testing.T) {
	dir := t.TempDir()
	bubble(t, func(t *testing.T) {
		var store broker.Store
		w := &scenario.CoreWorld{OpenStore: func() (s broker.Store, err error) {
			s, err = stored(dir)()
			store = s
			return s, err
		}}
		if err := w.Open(); err != nil {
			t.Fatal(err)
		}
		for topic, life := range map[string]time.Duration{"before": 10 * time.Second, "after": 60 * time.Second, "never": 0} {
			m := &broker.Message{Topic: topic, Payload: []byte("x"), Retain: true, Properties: []broker.Property{{Name: "a", Value: "b"}}}
			if life > 0 {
				m.Expires = w.Broker.Now().Add(life).UnixMilli()
			}
			if _, err := w.Broker.Publish(w.Ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if err := w.Open(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := keptTopics(t, w.Broker, store); !slices.Equal(got, []string{"after", "never"}) {
			t.Errorf("after the restart: %q", got)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := keptTopics(t, w.Broker, store); !slices.Equal(got, []string{"never"}) {
			t.Errorf("later: %q", got)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// removalStore counts the removals of retained messages that are under way, and
// holds them back until it is told to let go.
type removalStore struct {
	broker.Store
	letGo chan struct{} // closed

	mu   sync.Mutex
	held []func()
	most int
	fail error // the answer to the next one
}

func (s *removalStore) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	op := b.Ops[0]
	if op.Kind != broker.OpPut || op.Space != broker.SpaceRetained || op.Value != nil {
		s.Store.Submit(b, l, c)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		b.Units[0].Result.Err, s.fail = s.fail, nil
		go c.Done(b)
		return
	}
	s.held = append(s.held, func() { s.Store.Submit(b, l, c) })
	s.most = max(s.most, len(s.held))
	if len(s.held) == 1 {
		go func() {
			<-s.letGo
			s.mu.Lock()
			held := s.held
			s.held = nil
			s.mu.Unlock()
			for _, f := range held {
				f()
			}
		}()
	}
}

// TestManyRetainedMessagesThatEndAtOnceHoldNobodyUp: they go a page at a time.
func TestManyRetainedMessagesThatEndAtOnceHoldNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner, err := local.Open(local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store := &removalStore{Store: inner, letGo: make(chan struct{})}
		f := openOver(t, store)
		const many, page = 100_000, 1000
		p := f.NewProducer(admin, func(os []broker.Outcome) { t.Errorf("outcomes %v", os) })
		end := f.Now().Add(time.Minute).UnixMilli()
		for i := range many {
			p.Publish(&broker.Message{Topic: fmt.Sprintf("t/%d", i), Payload: []byte("x"), Retain: true, Expires: end}, 0)
		}
		p.Flush()
		synctest.Wait()
		if n := f.RetainedCount(); n != many {
			t.Fatalf("%d retained messages", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait() // the first page is under way, and stays so
		f.retain("other", "x")
		f.retain("t/99999", "again")
		if got := f.retained(admin, "other"); got != "other=x" {
			t.Errorf("retained meanwhile: %q", got)
		}
		if got := f.retained(admin, "t/#"); got != "t/99999=again" {
			t.Errorf("what ended is read as %q", got)
		}
		close(store.letGo)
		synctest.Wait()
		if got := keptTopics(t, f.Broker, inner); !slices.Equal(got, []string{"other", "t/99999"}) {
			t.Errorf("%d stay", len(got))
		}
		if store.most > page {
			t.Errorf("%d removals were under way at once, want at most %d", store.most, page)
		}
	})
}

// TestARemovalThatFailedIsTriedAgain in a minute, without a reader.
func TestARemovalThatFailedIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner, err := local.Open(local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store := &removalStore{Store: inner, letGo: make(chan struct{}), fail: broker.ErrUnknown}
		close(store.letGo)
		f := openOver(t, store)
		f.retainFor("t", "x", 10*time.Second)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := keptTopics(t, f.Broker, inner); len(got) != 1 {
			t.Fatalf("the store has %q", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := keptTopics(t, f.Broker, inner); len(got) != 0 {
			t.Errorf("the store has %q", got)
		}
	})
}

// TestOnlyRetainedMessagesWithAnExpiryAreNoted: the others cost what they did.
func TestOnlyRetainedMessagesWithAnExpiryAreNoted(t *testing.T) {
	f := open(t)
	for i := range 100 {
		f.retain(fmt.Sprintf("for-ever/%d", i), "x")
		f.retainFor("t", "x", time.Duration(i+1)*time.Hour)
	}
	if n := broker.Expiries(f.Broker); n != 1 {
		t.Errorf("%d expiries are noted for one topic", n)
	}
	f.retain("t", "x")
	if n := broker.Expiries(f.Broker); n != 0 {
		t.Errorf("%d expiries are noted for none", n)
	}
}
