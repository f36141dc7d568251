package broker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// nobody is whose the sessions of these tests are.
var nobody = &auth.Principal{Kind: auth.Anonymous}

// edge is what a door has of clients: their sessions, which it closes when it is
// asked to.
type edge struct {
	*fixture
	mu       sync.Mutex
	sessions map[string]*broker.Session
	stuck    bool // does not close what it is asked to
	parted   []string
	heard    []broker.Elsewhere
}

func newEdge(f *fixture) *edge {
	e := &edge{fixture: f, sessions: map[string]*broker.Session{}}
	f.OnRelease(func(ctx context.Context, id string, why broker.Parting) {
		e.mu.Lock()
		s := e.sessions[id]
		if e.stuck {
			s = nil
		} else {
			delete(e.sessions, id)
		}
		e.parted = append(e.parted, fmt.Sprint(id, why))
		e.mu.Unlock()
		if s != nil {
			s.Close(ctx, false)
		}
	}, func(c broker.Elsewhere) {
		e.mu.Lock()
		e.heard = append(e.heard, c)
		e.mu.Unlock()
	})
	return e
}

// connect opens a session that is kept for an hour.
func (e *edge) connect(id string, change ...func(*broker.SessionOptions)) (*broker.Session, bool) {
	e.tb.Helper()
	o := broker.SessionOptions{ClientID: id, Principal: nobody, Expiry: 3600, Since: e.Now().UnixMilli()}
	for _, f := range change {
		f(&o)
	}
	s, present, err := e.OpenSession(e.ctx, o)
	if err != nil {
		e.tb.Fatalf("open the session of %s: %v", id, err)
	}
	e.mu.Lock()
	e.sessions[id] = s
	e.mu.Unlock()
	return s, present
}

// subscribe adds a subscription of QoS 1 or 2 that is recorded.
func (e *edge) subscribe(s *broker.Session, filter string, qos byte) {
	e.tb.Helper()
	if err := s.Subscribe(e.ctx, &broker.Subscription{Filter: filter, Principal: nobody, Sink: new(collector)}, broker.SubscriptionOptions{QoS: qos}); err != nil {
		e.tb.Fatal(err)
	}
	if err := s.Commit(e.ctx); err != nil {
		e.tb.Fatal(err)
	}
}

// asked returns why connections had to end, and forgets it.
func (e *edge) asked() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.parted
	e.parted = nil
	return p
}

// waiting are the messages in the backlog of a session.
func (e *edge) waiting(s *broker.Session) (list []string) {
	e.tb.Helper()
	ds, err := s.Waiting(e.ctx, 0, 100, nil)
	if err != nil {
		e.tb.Fatal(err)
	}
	for i := range ds {
		list = append(list, string(ds[i].Payload))
	}
	return list
}

// fromBacklog takes what waits for a session.
type fromBacklog struct {
	mu  sync.Mutex
	ds  []broker.Delivery
	off bool
}

func (c *fromBacklog) Credit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return 0
	}
	return 10
}

func (c *fromBacklog) Take(ds []broker.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ds = append(c.ds, ds...)
}

func (c *fromBacklog) Ended(error) {}
func (c *fromBacklog) Missed()     {}

func (c *fromBacklog) texts() (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.ds {
		list = append(list, string(c.ds[i].Payload))
	}
	return list
}

func wantList(tb testing.TB, what string, got []string, want ...string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestASessionMovesWithItsClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b, c := newEdge(s.start("a")), newEdge(s.start("b")), newEdge(s.start("c"))
		at, present := b.connect("x")
		if present {
			t.Error("a new session was there")
		}
		b.subscribe(at, "t/#", 2)
		c.publish("t/1", "one") // answered: no node routes by what was before
		wantList(t, "backlog", b.waiting(at), "one")
		took := &fromBacklog{}
		con := at.Receive(took)
		con.Kick()
		synctest.Wait()
		wantList(t, "delivered", took.texts(), "one")
		con.Close()
		pub := b.NewProducer(nobody, func([]broker.Outcome) {})
		pub.PublishOnce(&broker.Message{Topic: "u", QoS: 2}, 1, at, 7, false)
		pub.Flush()
		if err := b.Settled(b.ctx); err != nil {
			t.Fatal(err)
		}
		there, present := a.connect("x")
		if !present || !there.Moved() {
			t.Errorf("session present %t, moved %t", present, there.Moved())
		}
		wantList(t, "the edge was told", b.asked(), "x0")
		if got := there.Received(); !slices.Equal(got, []uint16{7}) {
			t.Errorf("packet ids that were received: %v", got)
		}
		ds, err := there.InFlight(a.ctx, 0, 10, nil)
		if err != nil || len(ds) != 1 || string(ds[0].Payload) != "one" {
			t.Errorf("in flight are %v, %v", ds, err)
		}
		b.publish("t/2", "two")
		wantList(t, "backlog", a.waiting(there), "two")
		for _, n := range []*edge{a, b, c} {
			wantList(t, "subscriptions", n.filters("x"), "t/#:2:0")
			if _, i, err := n.Session(n.ctx, "x"); err != nil || !i.Connected {
				t.Errorf("a node shows %+v, %v", i, err)
			}
		}
		there.Unsubscribe("t/#")
		if err := there.Commit(a.ctx); err != nil {
			t.Fatal(err)
		}
		if p := c.publish("t/3", "three"); p.Matched.Subscribers != 0 {
			t.Errorf("an ended subscription matched %+v", p.Matched)
		}
		there.Close(a.ctx, false)
		for _, n := range []*edge{a, b, c} {
			if _, i, err := n.Session(n.ctx, "x"); err != nil || i.Connected {
				t.Errorf("a node shows %+v, %v", i, err)
			}
		}
	})
}

func TestASessionOfManySubscriptionsMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b := newEdge(s.start("a")), newEdge(s.start("b"))
		at, _ := a.connect("x")
		var want []string
		for i := range 20 {
			filter := fmt.Sprintf("f/%02d", i)
			a.subscribe(at, filter, 1)
			want = append(want, filter+":1:0")
		}
		wantList(t, "subscriptions", b.filters("x"), want...)
		at.Unsubscribe("f/03")
		if err := at.Commit(a.ctx); err != nil {
			t.Fatal(err)
		}
		want = slices.Delete(want, 3, 4)
		wantList(t, "subscriptions", b.filters("x"), want...)
		there, _ := b.connect("x")
		b.subscribe(there, "f/99", 1)
		wantList(t, "subscriptions", a.filters("x"), append(want, "f/99:1:0")...)
	})
}

func TestASessionEndsOnAllNodesOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		first := s.Join("a")
		a := newEdge(s.open(first))
		b, c := newEdge(s.start("b")), newEdge(s.start("c"))
		_, subbed := c.listen("will/#")
		leave := func(e *edge, id string, expiry uint32) {
			e.connect(id, func(o *broker.SessionOptions) {
				o.Expiry = expiry
				o.Will = &broker.Will{Message: broker.Message{Topic: "will/" + id, Payload: []byte(id), QoS: 1}, Delay: time.Minute}
			})
			e.mu.Lock()
			held := e.sessions[id]
			e.mu.Unlock()
			e.subscribe(held, "t", 1)
			held.Close(e.ctx, false)
		}
		leave(b, "short", 10)
		leave(b, "long", 120)
		leave(a, "away", 120)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		wantText(t, "wills", subbed.take(), "short")
		if p := c.publish("t", "x"); p.Matched.Subscribers != 2 {
			t.Errorf("matched %+v", p.Matched)
		}
		first.Kill()
		time.Sleep(50 * time.Second)
		synctest.Wait()
		got := subbed.take()
		slices.Sort(got)
		wantText(t, "wills", got, "away", "long")
		time.Sleep(time.Minute)
		synctest.Wait()
		wantText(t, "wills", subbed.take())
		if p := c.publish("t", "x"); p.Matched.Subscribers != 0 {
			t.Errorf("sessions are there after their time: %+v", p.Matched)
		}
		time.Sleep(time.Minute)
		defs, err := s.store.Definitions(c.ctx)
		if err != nil || len(defs) != 1 {
			t.Errorf("backlogs are left: %+v, %v", defs, err)
		}
	})
}

// TestTheClientsOfADeadNodeAreGone has wills published once, counted from the
// death, and sessions that end counted from then.
func TestTheClientsOfADeadNodeAreGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a := newEdge(s.start("a"))
		second := s.Join("b")
		b := newEdge(s.open(second))
		c := newEdge(s.start("c"))
		_, heard := c.listen("will/#")
		will := func(o *broker.SessionOptions) {
			o.Will = &broker.Will{Message: broker.Message{Topic: "will/" + o.ClientID, Payload: []byte(o.ClientID), QoS: 1}}
		}
		b.connect("clean", will, func(o *broker.SessionOptions) { o.Expiry = 0 })
		b.connect("kept", will)
		b.connect("delayed", will, func(o *broker.SessionOptions) { o.Will.Delay = 30 * time.Second })
		b.connect("back", will, func(o *broker.SessionOptions) { o.Will.Delay = 30 * time.Second })
		time.Sleep(time.Minute)
		synctest.Wait()
		wantText(t, "wills of clients that are connected", heard.take())
		second.Kill()
		synctest.Wait()
		got := heard.take()
		slices.Sort(got)
		wantText(t, "wills at the death", got, "clean", "kept")
		if _, i, err := a.Session(a.ctx, "kept"); err != nil || i.Connected {
			t.Errorf("a session of a dead node is %+v, %v", i, err)
		}
		if s, present := a.connect("back"); !present || s.Moved() {
			t.Error("a session of a dead node was not there, or not free")
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		wantText(t, "delayed wills", heard.take(), "delayed")
		time.Sleep(2 * time.Hour)
		if n := len(slices.Collect(c.Sessions())); n != 1 {
			t.Errorf("%d sessions are left, want the one that is connected", n)
		}
	})
}

// TestANodeThatLeadsAfterTheDeathOfTheLeaderTakesItsSessionsIn.
func TestTheNextLeaderTakesInTheSessionsOfTheLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		first := s.Join("a")
		a := newEdge(s.open(first))
		b := newEdge(s.start("b"))
		_, heard := b.listen("will/#")
		a.connect("x", func(o *broker.SessionOptions) {
			o.Will = &broker.Will{Message: broker.Message{Topic: "will/x", Payload: []byte("x"), QoS: 1}}
		})
		first.Kill()
		synctest.Wait()
		wantText(t, "wills", heard.take(), "x")
		if _, i, err := b.Session(b.ctx, "x"); err != nil || i.Connected {
			t.Errorf("the session is %+v, %v", i, err)
		}
	})
}

func TestSessionsOfANodeThatIsAloneEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a := newEdge(s.start("a"))
		second := s.Join("b")
		b := newEdge(s.open(second))
		held, _ := b.connect("x")
		b.subscribe(held, "t", 1)
		second.CutOff()
		synctest.Wait()
		wantList(t, "the edge was told", b.asked(), "x1")
		_, _, err := b.OpenSession(b.ctx, broker.SessionOptions{ClientID: "x", Principal: nobody, Expiry: 3600})
		wantKind(t, err, broker.Unavailable, broker.NoSubject)
		there, present := a.connect("x")
		if !present {
			t.Error("the session was not free")
		}
		a.subscribe(there, "u", 1)
		second.Reconnect()
		time.Sleep(2 * time.Second)
		wantList(t, "subscriptions", b.filters("x"), "t:1:0", "u:1:0")
		if _, present := b.connect("x"); !present {
			t.Error("the session did not move back")
		}
	})
}

func TestOtherNodesHearWhoHasConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b := newEdge(s.start("a")), newEdge(s.start("b"))
		o := broker.SessionOptions{ClientID: "x", Principal: nobody, Clean: true, Since: 5}
		if s, _, err := a.OpenSession(a.ctx, o); s != nil || err != nil {
			t.Fatal(s, err)
		}
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if want := (broker.Elsewhere{ClientID: "x", Identity: "anonymous", Since: 5}); len(b.heard) != 1 || b.heard[0] != want || len(a.heard) != 0 {
			t.Errorf("the other node heard %+v, this one %+v", b.heard, a.heard)
		}
	})
}

func TestAnotherIdentityDoesNotTakeASessionOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b := newEdge(s.start("a")), newEdge(s.start("b"))
		a.connect("x")
		_, _, err := b.OpenSession(b.ctx, broker.SessionOptions{ClientID: "x", Principal: admin, Expiry: 3600})
		wantKind(t, err, broker.Conflict, broker.ClientSubject)
		wantList(t, "the edge was told", a.asked())
	})
}

func TestASharedSubscriptionOfSessionsIsOneOnAllNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b := newEdge(s.start("a")), newEdge(s.start("b"))
		const filter = "$share/g/t/#"
		at, _ := a.connect("x")
		bt, _ := b.connect("y")
		for _, m := range []struct {
			*edge
			s *broker.Session
		}{{a, at}, {b, bt}} {
			if err := m.s.Share(m.ctx, filter, broker.SubscriptionOptions{QoS: 1}); err != nil {
				t.Fatal(err)
			}
			if err := m.s.Commit(m.ctx); err != nil {
				t.Fatal(err)
			}
		}
		ta, tb := &fromBacklog{}, &fromBacklog{}
		ca, has := a.SharedConsumer(filter, ta)
		cb, _ := b.SharedConsumer(filter, tb)
		if has == nil {
			t.Fatal("there is no backlog")
		}
		ca.Kick()
		cb.Kick()
		for i := range 10 {
			[]*edge{a, b}[i%2].publish("t/1", fmt.Sprint(i))
		}
		synctest.Wait()
		all := append(ta.texts(), tb.texts()...)
		slices.Sort(all)
		wantList(t, "both together", all, "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
		if !ca.Shared() {
			t.Error("leases are not to be extended")
		}
		ca.Close()
		cb.Close()
		at.Unsubscribe(filter)
		bt.Unsubscribe(filter)
		if err := at.Commit(a.ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if c, _ := b.SharedConsumer(filter, tb); c == nil {
			t.Error("the backlog is gone while a member is there")
		}
		if err := bt.Commit(b.ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if c, _ := b.SharedConsumer(filter, tb); c != nil {
			t.Error("the backlog is there although nobody is a member")
		}
	})
}

func TestASessionOfAnotherNodeIsChangedThereOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := share(t, "")
		a, b := newEdge(s.start("a")), newEdge(s.start("b"))
		a.connect("x")
		there, _, err := b.Session(b.ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, there.SubscribeAway(b.ctx, "t", broker.SubscriptionOptions{QoS: 1}), broker.Unavailable, broker.ClientSubject)
		if err := b.EndSession(b.ctx, "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		wantList(t, "the edge was told", a.asked(), "x0")
		for _, n := range []*edge{a, b} {
			_, _, err := n.Session(n.ctx, "x")
			wantKind(t, err, broker.NotFound, broker.ClientSubject)
		}
	})
}
