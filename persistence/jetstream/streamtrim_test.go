package jetstream_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
)

// TestAStreamIsNoLargerThanItMayBe once nothing is under way, though messages came while
// its oldest were taken.
func TestAStreamIsNoLargerThanItMayBe(t *testing.T) {
	inBubble(t, func(x *clients) {
		const limit = 4 << 10
		s, err := x.Define(x.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget, Partitions: 1, MaxBytes: limit})
		if err != nil {
			x.Fatal(err)
		}
		id := byte(0)
		for round := range 100 {
			var wg sync.WaitGroup
			for range 8 {
				m := &broker.Message{Topic: "t", Payload: make([]byte, 200), QoS: 1, ID: broker.ID{0: byte(round), 1: id}}
				id++
				wg.Go(func() { commit(x.Store, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: s}) }) })
			}
			wg.Wait()
			<-time.After(time.Second)
			synctest.Wait()
			if in, err := x.Info(x.Context(), s); err != nil || in.Bytes > limit {
				x.Errorf("round %d: it holds %d bytes, %v; want at most %d", round, in.Bytes, err, limit)
				break
			}
		}
	})
}
