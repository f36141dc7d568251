package broker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// stream makes a stream fed by filter.
func (f *fixture) stream(name, filter string, partitions int) {
	f.tb.Helper()
	c := broker.NewStreamConfig(name, filter)
	c.Partitions = partitions
	if _, err := f.CreateStream(f.ctx, c); err != nil {
		f.tb.Fatal(err)
	}
}

// read reads partition 0.
func (f *fixture) read(name string, from broker.Pos, wait time.Duration) (string, broker.StreamRead) {
	f.tb.Helper()
	got, err := f.ReadStream(f.ctx, name, broker.ReadOptions{From: from, Max: 10, Wait: wait})
	if err != nil {
		f.tb.Fatalf("read of %s: %v", name, err)
	}
	texts := []string{}
	for _, m := range got.Messages {
		texts = append(texts, string(m.Payload))
	}
	return fmt.Sprint(texts), got
}

func TestAStreamIsReadOnFromWhereTheLastReadEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a/#", 1)
		for i := range 15 {
			f.publish("a/b", fmt.Sprint(i))
		}
		got, r := f.read("s", broker.Pos{Begin: true}, 0)
		if got != "[0 1 2 3 4 5 6 7 8 9]" || r.Next != 10 || r.Latest != 15 {
			t.Fatalf("got %s, next %d, latest %d", got, r.Next, r.Latest)
		}
		if got, r = f.read("s", broker.Pos{Seq: r.Next}, 0); got != "[10 11 12 13 14]" || r.Next != 15 {
			t.Fatalf("got %s, next %d", got, r.Next)
		}
	})
}

func TestAReadThatWaitsIsWokenByThePublish(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 1)
		begin := time.Now()
		go func() {
			time.Sleep(5 * time.Second)
			f.publish("a", "x")
		}()
		got, r := f.read("s", broker.Pos{End: true}, time.Minute)
		if took := time.Since(begin); got != "[x]" || r.Next != 1 || took != 5*time.Second {
			t.Fatalf("got %s, next %d after %v", got, r.Next, took)
		}
	})
}

func TestAReadThatIsGivenUpIsWithdrawnAndCountsNoMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 1)
		ctx, cancel := context.WithCancel(f.ctx)
		var wg sync.WaitGroup
		for range 10_000 {
			wg.Go(func() {
				_, err := f.ReadStream(ctx, "s", broker.ReadOptions{From: broker.Pos{End: true}, Max: 1, Wait: time.Minute})
				if broker.KindOf(err) != broker.Unavailable {
					t.Errorf("error is %v", err)
				}
			})
		}
		synctest.Wait()
		_, err := f.ReadStream(f.ctx, "s", broker.ReadOptions{From: broker.Pos{End: true}, Max: 1, Wait: time.Minute})
		if broker.KindOf(err) != broker.Full {
			t.Errorf("one more than may wait answers %v", err)
		}
		if _, err := f.Receive(f.ctx, "none", broker.ReceiveOptions{Max: 1}); broker.KindOf(err) != broker.NotFound {
			t.Errorf("receive answers %v", err)
		}
		cancel()
		wg.Wait()
		if got, _ := f.read("s", broker.Pos{End: true}, time.Second); got != "[]" {
			t.Errorf("got %s", got)
		}
	})
}

func TestDeletingAStreamEndsItsReadsAndItsCursors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 1)
		f.publish("a", "x")
		if _, err := f.CommitCursor(f.ctx, "s", "c", []broker.Offset{{Offset: 1}}, false); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := f.ReadStream(f.ctx, "s", broker.ReadOptions{From: broker.Pos{End: true}, Max: 1, Wait: time.Hour})
			if broker.KindOf(err) != broker.NotFound {
				t.Errorf("error is %v", err)
			}
		})
		synctest.Wait()
		if err := f.DeleteStream(f.ctx, "s"); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		f.stream("s", "a", 1)
		if _, err := f.Cursor(f.ctx, "s", "c"); broker.KindOf(err) != broker.NotFound {
			t.Errorf("a cursor outlived its stream: %v", err)
		}
		left := 0
		must(t, f.store.List(f.ctx, broker.SpaceCursors, "", func(broker.Entry) bool { left++; return true }))
		if left != 0 {
			t.Errorf("%d cursors are left behind", left)
		}
	})
}

func TestAnOffsetBelowTheEarliestNamesTheEarliest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 1)
		f.publish("a", "x")
		time.Sleep(8 * 24 * time.Hour)
		f.publish("a", "y")
		_, err := f.ReadStream(f.ctx, "s", broker.ReadOptions{Max: 1})
		e, ok := errors.AsType[*broker.Error](err)
		r, in := errors.AsType[*broker.RangeError](err)
		if !ok || e.Kind != broker.Invalid || e.Subject != broker.OffsetSubject || !in || r.First != 1 {
			t.Fatalf("error is %v", err)
		}
		if got, _ := f.read("s", broker.Pos{Begin: true}, 0); got != "[y]" {
			t.Fatalf("got %s", got)
		}
	})
}

func TestOnlyWhoMayConsumeReadsAStreamAndMovesItsCursors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 1)
		ctx := auth.WithPrincipal(f.ctx, &auth.Principal{Kind: auth.Key, Name: "p", Role: auth.Publisher})
		for name, call := range map[string]func() error{
			"read":   func() error { _, err := f.ReadStream(ctx, "s", broker.ReadOptions{Max: 1}); return err },
			"commit": func() error { _, err := f.CommitCursor(ctx, "s", "c", nil, false); return err },
			"show":   func() error { _, err := f.Cursor(ctx, "none", "c"); return err },
			"list":   func() error { _, err := f.Cursors(ctx, "s"); return err },
			"delete": func() error { return f.DeleteCursor(ctx, "s", "c") },
			"change": func() error {
				_, err := f.UpdateStream(ctx, "s", func(*broker.StreamConfig) error { return nil })
				return err
			},
		} {
			if err := call(); broker.KindOf(err) != broker.Forbidden {
				t.Errorf("%s answers %v", name, err)
			}
		}
	})
}

func TestCursorsMoveForwardAndBackOnlyByForce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 2)
		for range 20 {
			f.publish("a", "x")
		}
		commit := func(force bool, offsets ...broker.Offset) error {
			_, err := f.CommitCursor(f.ctx, "s", "c", offsets, force)
			return err
		}
		must(t, commit(false, broker.Offset{Partition: 1, Offset: 4}))
		must(t, commit(false, broker.Offset{Partition: 0, Offset: 7}, broker.Offset{Partition: 1, Offset: 4}))
		for _, bad := range []error{
			commit(false, broker.Offset{Partition: 0, Offset: 9}, broker.Offset{Partition: 1, Offset: 3}),
			commit(false, broker.Offset{Partition: 0, Offset: 0}),
		} {
			if broker.KindOf(bad) != broker.Conflict {
				t.Errorf("a move back answers %v", bad)
			}
		}
		c, err := f.Cursor(f.ctx, "s", "c")
		if must(t, err); fmt.Sprint(c.Offsets) != "[{0 7} {1 4}]" {
			t.Fatalf("cursor stands at %v: a commit that was refused moved it", c.Offsets)
		}
		must(t, commit(true, broker.Offset{Partition: 0, Offset: 0}))
		// Many at once: the highest wins, whatever the order.
		var wg sync.WaitGroup
		for i := range uint64(10) {
			wg.Go(func() {
				if err := commit(false, broker.Offset{Partition: 0, Offset: i}); err != nil && broker.KindOf(err) != broker.Conflict {
					t.Errorf("commit answers %v", err)
				}
			})
		}
		wg.Wait()
		if c, err = f.Cursor(f.ctx, "s", "c"); err != nil || c.Offsets[0].Offset != 9 {
			t.Fatalf("cursor stands at %v, %v", c.Offsets, err)
		}
	})
}

// TestARepeatGoesToThePartitionOfTheFirst: the key under which it is known chooses, because
// a store of several parts knows a repeat in each of them.
func TestARepeatGoesToThePartitionOfTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("one", "a/#", 4)
		f.stream("two", "#", 4)
		publish := func(topic, text, key string) {
			m := &broker.Message{Topic: topic, Payload: []byte(text), DedupKey: key}
			if _, err := f.Publish(f.ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		publish("b", "the next one in turn is another in each", "")
		for i := range 20 {
			publish("a/x", fmt.Sprint(i), fmt.Sprint("key ", i))
		}
		places := func(name string) map[string]uint32 {
			at := map[string]uint32{}
			for p := range uint32(4) {
				got, err := f.ReadStream(f.ctx, name, broker.ReadOptions{From: broker.Pos{Partition: p}, Max: 100})
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range got.Messages {
					if m.Topic == "a/x" {
						at[string(m.Payload)] = p
					}
				}
			}
			return at
		}
		if one, two := places("one"), places("two"); len(one) != 20 || !maps.Equal(one, two) {
			t.Errorf("the partitions are %v and %v", one, two)
		}
	})
}

func TestAStreamIsChangedWhileItIsFed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.stream("s", "a", 1)
		change := func(set func(*broker.StreamConfig)) error {
			_, err := f.UpdateStream(f.ctx, "s", func(c *broker.StreamConfig) error { set(c); return nil })
			return err
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					f.publish("a", "x")
				}
			})
		}
		must(t, change(func(c *broker.StreamConfig) { c.Partitions = 4 }))
		wg.Wait()
		f.publish("a", "x")
		must(t, change(func(c *broker.StreamConfig) { c.Filter, c.Retention = "b", 24*time.Hour }))
		if p := f.publish("a", "x"); p.Matched.Streams != 0 {
			t.Error("the old filter still feeds the stream")
		}
		if p := f.publish("b", "x"); p.Matched.Streams != 1 {
			t.Error("the new filter does not feed the stream")
		}
		if err := change(func(c *broker.StreamConfig) { c.Partitions = 3 }); broker.KindOf(err) != broker.Conflict {
			t.Errorf("fewer partitions answers %v", err)
		}
		info, err := f.Stream(f.ctx, "s")
		must(t, err)
		n := uint64(0)
		for _, p := range info.Partitioned {
			n += p.Next
		}
		if n != 202 || len(info.Partitioned) != 4 || info.Retention != 24*time.Hour {
			t.Errorf("%d messages in %+v", n, info)
		}
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
