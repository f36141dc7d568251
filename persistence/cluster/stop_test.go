package cluster_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/broker"
)

// A node that stops says so until it is gone: who asked it and got no answer would
// wait for one while nobody leads.
func TestANodeThatStopsSaysSo(t *testing.T) {
	c := servers(t)
	for _, leads := range []bool{true, false} {
		a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
		old, other := a, b
		if !leads {
			old, other = b, a
		}
		begun, goOn := make(chan struct{}), make(chan struct{})
		old.Answer("slow", func(context.Context, string, []byte) ([]byte, error) {
			close(begun)
			<-goOn
			return []byte("done"), nil
		})
		old.Answer("quick", func(context.Context, string, []byte) ([]byte, error) { return nil, nil })
		slow := make(chan error, 1)
		go func() {
			_, err := other.Ask(t.Context(), old.Self(), "slow", nil)
			slow <- err
		}()
		<-begun
		closed := make(chan error, 1)
		go func() { closed <- old.Close(t.Context()) }() // waits for the answer that is under way
		eventually(t, "it is known to stop", func() bool { return other.heard.has("left " + old.Self()) })
		var err error
		eventually(t, "it takes nothing more", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err = other.Ask(ctx, old.Self(), "quick", nil)
			return err != nil
		})
		if broker.KindOf(err) != broker.Unavailable {
			t.Errorf("it answers %v", err)
		}
		if !other.Leads() {
			t.Error("nobody leads in its place while it still answers somebody")
		}
		var asking sync.WaitGroup
		gone := make(chan struct{})
		for range 8 { // until it is gone, and some more
			asking.Go(func() {
				for last := false; !last; {
					select {
					case <-gone:
						last = true
					default:
					}
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					if _, err := other.Ask(ctx, old.Self(), "quick", nil); broker.KindOf(err) != broker.Unavailable {
						t.Errorf("it answers %v", err)
						last = true
					}
					cancel()
				}
			})
		}
		close(goOn)
		if err := <-slow; err != nil {
			t.Errorf("what was under way: %v", err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		close(gone)
		asking.Wait()
		if err := other.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestWhatALeaderDoesNotDoAnyMoreTheNextOneDoes: nobody hears that a store is closed
// which is another node's.
func TestWhatALeaderDoesNotDoAnyMoreTheNextOneDoes(t *testing.T) {
	c := servers(t)
	a, b := startNode(t, c, "a", patient), startNode(t, c, "b", patient)
	q := b.queue(t, "q")
	ctx := t.Context()
	ops := map[string]func() error{
		"read":        func() error { _, err := b.Read(ctx, q, broker.Pos{}, 1, nil); return err },
		"info":        func() error { _, err := b.Info(ctx, q); return err },
		"list":        func() error { return b.List(ctx, broker.SpaceAuth, "", func(broker.Entry) bool { return true }) },
		"definitions": func() error { _, err := b.Definitions(ctx); return err },
		"submit": func() error {
			if err := b.put("k", "v"); !errors.Is(err, broker.ErrUnknown) { // it may be under way
				return err
			}
			return nil
		},
		"receive": func() error { return (<-b.receive(q, 0)).Err },
	}
	var work sync.WaitGroup
	over := make(chan struct{})
	var done atomic.Int64
	for name, op := range ops {
		hammer := func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				done.Add(1)
				if err := op(); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		}
		for range 10 {
			work.Go(hammer)
		}
	}
	eventually(t, "they are at it", func() bool { return done.Load() > 1000 })
	if err := a.Close(ctx); err != nil {
		t.Error(err)
	}
	eventually(t, "another leads", b.Leads)
	close(over)
	work.Wait()
}
