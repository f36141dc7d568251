package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestSessionsMoveBetweenNodes has devices with durable sessions publish and
// subscribe in QoS 1 and 2, and connect to another node again and again, their
// connections cut; one node is killed meanwhile. What they were told is there, in
// order, and in QoS 2 once from end to end.
func TestSessionsMoveBetweenNodes(t *testing.T) {
	moves := int(fromEnv(t, "MILLRACE_MOVES", 12))
	seed := fromEnv(t, "MILLRACE_KILL_SEED", time.Now().UnixNano()&0xffffff)
	t.Logf("seed %d (repeat with MILLRACE_KILL_SEED=%d)", seed, seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	f := startNodes(t, "a", "b", "c")
	var pubs []*devicePub
	var subs []*deviceSub
	for qos := byte(1); qos <= 2; qos++ {
		pubs = append(pubs, &devicePub{qos: qos, open: map[uint16]int{}, released: map[uint16]bool{}})
		subs = append(subs, newDeviceSub(fmt.Sprint("sub", qos), qos))
	}
	for _, d := range subs {
		d.begin(t, f.node(0))
	}
	for move := range moves {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i, d := range pubs {
			wg.Go(func() { d.run(ctx, f.node(move+i), -1) })
		}
		for i, d := range subs {
			noise := rand.New(rand.NewPCG(uint64(seed), uint64(100*move+i)))
			wg.Go(func() { d.run(ctx, f.node(move+i+1), noise, nil) })
		}
		<-time.After(20*time.Millisecond + time.Duration(r.Int64N(int64(300*time.Millisecond))))
		name := ""
		if move == moves/2 {
			name = f.names[r.IntN(len(f.names))]
			t.Logf("after %d moves node %s is killed", move, name)
			f.down(name).kill()
		}
		cancel()
		wg.Wait()
		if name != "" {
			f.start(name)
		}
	}
	last := f.node(moves)
	for _, d := range pubs {
		d.run(t.Context(), last, d.next+10) // to its end
		if len(d.open) > 0 {
			t.Fatalf("QoS %d: %d publishes have no answer", d.qos, len(d.open))
		}
	}
	t.Logf("%d moves; %d messages of QoS 1 and %d of QoS 2 were published", moves, pubs[0].next, pubs[1].next)
	for _, d := range subs {
		d.run(t.Context(), last, nil, pubs)
		for _, p := range pubs {
			d.check(t, p)
		}
	}
}
