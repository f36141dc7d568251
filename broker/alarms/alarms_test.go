package alarms_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"millrace/broker/alarms"
)

func TestAnAlarmHoldsUntilItIsClearedOrItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := alarms.NewBook(zerolog.Nop())
		began := time.Now()
		b.Raise("disk", "the disk is nearly full", map[string]any{"free": 7})
		time.Sleep(time.Second)
		b.RaiseFor(time.Minute, "drops", "messages were dropped", nil)
		if all := b.Active(); len(all) != 2 || all[0].Name != "drops" || all[1].Details["free"] != 7 || !all[1].Since.Equal(began) {
			t.Fatalf("%+v", all)
		}
		time.Sleep(59 * time.Second)
		b.RaiseFor(time.Minute, "drops", "more messages were dropped", nil)
		time.Sleep(59 * time.Second)
		if all := b.Active(); len(all) != 2 || all[0].Message != "more messages were dropped" {
			t.Fatalf("%+v", all)
		}
		time.Sleep(time.Minute)
		all, past := b.Active(), b.Past()
		if len(all) != 1 || len(past) != 1 || !past[0].Since.Equal(began.Add(time.Second)) || past[0].Until.Sub(past[0].Since) != 119*time.Second {
			t.Fatalf("%+v %+v", all, past)
		}
		if !b.Clear("disk") || b.Clear("disk") || len(b.Active()) != 0 || b.Past()[0].Name != "disk" {
			t.Errorf("%+v %+v", b.Active(), b.Past())
		}
		if err := b.Forget(t.Context()); err != nil || len(b.Past()) != 0 {
			t.Error("something is left")
		}
		for range 1001 {
			b.Raise("x", "", nil)
			b.Clear("x")
		}
		if n := len(b.Past()); n != 1000 {
			t.Errorf("%d are kept", n)
		}
	})
}

// keys are a store that can fail.
type keys struct {
	mu     sync.Mutex
	values map[string][]byte
	broken error
}

func (k *keys) List(_ context.Context, prefix string) (map[string][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := maps.Clone(k.values)
	maps.DeleteFunc(all, func(key string, _ []byte) bool { return !strings.HasPrefix(key, prefix) })
	return all, k.broken
}

func (k *keys) Put(_ context.Context, key string, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken == nil {
		k.values[key] = value
	}
	return k.broken
}

func (k *keys) Delete(_ context.Context, key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.values, key)
	return k.broken
}

// kept is a book over k, that of a new process.
func kept(t *testing.T, k *keys) *alarms.Book {
	t.Helper()
	b := alarms.NewBook(zerolog.Nop())
	if err := b.Keep(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return b
}

func names(all []alarms.Alarm) (names []string) {
	for _, a := range all {
		names = append(names, a.Name)
	}
	return names
}

func TestWhatIsOverOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keys{values: map[string][]byte{"receipt-key": nil}}
		first := kept(t, k)
		first.Raise("a", "first", map[string]any{"free": 7})
		first.Raise("b", "second", nil)
		time.Sleep(time.Minute)
		first.Clear("a")
		synctest.Wait() // the process is killed behind this, and so is its goroutine in effect
		time.Sleep(time.Hour)
		second := kept(t, k)
		past := second.Past()
		if diff := cmp.Diff([]string{"b", "a"}, names(past)); diff != "" || len(second.Active()) > 0 {
			t.Fatalf("%s %v", diff, second.Active())
		}
		if past[1].Until.Sub(past[1].Since) != time.Minute || past[1].Message != "first" || fmt.Sprint(past[1].Details["free"]) != "7" || !past[0].Until.Equal(time.Now()) {
			t.Errorf("%+v", past)
		}
		second.Raise("c", "third", nil)
		if err := second.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		third := kept(t, k)
		if diff := cmp.Diff([]string{"c", "b", "a"}, names(third.Past())); diff != "" {
			t.Error(diff)
		}
		if err := third.Forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		third.Raise("d", "", nil)
		if err := third.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		fourth := kept(t, k)
		if diff := cmp.Diff([]string{"d"}, names(fourth.Past())); diff != "" {
			t.Error(diff)
		}
		for range 1500 {
			fourth.Raise("x", "", nil)
			fourth.Clear("x")
		}
		if err := fourth.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		fifth := kept(t, k)
		if n := len(fifth.Past()); n != 1000 || len(k.values) > 1010 {
			t.Errorf("%d alarms and %d keys are kept", n, len(k.values))
		}
		k.broken = errors.New("the disk is gone")
		if err := fifth.Forget(t.Context()); err == nil {
			t.Error("forgotten, but not on disk")
		}
		for _, b := range []*alarms.Book{first, fifth} {
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
