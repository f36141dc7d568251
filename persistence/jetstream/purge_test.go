package jetstream_test

import (
	"testing"
	"time"

	"millrace/broker"
)

// TestAPurgeLeavesWhatAnEarlierStartLeased, unless everything is purged.
func TestAPurgeLeavesWhatAnEarlierStartLeased(t *testing.T) {
	inBubble(t, func(x *clients) {
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			x.Fatal(err)
		}
		for _, body := range []string{"a", "b"} {
			if err := x.publish(body, q); err != nil {
				x.Fatal(err)
			}
		}
		got := take(x.Store, q, 1, time.Hour, time.Second)
		x.Crash()
		x.start()
		purge := func(all bool, want int) {
			x.Helper()
			if r := commit(x.Store, func(b *broker.Batch) { b.Purge(q, all) }); r.Err != nil || r.Count != want {
				x.Errorf("purged %d, %v; want %d", r.Count, r.Err, want)
			}
		}
		purge(false, 1)
		if in, err := x.Info(x.Context(), q); err != nil || in.Ready != 0 || in.Leased != 1 || in.Difference() != 0 {
			x.Errorf("%+v, %v; want 1 leased", in, err)
		}
		x.ack(got...)
		x.has(q, 0)

		if err := x.publish("c", q); err != nil {
			x.Fatal(err)
		}
		take(x.Store, q, 1, time.Hour, time.Second)
		x.Crash()
		x.start()
		purge(true, 1)
		x.has(q, 0)
	})
}
