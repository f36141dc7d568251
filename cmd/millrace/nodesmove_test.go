package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// TestSessionsMoveBetweenNodes has devices with durable sessions publish and
// subscribe in QoS 1 and 2, and connect to another node again and again, their
// connections cut; one node is killed meanwhile, and in many moves one is cut off for
// longer than others wait for it. What they were told is there, in order, and in QoS 2
// once from end to end.
func TestSessionsMoveBetweenNodes(t *testing.T) {
	moves := int(fromEnv(t, "MILLRACE_MOVES", 12))
	seed := fromEnv(t, "MILLRACE_KILL_SEED", time.Now().UnixNano()&0xffffff)
	t.Logf("seed %d (repeat with MILLRACE_KILL_SEED=%d)", seed, seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	f := startNodes(t, "a", "b", "c")
	var pubs []*devicePub
	var subs []*deviceSub
	var all []*moving
	for qos := byte(1); qos <= 2; qos++ {
		pubs = append(pubs, newDevicePub(qos))
		subs = append(subs, newDeviceSub(fmt.Sprint("sub", qos), qos))
		all = append(all, &pubs[qos-1].moving, &subs[qos-1].moving)
	}
	for _, d := range subs {
		d.begin(t, f.node(0))
	}
	var off absent
	var calm, upset []time.Duration // what connects took, and while a node was away
	for move := range moves {
		if moves >= 100 && move == moves/4 {
			off = f.cut(f.names[r.IntN(len(f.names))])
		}
		if off.f != nil && time.Since(off.since) > cutFor || move == moves/2 {
			off.back()
		}
		for _, d := range all {
			d.patient, d.took = move%2 == 0, nil
		}
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i, d := range pubs {
			wg.Go(func() { _ = d.run(ctx, f.node(move+i), -1) }) // it is cut off
		}
		for i, d := range subs {
			noise := rand.New(rand.NewPCG(uint64(seed), uint64(100*move+i)))
			wg.Go(func() { _ = d.run(ctx, f.node(move+i+1), noise, nil) })
		}
		<-time.After(20*time.Millisecond + time.Duration(r.Int64N(int64(300*time.Millisecond))))
		name := ""
		if move == moves/2 {
			name = f.names[r.IntN(len(f.names))]
			t.Logf("after %d moves node %s, which leads: %v, is killed", move, name, name == f.leader())
			f.down(name).kill()
		}
		cancel()
		wg.Wait()
		if name != "" {
			f.start(name)
		}
		for _, d := range all {
			if off.f != nil || move >= moves/2 && move < moves/2+10 {
				upset = append(upset, d.took...)
			} else {
				calm = append(calm, d.took...)
			}
		}
	}
	t.Logf("connects took %s, and %s while a node was away", spread(calm), spread(upset))
	last := f.node(moves)
	for _, d := range pubs {
		if err := d.run(t.Context(), last, d.next+10); err != nil || len(d.open) > 0 { // to its end
			t.Fatalf("QoS %d: %d publishes have no answer: %v", d.qos, len(d.open), err)
		}
	}
	t.Logf("%d moves; %d messages of QoS 1 and %d of QoS 2 were published", moves, pubs[0].next, pubs[1].next)
	for _, d := range subs {
		if err := d.run(t.Context(), last, nil, pubs); err != nil {
			t.Error(err)
		}
		for _, p := range pubs {
			d.check(t, p)
		}
	}
}

// How long a CONNECT may take whose session is at another node, in 99 of 100 cases: where
// that node gives it up, and where it died.
const (
	movesWithin     = 50 * time.Millisecond
	deadMovesWithin = 6 * time.Second
)

// TestSessionsMoveInTime moves one session, while nothing else goes on. It runs where many
// moves are asked for: a machine that does much else beside may be late.
func TestSessionsMoveInTime(t *testing.T) {
	moves := int(fromEnv(t, "MILLRACE_MOVES", 0))
	if moves == 0 {
		t.Skip("a busy machine may be late: MILLRACE_MOVES=200")
	}
	f := startNodes(t, "a", "b", "c")
	d := &moving{id: "mover", patient: true}
	var c *wire.Conn
	move := func(to *server) {
		t.Helper()
		next, err := d.connect(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if c != nil {
			_ = c.Close() // the server has, too
		}
		c = next
	}
	move(f.node(0))
	d.took = nil
	for i := range moves {
		move(f.node(i + 1))
	}
	clean, dead := d.took, []time.Duration(nil)
	for i := range max(2, moves/40) {
		name := f.leader()
		if i%2 == 0 {
			name = f.names[(1+slices.Index(f.names, name))%len(f.names)]
		}
		move(f.at(name))
		f.down(name).kill()
		d.took = nil
		move(f.other(name))
		dead = append(dead, d.took...)
		f.start(name)
	}
	_ = c.Close()
	t.Logf("connects took %s, and %s where the other node had died", spread(clean), spread(dead))
	if took := percentile(clean, 99); took > movesWithin {
		t.Errorf("99 of 100 connects took up to %s, want %s", took, movesWithin)
	}
	if took := percentile(dead, 99); took > deadMovesWithin {
		t.Errorf("99 of 100 connects took up to %s where the other node had died, want %s", took, deadMovesWithin)
	}
}

// percentile is how long so many of 100 took at most.
func percentile(took []time.Duration, percent int) time.Duration {
	slices.Sort(took)
	return took[(len(took)*percent+99)/100-1].Round(time.Millisecond / 10)
}

// spread words how long something took.
func spread(took []time.Duration) string {
	if len(took) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s (half), %s (99 of 100), %s at most (%d)", percentile(took, 50), percentile(took, 99), percentile(took, 100), len(took))
}

// cutFor is longer than others wait for a node.
const cutFor = 7 * time.Second

// absent is a node that is cut off.
type absent struct {
	f     *fleetOf
	name  string
	led   bool
	since time.Time
}

func (f *fleetOf) cut(name string) absent {
	off := absent{f, name, f.leader() == name, time.Now()}
	f.t.Logf("node %s, which leads: %v, is cut off", name, off.led)
	f.ways[name].Cut()
	return off
}

// back has it reach the others again, if one is away; one that led starts again.
func (off *absent) back() {
	if off.f == nil {
		return
	}
	<-time.After(time.Until(off.since.Add(cutFor)))
	off.f.ways[off.name].Mend()
	if off.led {
		off.f.replaced(off.name)
		off.f.down(off.name).givesUp()
		off.f.start(off.name)
	}
	off.f = nil
}
