package mqtt_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clustertest"
	"millrace/mqtt"
)

// twoNodes runs f with the edges of two nodes.
func twoNodes(t *testing.T, f func(t *testing.T, a, b *edge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bus := clustertest.New(t)
		bus.Delay = time.Millisecond
		edge := func(name string) *edge {
			return openLimited(t, "", mqtt.Bare, auth.Rates{}, broker.Options{Cluster: bus.Join(name)})
		}
		f(t, edge("a"), edge("b"))
	})
}

func TestAClientGetsWhatIsPublishedOnAnotherNode(t *testing.T) {
	twoNodes(t, func(t *testing.T, a, b *edge) {
		v5, v3 := pipeIn(t, b, true, "v5"), pipeIn(t, b, false, "v3")
		v5.subscribe(1, 1, "t/+", "u/#")
		v3.subscribe(1, 0, "t/+")
		for i := range 3 {
			a.put(t, "t/1", fmt.Sprint(i))
		}
		a.put(t, "u", "u")
		for i := range 3 {
			m := v5.recv()
			if v5.ackFor(m); m.payload != fmt.Sprint(i) || m.qos != 1 {
				t.Errorf("got %+v, want %d", m, i)
			}
			if m := v3.recv(); m.payload != fmt.Sprint(i) || m.qos != 0 {
				t.Errorf("3.1.1 got %+v, want %d", m, i)
			}
		}
		if m := v5.recv(); m.payload != "u" {
			t.Errorf("got %+v, want u", m)
		}
		v3.quiet()
	})
}

func TestAGroupOfTwoNodesUsesTheRoomOfBoth(t *testing.T) {
	twoNodes(t, func(t *testing.T, a, b *edge) {
		on := map[string]*raw{}
		for name, e := range map[string]*edge{"a": a, "b": b} {
			on[name] = pipeIn(t, e, true, name, 0x21, 0, 2) // two in flight
			on[name].subscribe(1, 1, "$share/g/t")
		}
		time.Sleep(10 * time.Millisecond)
		for i := range 5 {
			a.put(t, "t", fmt.Sprint(i))
		}
		time.Sleep(10 * time.Millisecond)
		var got []string
		inFlight := map[*raw]message{}
		for _, m := range on {
			for range 2 {
				p := m.recv()
				got = append(got, p.payload)
				inFlight[m] = p
			}
			m.quiet()
		}
		for m, p := range inFlight { // one of them has the last, and makes room for it
			m.ackFor(p)
			time.Sleep(10 * time.Millisecond)
			if head, body := m.pingOr(); head>>4 == 3 {
				got = append(got, m.parse(head, body).payload)
			}
		}
		slices.Sort(got)
		if fmt.Sprint(got) != "[0 1 2 3 4]" {
			t.Errorf("the two nodes have %v", got)
		}
	})
}
