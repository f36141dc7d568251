package broker_test

import (
	"context"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// Whoever consumes from a queue is not asked about topics, so whoever has a
// filter feed it is.
func TestAFilterNeedsTheRightToSubscribeToAllOfIt(t *testing.T) {
	f := open(t)
	f.queue("q", "")
	f.stream("s", "a/x", 1)
	ctx := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.User, Name: "ann", Role: auth.Client})
	if err := f.Auth().SetRules(f.ctx, []auth.Rule{
		{Effect: "allow", Who: "user:ann", Do: []string{"manage", "consume"}, Filter: "queue:*"},
		{Effect: "allow", Who: "user:ann", Do: []string{"manage", "consume"}, Filter: "stream:*"},
		{Effect: "allow", Who: "user:ann", Do: []string{"subscribe"}, Filter: "a/#"},
		{Effect: "deny", Who: "user:ann", Do: []string{"subscribe"}, Filter: "a/secret"},
	}); err != nil {
		t.Fatal(err)
	}
	for filter, allowed := range map[string]bool{"": true, "a/x": true, "a/b/+": true, "b": false, "#": false, "a/#": false, "a/secret": false} {
		check := func(what string, err error) {
			t.Helper()
			if (err == nil) != allowed || err != nil && broker.KindOf(err) != broker.Forbidden {
				t.Errorf("%s with %q: %v", what, filter, err)
			}
		}
		_, err := f.CreateQueue(ctx, broker.NewQueueConfig("new", filter))
		check("a new queue", err)
		_ = f.DeleteQueue(f.ctx, "new") // if it was made
		_, err = f.UpdateQueue(ctx, "q", func(c *broker.QueueConfig) error { c.Filter = filter; return nil })
		check("a changed queue", err)
		if filter == "" {
			continue
		}
		_, err = f.CreateStream(ctx, broker.NewStreamConfig("new", filter))
		check("a new stream", err)
		_ = f.DeleteStream(f.ctx, "new") // if it was made
		_, err = f.UpdateStream(ctx, "s", func(c *broker.StreamConfig) error { c.Filter = filter; return nil })
		check("a changed stream", err)
	}
	if _, err := f.UpdateQueue(f.ctx, "q", func(c *broker.QueueConfig) error { c.Filter = "b"; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := f.UpdateQueue(ctx, "q", func(c *broker.QueueConfig) error { c.Paused = true; return nil }); err != nil {
		t.Errorf("a change beside the filter: %v", err)
	}
}
