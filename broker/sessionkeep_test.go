package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"

	"github.com/rs/zerolog"
)

// bare is a fixture over a store that somebody else closes, as the broker.
func bare(t *testing.T, s broker.Store) *fixture {
	t.Helper()
	ctx := auth.WithPrincipal(context.Background(), admin)
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(s, broker.SpaceAuth), AllowAnonymous: true, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Open(ctx, broker.Options{Store: s, Auth: a, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{Broker: b, ctx: ctx, store: s, tb: t}
}

// filters are the subscriptions of a session, as "filter:QoS".
func (f *fixture) filters(id string) (list []string) {
	f.tb.Helper()
	s, _, err := f.Session(f.ctx, id)
	if err != nil {
		f.tb.Fatal(err)
	}
	s.Filters(func(filter string, o broker.SubscriptionOptions) bool {
		list = append(list, fmt.Sprintf("%s:%d:%d", filter, o.QoS, o.ID))
		return true
	})
	return list
}

// TestSubscriptionsOfASessionSurviveHoweverManyThereAre: few are in the record of
// the session, more have keys of their own, and it makes no difference.
func TestSubscriptionsOfASessionSurviveHoweverManyThereAre(t *testing.T) {
	store, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := bare(t, store)
	who := &auth.Principal{Kind: auth.Anonymous}
	var want []string
	change := func(add, remove []string) {
		t.Helper()
		s, _, err := f.OpenSession(f.ctx, broker.SessionOptions{ClientID: "c", Principal: who, Expiry: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for i, filter := range add {
			o := broker.SubscriptionOptions{QoS: byte(i % 3), ID: uint32(1000 * i)}
			if err := s.Subscribe(f.ctx, &broker.Subscription{Filter: filter, Principal: who, Sink: new(collector)}, o); err != nil {
				t.Fatal(err)
			}
		}
		for _, filter := range remove {
			if !s.Unsubscribe(filter) {
				t.Errorf("%s was not there", filter)
			}
		}
		if err := s.Commit(f.ctx); err != nil {
			t.Fatal(err)
		}
		s.Close(f.ctx, false)
		want = f.filters("c")
		if err := f.Close(f.ctx); err != nil {
			t.Fatal(err)
		}
		f = bare(t, store)
		if got := f.filters("c"); !slices.Equal(got, want) {
			t.Errorf("after a restart there are %q, want %q", got, want)
		}
	}
	change([]string{"a", "b"}, nil)
	change([]string{"c"}, []string{"a"})
	change([]string{"b"}, nil) // with other options
	change([]string{"d", "e", "f", "g", "h", "i", "j", "k"}, []string{"c"})
	if len(want) != 9 {
		t.Fatalf("there are %q", want)
	}
	change([]string{"l"}, []string{"b", "d", "k"})
	change(nil, []string{"e", "f", "g", "h", "i", "j"})
	if len(want) != 1 {
		t.Errorf("in the end there are %q", want)
	}
	if err := errors.Join(f.Close(f.ctx), store.Close(f.ctx)); err != nil {
		t.Error(err)
	}
}

// TestSessionsOfTheFirstFormatAreRead has a record whose subscriptions have keys
// of their own.
func TestSessionsOfTheFirstFormatAreRead(t *testing.T) {
	s, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &broker.Batch{}
	b.Put(broker.SpaceSessions, "old", append([]byte{1, 0x90, 0x1c, 0, 9}, "anonymous"...), 0)
	b.Put(broker.SpaceSessions, "old\x00st/#", []byte{2, 7}, 0)
	b.End()
	done := make(answered, 1)
	s.Submit(b, broker.Durable, done)
	<-done
	f := openOver(t, s)
	if got := f.filters("old"); !slices.Equal(got, []string{"t/#:2:7"}) {
		t.Errorf("the session has %q", got)
	}
}

// answered is a Completion that can be waited for.
type answered chan *broker.Batch

// Done implements broker.Completion.
func (a answered) Done(b *broker.Batch) { a <- b }
