package broker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/broker"
)

func TestTheMessagesOfAWatchedTopicAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "kept/#")
		for _, topic := range []string{"kept/1", "lost"} {
			if err := f.WatchTopic(f.ctx, topic); err != nil {
				t.Fatal(err)
			}
		}
		for _, topic := range []string{"kept/1", "kept/1", "kept/2", "lost"} {
			f.publish(topic, "x")
		}
		f.CountOut("kept/1", 2)
		f.CountOut("kept/2", 2)
		counts := func() (all map[string]broker.TopicCounts) {
			all = map[string]broker.TopicCounts{}
			for _, w := range f.WatchedTopics() {
				all[w.Topic], all[w.Topic+", a second"] = w.Total, w.PerSecond
			}
			return all
		}
		kept, lost := broker.TopicCounts{In: [3]int64{0, 2, 0}, Out: [3]int64{0, 0, 1}}, broker.TopicCounts{In: [3]int64{0, 1, 0}, Dropped: 1}
		if diff := cmp.Diff(map[string]broker.TopicCounts{"kept/1": kept, "kept/1, a second": {}, "lost": lost, "lost, a second": {}}, counts()); diff != "" {
			t.Error(diff)
		}
		f.SampleTopics()
		if err := f.ResetTopic("lost"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]broker.TopicCounts{"kept/1": kept, "kept/1, a second": kept, "lost": {}, "lost, a second": lost}, counts()); diff != "" {
			t.Error(diff)
		}
		f.SampleTopics()
		if all := counts(); all["kept/1, a second"] != (broker.TopicCounts{}) || all["kept/1"] != kept {
			t.Errorf("a second later: %+v", all)
		}
		if err := f.ResetTopic("kept/2"); broker.KindOf(err) != broker.NotFound {
			t.Errorf("reset what is not watched: %v", err)
		}
	})
}

func TestWatchedTopicsAreBoundedAndOutliveTheProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		for n := range broker.MaxWatchedTopics {
			if err := f.WatchTopic(f.ctx, fmt.Sprint("t/", n)); err != nil {
				t.Fatal(err)
			}
		}
		for topic, kind := range map[string]broker.Kind{"one/more": broker.Full, "t/7": broker.Conflict, "t/+": broker.Invalid, "": broker.Invalid, "$SYS/x": broker.Invalid} {
			if err := f.WatchTopic(f.ctx, topic); broker.KindOf(err) != kind {
				t.Errorf("watch %q: %v, want %v", topic, err, kind)
			}
		}
		if err := f.UnwatchTopic(f.ctx, "t/7"); err != nil {
			t.Fatal(err)
		}
		if err := f.UnwatchTopic(f.ctx, "t/7"); broker.KindOf(err) != broker.NotFound {
			t.Errorf("twice: %v", err)
		}
		if err := f.WatchTopic(f.ctx, "one/more"); err != nil {
			t.Error(err)
		}
		before := f.WatchedTopics()
		again, err := broker.Open(context.WithoutCancel(f.ctx), broker.Options{Store: f.store, Auth: f.Auth()})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close(context.WithoutCancel(f.ctx))
		if diff := cmp.Diff(before, again.WatchedTopics()); diff != "" || len(before) != broker.MaxWatchedTopics {
			t.Errorf("%d topics: %s", len(before), diff)
		}
	})
}
