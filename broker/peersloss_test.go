package broker_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/clustertest"
	"millrace/broker/fields"
)

func TestWhatIsLostOnTheWayIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		a, _ := start(t, bus, "a")
		b, _ := start(t, bus, "b")
		_, got := b.listen("t")
		dice := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		bus.SetLoss(func(kind string) bool {
			mu.Lock()
			defer mu.Unlock()
			return kind == "live" && dice.IntN(4) == 0
		})
		for i := range 1000 {
			a.say(0, "t", strconv.Itoa(i))
			synctest.Wait()
		}
		bus.SetLoss(nil)
		a.say(0, "t", "last")
		synctest.Wait()
		st, came := b.Stats().Nodes, got.take()
		if sent := a.Stats().Nodes.Sent; sent != 1001 || st.Received+st.Lost != sent || st.Received != uint64(len(came)) || st.Lost < 100 {
			t.Errorf("of %d messages %d came, %d were received and %d lost", sent, len(came), st.Received, st.Lost)
		}
		for i, last := 0, -1; i < len(came)-1; i++ {
			n, err := strconv.Atoi(came[i])
			if err != nil || n <= last {
				t.Fatalf("%s came after %d", came[i], last)
			}
			last = n
		}
	})
}

func TestInterestReachesOthersOverAPathThatLoses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		a, _ := start(t, bus, "a")
		b, _ := start(t, bus, "b")
		dice := rand.New(rand.NewPCG(3, 4))
		var mu sync.Mutex
		bus.SetLoss(func(string) bool {
			mu.Lock()
			defer mu.Unlock()
			return dice.IntN(3) == 0
		})
		r := &recorder{}
		var subs []*broker.Subscription
		for i := range 100 {
			s := &broker.Subscription{Filter: "t/" + strconv.Itoa(i), Principal: admin, Sink: r}
			if err := b.Subscribe(s); err != nil {
				t.Fatal(err)
			}
			if subs = append(subs, s); i%2 == 1 {
				b.Unsubscribe(subs[i-1])
			}
		}
		bus.SetLoss(nil)
		time.Sleep(10 * time.Second)
		for i := range 100 {
			if n := a.say(0, "t/"+strconv.Itoa(i), "x").Subscribers; n != i%2 {
				t.Errorf("filter %d: %d subscribers, want %d", i, n, i%2)
			}
		}
	})
}

func TestANodeThatIsFarBehindIsGivenACopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		a, _ := start(t, bus, "a")
		b, _ := start(t, bus, "b")
		r := &recorder{}
		subscribe := func(filter string) *broker.Subscription {
			s := &broker.Subscription{Filter: filter, Principal: admin, Sink: r}
			if err := b.Subscribe(s); err != nil {
				t.Fatal(err)
			}
			return s
		}
		stays, goes := subscribe("stays"), subscribe("goes")
		bus.SetLoss(func(kind string) bool { return kind == "interest" })
		b.Unsubscribe(goes)
		var all sync.WaitGroup
		for i := range 10_000 { // more than is kept of changes, and more than a message holds
			all.Go(func() {
				s := subscribe("a/filter/that/is/not/so/very/short/" + strconv.Itoa(i))
				if i%10 > 0 {
					b.Unsubscribe(s)
				}
			})
		}
		all.Wait()
		bus.SetLoss(nil)
		time.Sleep(5 * time.Second)
		for filter, want := range map[string]int{
			stays.Filter: 1, goes.Filter: 0, "a/filter/that/is/not/so/very/short/7": 0, "a/filter/that/is/not/so/very/short/9990": 1,
		} {
			if n := a.say(0, filter, "x").Subscribers; n != want {
				t.Errorf("%s: %d subscribers, want %d", filter, n, want)
			}
		}
		if n := a.Stats().Nodes.Repairs; n != 0 {
			t.Errorf("%d repairs of what was never wrong", n)
		}
	})
}

func TestANodeThatHasForgottenWhatAnotherWantsIsToldAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		a, an := start(t, bus, "a")
		b, bn := start(t, bus, "b")
		_, got := b.listen("t")
		_, _ = b.listen("$share/g/t")
		an.Events(func(e broker.ClusterEvents) { e.Left(bn.Info) })
		if m := a.say(0, "t", "x"); m.Subscribers != 0 {
			t.Errorf("%+v while the node is away", m)
		}
		an.Events(func(e broker.ClusterEvents) { e.Joined(bn.Info) })
		synctest.Wait()
		if m := a.say(0, "t", "back"); m.Subscribers != 2 {
			t.Errorf("%+v when it is back", m)
		}
		synctest.Wait()
		wantText(t, "subscriber", got.take(), "back")
		bus.SetLoss(func(kind string) bool { return kind == "digest" })
		an.Events(func(e broker.ClusterEvents) { e.Left(bn.Info) })
		an.Events(func(e broker.ClusterEvents) { e.Joined(bn.Info) })
		synctest.Wait()
		bus.SetLoss(nil)
		time.Sleep(2 * time.Second)
		if m := a.say(0, "t", "again"); m.Subscribers != 2 {
			t.Errorf("%+v when it has asked for what it lacks", m)
		}
		if n := a.Stats().Nodes.Repairs; n != 1 {
			t.Errorf("%d repairs, want 1", n)
		}
	})
}

func TestANodeThatLeavesIsForgottenAndOneThatComesIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		bus.Delay = 10 * time.Millisecond
		a, _ := start(t, bus, "a")
		b, bn := start(t, bus, "b")
		_, got := a.listen("t")
		_, _ = b.listen("t")
		bus.Leave(bn)
		if m := a.say(0, "t", "1"); m.Subscribers != 1 {
			t.Errorf("%+v after the node has left", m)
		}
		b, _ = start(t, bus, "b") // has been told before it is open
		if m := b.say(0, "t", "2"); m.Subscribers != 1 {
			t.Errorf("%+v on the node that has come", m)
		}
		time.Sleep(time.Second)
		wantText(t, "subscriber", got.take(), "1", "2")
	})
}

func TestASubscriberWaitsASecondForANodeThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		_, _ = start(t, bus, "a")
		b, _ := start(t, bus, "b")
		bus.SetLoss(func(kind string) bool { return kind == "interest" })
		began := time.Now()
		_, _ = b.listen("t")
		if d := time.Since(began); d != time.Second {
			t.Errorf("it took %v", d)
		}
		began = time.Now()
		_, _ = b.listen("$SYS/#")
		if d := time.Since(began); d != 0 {
			t.Errorf("what no other node has to know took %v", d)
		}
	})
}

func TestANodeThatIsSlowHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const room = 256 << 10
		bus := clustertest.New(t)
		a, an := start(t, bus, "a", func(o *broker.Options) { o.NodeBuffer = room })
		b, _ := start(t, bus, "b")
		_, got := b.listen("t")
		held := make(chan struct{})
		an.Hold(held)
		text := fmt.Sprintf("%01000d", 1)
		const n = 1000
		for range n {
			a.say(0, "t", text)
		}
		synctest.Wait()
		st := a.Stats().Nodes
		each := 6 + broker.SizeBound(&broker.Message{Topic: "t", Payload: []byte(text), Published: a.Now().UnixMilli()})
		if fits := uint64((room - 6*29) / each); st.Sent != fits || st.Sent+st.Shed != n { // less the heads of frames
			t.Errorf("of %d messages %d were kept, want %d, and %d let go", n, st.Sent, fits, st.Shed)
		}
		close(held)
		synctest.Wait()
		if came := got.take(); uint64(len(came)) != st.Sent {
			t.Errorf("%d came, want %d", len(came), st.Sent)
		}
		if st, want := a.Stats().Nodes, 1+(st.Sent+59)/60; st.Frames > want { // the first had one message
			t.Errorf("%d messages went in %d frames, want %d", st.Sent, st.Frames, want)
		}
		if lost := b.Stats().Nodes.Lost; lost != 0 {
			t.Errorf("%d that were never sent count as lost", lost)
		}
		a.say(0, "t", "again")
		synctest.Wait()
		wantText(t, "after that", got.take(), "again")
	})
}

func TestWhatCannotBeReadIsNoMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		a, an := start(t, bus, "a")
		b, bn := start(t, bus, "b")
		_, got := b.listen("#")
		var frames [][]byte
		an.SetTell(func(kind string, body []byte) {
			if kind == "live" {
				frames = append(frames, slices.Clone(body))
			}
		})
		a.say(1, "t", "x")
		synctest.Wait()
		bn.Hear("live", "nobody", frames[0])
		bn.Hear("live", "a", nil)
		whole := b.Stats().Nodes
		if whole.Received+whole.Lost != 0 {
			t.Errorf("%+v of nothing", whole)
		}
		for n := range frames[0] {
			bn.Hear("live", "a", frames[0][:n])
			for _, kind := range []string{"digest", "live"} {
				bad := slices.Clone(frames[0])
				bad[n] ^= 0xff
				bn.Hear(kind, "a", bad)
			}
		}
		got.take()
		bn.Hear("live", "a", frames[0])
		wantText(t, "subscriber", got.take(), "x")
	})
}

// TestMembersThatAPeerCountsAsNoneAreOne: it says that it has some, and there is no
// choosing among none.
func TestMembersThatAPeerCountsAsNoneAreOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const said, each = 300, 80
		bus := clustertest.New(t)
		a, _ := start(t, bus, "a")
		var got []*recorder
		for _, name := range []string{"b", "c"} {
			f, n := start(t, bus, name)
			_, r := f.listen("$share/g/t")
			got = append(got, r)
			synctest.Wait()
			tell := func(before, to uint64) uint64 {
				t.Helper()
				const format, changes, counted = 1, 1, 4
				body := append(binary.LittleEndian.AppendUint64([]byte{format}, n.Info.Start), changes)
				body = fields.AppendText(append(fields.AppendUints(body, before, to), counted), "$share/g/t")
				answer, err := n.Ask(f.ctx, "a", "interest", fields.AppendUints(body, 0))
				if err != nil {
					t.Fatal(err)
				}
				version, _ := binary.Uvarint(answer)
				return version
			}
			is := tell(0, 0) // follows nothing: the answer says what does
			if now := tell(is, is+1); now != is+1 {
				t.Fatalf("node a is at version %d of what %s wants, and was at %d", now, name, is)
			}
		}
		for range said {
			a.say(0, "t", "x")
		}
		time.Sleep(time.Second)
		b, c := len(got[0].take()), len(got[1].take())
		if b+c != said || min(b, c) < each {
			t.Errorf("of %d messages two members at other nodes have %d and %d", said, b, c)
		}
	})
}

func TestSubscribingTwiceIsOnceAndUnsubscribingToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := clustertest.New(t)
		a, _ := start(t, bus, "a")
		b, _ := start(t, bus, "b")
		for _, filter := range []string{"t", "$share/g/t", "$SYS/t", "$share/g/$SYS/t"} {
			s, _ := b.listen(filter)
			if err := b.Subscribe(s); err != nil {
				t.Fatal(err)
			}
			b.Unsubscribe(s)
			b.Unsubscribe(s)
		}
		synctest.Wait()
		if n := a.say(0, "t", "x").Subscribers; n != 0 {
			t.Errorf("%d subscribers remain", n)
		}
	})
}
