package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"millrace/broker"
	"millrace/broker/clustertest"
	"millrace/router"
)

// peerStep is one thing that happens on one of three nodes.
type peerStep struct {
	do     string
	node   int
	filter string // or topic
	qos    byte
	which  int // of the subscriptions there are
}

func genPeerStep(t *rapid.T) peerStep {
	return peerStep{
		do:     rapid.SampledFrom([]string{"subscribe", "subscribe", "unsubscribe", "publish", "publish", "publish", "stop", "start", "forget"}).Draw(t, "do"),
		node:   rapid.IntRange(0, 2).Draw(t, "node"),
		filter: rapid.SampledFrom([]string{"a", "a/b", "a/+", "#", "+/b", "a/#", "c", "$share/g/a/#", "$share/h/+", "$share/g/c"}).Draw(t, "filter"),
		qos:    byte(rapid.IntRange(0, 2).Draw(t, "qos")),
		which:  rapid.IntRange(0, 1000).Draw(t, "which"),
	}
}

// peerModel is three nodes and who must have which messages.
type peerModel struct {
	t     *testing.T
	bus   *clustertest.Bus
	names []string
	nodes []*fixture // nil: stopped
	on    []*clustertest.Node
	subs  []*peerSub
	lossy bool
	n     int
}

// peerSub is one subscription, and what it has to get.
type peerSub struct {
	node   int
	filter string
	sub    *broker.Subscription
	r      *recorder
	want   []string
	maybe  []string // for its group
}

func (m *peerModel) start(i int) {
	m.nodes[i], m.on[i] = start(m.t, m.bus, m.names[i])
}

func (m *peerModel) step(s peerStep) error {
	f := m.nodes[s.node]
	switch {
	case s.do == "start" && f == nil:
		m.start(s.node)
	case f == nil:
	case s.do == "subscribe":
		sub, r := f.listen(s.filter)
		m.subs = append(m.subs, &peerSub{node: s.node, filter: s.filter, sub: sub, r: r})
	case s.do == "unsubscribe" && len(m.subs) > 0:
		i := s.which % len(m.subs)
		m.nodes[m.subs[i].node].Unsubscribe(m.subs[i].sub)
		err := m.check(m.subs[i])
		m.subs = slices.Delete(m.subs, i, i+1)
		m.settle()
		return err
	case s.do == "publish":
		return m.publish(f, s)
	case s.do == "stop":
		m.settle()
		if err := m.checkAll(); err != nil {
			return err
		}
		m.bus.Leave(m.on[s.node])
		m.nodes[s.node] = nil
		m.subs = slices.DeleteFunc(m.subs, func(x *peerSub) bool { return x.node == s.node })
	case s.do == "forget": // a node is cut off from another for a while
		if to := m.nodes[(s.node+1)%3]; to != nil {
			n := m.on[(s.node+1)%3].Info
			m.on[s.node].Events(func(e broker.ClusterEvents) { e.Left(n) })
			m.on[s.node].Events(func(e broker.ClusterEvents) { e.Joined(n) })
			time.Sleep(3 * time.Second)
		}
	}
	return nil
}

// publish publishes a text that no other message has, and notes who must have it.
func (m *peerModel) publish(f *fixture, s peerStep) error {
	topic := []string{"a", "a/b", "c", "d", "b/b"}[s.which%5]
	m.n++
	text := fmt.Sprintf("%d %s", m.n, topic)
	wanted := false
	for _, x := range m.subs {
		if !router.Match(x.sub.Filter, topic) {
			continue
		}
		wanted = true
		if x.sub.Share != "" {
			x.maybe = append(x.maybe, text)
		} else {
			x.want = append(x.want, text)
		}
	}
	if got := f.say(s.qos, topic, text); got.Subscribers > 0 != wanted {
		return fmt.Errorf("%s matched %+v, want any: %v", text, got, wanted)
	}
	m.settle()
	return m.checkAll()
}

// settle lets all that is under way arrive.
func (m *peerModel) settle() {
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

// check wants that a subscription has got what it had to, once and in order.
func (m *peerModel) check(x *peerSub) error {
	if x.sub.Share != "" {
		return nil
	}
	got := x.r.take()
	if m.lossy {
		for _, g := range got {
			i := slices.Index(x.want, g)
			if i < 0 {
				return fmt.Errorf("%s on node %d got %q, which it should not, or not again", x.filter, x.node, g)
			}
			x.want = x.want[i+1:]
		}
		x.want = nil
		return nil
	}
	if !slices.Equal(got, x.want) {
		return fmt.Errorf("%s on node %d got %q, want %q", x.filter, x.node, got, x.want)
	}
	x.want = nil
	return nil
}

// checkAll wants that for all, and that each group got its messages on one node.
func (m *peerModel) checkAll() error {
	got := map[string]map[string]map[int]bool{} // group, text, node
	for _, x := range m.subs {
		if err := m.check(x); err != nil {
			return err
		}
		if x.sub.Share == "" {
			continue
		}
		for _, text := range x.maybe {
			by := got[x.filter]
			if by == nil {
				by = map[string]map[int]bool{}
				got[x.filter] = by
			}
			if by[text] == nil {
				by[text] = map[int]bool{}
			}
		}
		for _, text := range x.r.take() {
			if !slices.Contains(x.maybe, text) {
				return fmt.Errorf("%s on node %d got %q, which it should not", x.filter, x.node, text)
			}
			got[x.filter][text][x.node] = true
		}
		x.maybe = nil
	}
	for filter, by := range got {
		for text, nodes := range by {
			if len(nodes) > 1 || len(nodes) == 0 && !m.lossy {
				return fmt.Errorf("%q went to %d nodes for %s", text, len(nodes), filter)
			}
		}
	}
	return nil
}

// books wants that what nodes have sent has come, or counts as lost.
func (m *peerModel) books() error {
	var sent, lost, received uint64
	for _, f := range m.nodes {
		st := f.Stats().Nodes
		sent, lost, received = sent+st.Sent, lost+st.Lost, received+st.Received
	}
	if sent != lost+received {
		return fmt.Errorf("%d sent, %d received, %d lost", sent, received, lost)
	}
	return nil
}

// Three nodes on which anything happens: whoever has subscribed gets everything
// that is published on any of them, once and in order, and nobody anything else.
func TestNodesDeliverAsOne(t *testing.T) { runPeerModel(t, false) }

// The same over a path that loses frames: at most once, in order, and counted.
func TestNodesThatLoseFramesDeliverAtMostOnce(t *testing.T) { runPeerModel(t, true) }

func runPeerModel(t *testing.T, lossy bool) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(genPeerStep), 1, 60).Draw(rt, "steps")
		losses := rapid.SliceOfN(rapid.Bool(), 1, 20).Draw(rt, "losses")
		var err error
		synctest.Test(t, func(t *testing.T) {
			m := &peerModel{t: t, bus: clustertest.New(t), names: []string{"a", "b", "c"}, nodes: make([]*fixture, 3), on: make([]*clustertest.Node, 3), lossy: lossy}
			m.bus.Delay = time.Millisecond
			for i := range m.nodes {
				m.start(i)
			}
			if lossy {
				m.bus.SetLoss(lossOf(losses))
				steps = slices.DeleteFunc(slices.Clone(steps), func(s peerStep) bool { return s.do == "stop" || s.do == "forget" })
			}
			for i, s := range steps {
				if err = m.step(s); err != nil {
					err = fmt.Errorf("step %d, %+v: %w", i, s, err)
					return
				}
			}
			if !lossy {
				return
			}
			m.bus.SetLoss(nil)
			for _, f := range m.nodes { // a last message tells what was missing before it
				_, _ = f.listen("last")
			}
			for _, f := range m.nodes {
				f.say(0, "last", "last")
			}
			m.settle()
			err = m.books()
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// lossOf loses the frames that the list says, over and over.
func lossOf(losses []bool) func(string) bool {
	n := 0
	return func(kind string) bool {
		if kind != "live" {
			return false
		}
		n++
		return losses[n%len(losses)]
	}
}
