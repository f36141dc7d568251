package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clustertest"
	"millrace/mqtt"
)

// sharing runs f with the edges of two nodes over one store, and what they are to
// the store.
func sharing(t *testing.T, f func(t *testing.T, a, b *edge, an, bn *clustertest.View), change ...func(*mqtt.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b, an, bn := two(t, change...)
		f(t, a, b, an, bn)
	})
}

// two are the edges of two nodes over one store, and what they are to the store.
func two(t *testing.T, change ...func(*mqtt.Options)) (a, b *edge, an, bn *clustertest.View) {
	t.Helper()
	inner, _ := openStore(t, "")
	t.Cleanup(func() {
		if err := inner.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s := clustertest.NewShared(inner)
	start := func(n *clustertest.View) *edge {
		e := &edge{store: &gate{Store: n}, check: func() error { return nil }, log: &logs{}}
		openOver(t, e, mqtt.Bare, auth.Rates{}, broker.Options{Cluster: n}, change...)
		n.Arrived()
		return e
	}
	an, bn = s.Join("a"), s.Join("b")
	an.Node.MQTT = "a.example:1883"
	return start(an), start(bn), an, bn
}

// stay is a CONNECT of MQTT 5 whose session outlives the connection for an hour.
func stay(t *testing.T, e *edge, id string) (r *raw, present bool) {
	t.Helper()
	r = pipe(t, e)
	r.v5 = true
	r.send(stayPacket(id))
	head, body := r.packet()
	if head != 0x20 || body[1] != 0 {
		t.Fatalf("CONNACK is %x %x", head, body)
	}
	return r, body[0] == 1
}

func stayPacket(id string) []byte {
	c := connectPacket(true, id, []byte{0x11, 0, 0, 0x0E, 0x10})
	c[9] &^= 2 // not a clean start
	return c
}

// ends wants a DISCONNECT with a reason.
func (r *raw) ends(code byte) {
	r.t.Helper()
	if head, body := r.packet(); head != 0xE0 || body[0] != code {
		r.t.Errorf("got packet %x %x, want DISCONNECT %x", head, body, code)
	}
}

func TestAClientThatConnectsToAnotherNodeGoesOnThere(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, _ *clustertest.View) {
		at, present := stay(t, a, "x")
		if present {
			t.Error("a new session was present")
		}
		at.subscribe(1, 1, "t/#")
		b.put(t, "t/1", "one")
		m := at.recv()
		if m.payload != "one" || m.dup {
			t.Errorf("got %+v, want one", m)
		}
		there, present := stay(t, b, "x")
		if !present {
			t.Error("the session was not present")
		}
		at.ends(0x8E)
		again := there.recv()
		if again.payload != "one" || !again.dup || again.id != m.id {
			t.Errorf("got %+v, want one again as packet %d", again, m.id)
		}
		there.ackFor(again)
		a.put(t, "t/2", "two")
		if m := there.recv(); m.payload != "two" {
			t.Errorf("got %+v, want two", m)
		}
	})
}

func TestACleanClientIsOnOneNode(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, _ *clustertest.View) {
		at := pipeIn(t, a, true, "x")
		other := pipeIn(t, a, true, "y")
		time.Sleep(time.Millisecond)
		there := pipeIn(t, b, true, "x")
		at.ends(0x8E)
		there.subscribe(1, 0, "t")
		a.put(t, "t", "one")
		if m := there.recv(); m.payload != "one" {
			t.Errorf("got %+v, want one", m)
		}
		other.quiet()
	})
}

func TestANodeThatIsAloneEndsTheConnectionsOfSessions(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, bn *clustertest.View) {
		kept, _ := stay(t, b, "kept")
		clean := pipeIn(t, b, true, "clean")
		bn.CutOff()
		kept.ends(0x89)
		synctest.Wait()
		clean.quiet()
		if _, present := stay(t, a, "kept"); !present {
			t.Error("the session was not present on the other node")
		}
		bn.Reconnect()
		time.Sleep(2 * time.Second)
		if _, present := stay(t, b, "kept"); !present {
			t.Error("the session did not come back")
		}
	})
}

// TestANodeThatStopsSendsItsClientsToTheOthers: with reason 0x9C, and the addresses
// that those have given, to a client that takes them; a durable session goes on
// there.
func TestANodeThatStopsSendsItsClientsToTheOthers(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, _ *clustertest.View) {
		kept, _ := stay(t, b, "kept")
		kept.subscribe(1, 1, "t")
		clean, old := pipeIn(t, b, true, "clean", 39, 0, 0, 0, 19), pipeIn(t, b, false, "old")
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- b.Close(t.Context()) }()
		if head, body := kept.packet(); head != 0xE0 || string(body) != "\x9C\x11\x1C\x00\x0Ea.example:1883" {
			t.Errorf("got packet %x %x, want DISCONNECT 9C with the other node", head, body)
		}
		clean.wantEnd(0x9C)
		old.wantEnd(0)
		a.put(t, "t", "one")
		again, present := stay(t, a, "kept")
		if !present {
			t.Error("the session was not present on the other node")
		}
		if m := again.recv(); m.payload != "one" {
			t.Errorf("got %+v, want one", m)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// TestClientsOfANodeThatStopsAreSentAwayBitByBit, 500 a second, or faster when less
// than twice as long is left.
func TestClientsOfANodeThatStopsAreSentAwayBitByBit(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{time.Minute: 180 * time.Millisecond, 100 * time.Millisecond: 20 * time.Millisecond} {
		sharing(t, func(t *testing.T, _, b *edge, _, _ *clustertest.View) {
			ended := make(chan time.Duration, 100)
			var begun time.Time
			var all []*raw
			for i := range cap(ended) {
				all = append(all, pipeIn(t, b, true, fmt.Sprint("c", i)))
			}
			begun = time.Now()
			for _, r := range all {
				go func() {
					_, _ = io.ReadAll(r.br) // until it is closed
					ended <- time.Since(begun)
				}()
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := b.Close(ctx); err != nil {
				t.Error(err)
			}
			at := map[time.Duration]int{}
			for range cap(ended) {
				at[<-ended]++
			}
			if at[0] == 0 || at[want] == 0 || at[want+20*time.Millisecond] > 0 {
				t.Errorf("with %v left they end at %v, want the last at %v", limit, at, want)
			}
		})
	}
}

// TestMembersOfASharedSubscriptionOnTwoNodesShareItsBacklog, also one that was
// there before the first durable one; what a dead node had goes to the others.
func TestMembersOfASharedSubscriptionOnTwoNodesShareItsBacklog(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, bn *clustertest.View) {
		clean := pipeIn(t, a, true, "clean")
		clean.subscribe(1, 1, "$share/g/t")
		kept, _ := stay(t, b, "kept")
		kept.subscribe(1, 1, "$share/g/t")
		time.Sleep(time.Second)
		got := map[string]bool{}
		for i := range 4 {
			a.put(t, "t", fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		bn.Kill()
		for len(got) < 4 { // what the dead node has not settled comes when its lease ends
			m := clean.recv()
			clean.ackFor(m)
			got[m.payload] = true
		}
	})
}
