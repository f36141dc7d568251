package jetstream_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// clients is a store with sessions, on one server.
type clients struct {
	*testing.T
	*jetstream.Store
	c    *jetstreamtest.Cluster
	o    jetstream.Options
	told heard
	ids  uint64
}

// inBubble runs f over one server in fake time.
func inBubble(t *testing.T, f func(x *clients)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		x := &clients{T: t, c: c, o: jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{c.Dial()}}}
		x.start()
		f(x)
		x.end()
	})
}

func (x *clients) start() {
	x.Helper()
	x.Store, x.told = open(x.T, x.o), make(heard, 100)
	x.Bind(x.told)
}

func (x *clients) end() {
	x.Helper()
	if err := x.Close(x.Context()); err != nil {
		x.Error(err)
	}
}

func (x *clients) session(name string) broker.Target {
	x.Helper()
	t, err := x.Define(x.Context(), broker.Def{Name: name, Kind: broker.SessionTarget})
	if err != nil {
		x.Fatal(err)
	}
	return t
}

// message returns one with an id of its own.
func (x *clients) message(body string) *broker.Message {
	x.ids++
	m := &broker.Message{Topic: "t", Payload: []byte(body), QoS: 1}
	binary.BigEndian.PutUint64(m.ID[8:], x.ids)
	return m
}

func (x *clients) publish(body string, to ...broker.Target) error {
	x.Helper()
	return commit(x.Store, func(b *broker.Batch) { b.Publish(x.message(body), routes(to)...) }).Err
}

func routes(to []broker.Target) []broker.Route {
	list := make([]broker.Route, len(to))
	for i, t := range to {
		list[i] = broker.Route{Target: t, Tag: 1}
	}
	return list
}

func (x *clients) ack(ds ...broker.Delivery) {
	x.Helper()
	for i := range ds {
		if r := commit(x.Store, func(b *broker.Batch) { b.Settle(ds[i].Ref, broker.ReasonAcked) }); r.Err != nil {
			x.Errorf("ack of %s: %v", ds[i].Payload, r.Err)
		}
	}
}

// expect takes all that is there.
func (x *clients) expect(s broker.Target, want ...string) []broker.Delivery {
	x.Helper()
	got := take(x.Store, s, 10_000, 1000*time.Hour, 0)
	if len(got) != len(want) {
		x.Fatalf("%d messages are there, want %d", len(got), len(want))
	}
	for i := range got {
		if string(got[i].Payload) != want[i] {
			x.Fatalf("message %d is %s, want %s", i, got[i].Payload, want[i])
		}
	}
	return got
}

// logged is how many messages the log holds.
func (x *clients) logged() uint64 { return x.held("mr_log") }

// TestAPublishIsOneMessageForAllSessions, and finds them after a crash.
func TestAPublishIsOneMessageForAllSessions(t *testing.T) {
	inBubble(t, func(x *clients) {
		all := make([]broker.Target, 2000)
		for i := range all {
			all[i] = x.session(fmt.Sprint("c", i))
		}
		if err := x.publish("a", all...); err != nil {
			x.Fatal(err)
		}
		if n := x.logged(); n != 1 {
			x.Fatalf("the log holds %d messages for one publish", n)
		}
		for _, s := range all[:1000] {
			x.ack(x.expect(s, "a")...)
		}
		x.Crash()
		x.start()
		for i, s := range all {
			if i < 1000 {
				x.expect(s)
			} else {
				x.ack(x.expect(s, "a")...)
			}
		}
		<-time.After(time.Minute)
		if n := x.logged(); n != 0 {
			x.Errorf("the log holds %d messages that nobody waits for", n)
		}
	})
}

// TestASessionThatStaysAwayKeepsWhatIsItsOwn, and not what comes after that for
// others.
func TestASessionThatStaysAwayKeepsWhatIsItsOwn(t *testing.T) {
	inBubble(t, func(x *clients) {
		away, busy := x.session("away"), x.session("busy")
		if err := x.publish("kept", away); err != nil {
			x.Fatal(err)
		}
		for range 3 {
			for i := range 800 {
				if err := x.publish(fmt.Sprint(i), busy); err != nil {
					x.Fatal(err)
				}
			}
			x.ack(take(x.Store, busy, 800, time.Hour, 0)...)
			<-time.After(10 * time.Second)
		}
		if n := x.logged(); n > 1001 {
			x.Errorf("the log holds %d messages, of which one is waited for", n)
		}
		x.Crash()
		x.start()
		x.expect(busy)
		x.expect(away, "kept")
	})
}

// TestACrashLosesNoSettlement and no message; what was sent is known if that is
// longer ago than a second.
func TestACrashLosesNoSettlement(t *testing.T) {
	inBubble(t, func(x *clients) {
		s := x.session("c")
		for _, body := range []string{"a", "b", "c", "d", "e"} {
			if err := x.publish(body, s); err != nil {
				x.Fatal(err)
			}
		}
		got := take(x.Store, s, 3, 1000*time.Hour, 0)
		x.ack(got[1])
		<-time.After(2 * time.Second)
		x.Crash()
		x.start()
		ds, err := x.Read(x.Context(), s, broker.Pos{States: broker.Leased}, 10, nil)
		if err != nil || len(ds) != 2 || ds[0].Seq != got[0].Seq || ds[1].Seq != got[2].Seq || ds[0].Attempt != 1 || ds[0].Tag != 1 {
			x.Fatalf("leased are %+v, %v; want a and c", ds, err)
		}
		x.ack(ds...)
		x.ack(x.expect(s, "d", "e")...)
		in, err := x.Info(x.Context(), s)
		if err != nil || in.In != 5 || in.Out[broker.ReasonAcked] != 5 || in.Difference() != 0 {
			x.Errorf("the books are %+v, %v", in, err)
		}
	})
}

// TestARepeatWithItsKeyIsStoredOnce is what a publish of QoS 2 comes to of which
// nobody knew whether it was stored.
func TestARepeatWithItsKeyIsStoredOnce(t *testing.T) {
	inBubble(t, func(x *clients) {
		s := x.session("c")
		q, err := x.Define(x.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget, MaxMessages: 1})
		if err != nil {
			x.Fatal(err)
		}
		m := x.message("a")
		once := func(m *broker.Message, key string) error {
			return commit(x.Store, func(b *broker.Batch) {
				b.Publish(m, routes([]broker.Target{s, q})...)
				b.Put(broker.SpaceSessions, key, m.ID[:], 0)
			}).Err
		}
		for range 2 {
			if err := once(m, "k"); err != nil {
				x.Fatal(err)
			}
			x.Crash()
			x.start()
			if in, err := x.Info(x.Context(), q); err != nil || in.Ready != 1 {
				x.Fatalf("the queue has %d, %v", in.Ready, err)
			}
		}
		x.ack(x.expect(s, "a")...)
		x.ack(take(x.Store, q, 2, time.Minute, time.Second)...)

		// One that is refused leaves no key.
		if err := x.publish("fills", q); err != nil {
			x.Fatal(err)
		}
		if err := once(x.message("b"), "l"); !errors.Is(err, broker.ErrFull) {
			x.Errorf("a publish into a full queue answers %v", err)
		}
		synctest.Wait()
		if e, err := x.Get(x.Context(), broker.SpaceSessions, "l"); !errors.Is(err, broker.ErrNotFound) {
			x.Errorf("its key is %+v, %v", e, err)
		}
		x.expect(s)
	})
}

// TestSessionsOutliveAServerThatRestarts.
func TestSessionsOutliveAServerThatRestarts(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	x := &clients{T: t, c: c, o: jetstream.Options{URL: c.URL()}}
	x.start()
	s := x.session("c")
	for round := range 3 {
		body := fmt.Sprint(round)
		restarted := make(chan struct{})
		go func() { c.Restart(t, 0); close(restarted) }()
		if err := x.publish(body, s); err != nil {
			t.Fatalf("a publish while the server is away answers %v", err)
		}
		<-restarted
		got := take(x.Store, s, 1, time.Hour, time.Minute)
		if len(got) != 1 || string(got[0].Payload) != body {
			t.Fatalf("got %d messages, want %s", len(got), body)
		}
		x.ack(got...)
	}
	x.end()
}

// TestSessionsSettleWhileNATSIsFull, which makes room.
func TestSessionsSettleWhileNATSIsFull(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *server.Options) { o.JetStreamMaxStore = 16 << 20 }})
	x := &clients{T: t, c: c, o: jetstream.Options{URL: c.URL()}}
	x.start()
	s := x.session("c")
	body := string(make([]byte, 512<<10))
	n := 0
	for err := error(nil); err == nil; n++ {
		if err = x.publish(body, s); err != nil && !errors.Is(err, broker.ErrFull) || n > 100 {
			t.Fatalf("publish %d answers %v", n, err)
		}
	}
	for range n - 1 {
		got := take(x.Store, s, 1, time.Hour, time.Minute)
		if len(got) != 1 {
			t.Fatal("nothing comes")
		}
		x.ack(got...)
	}
	for end := time.Now().Add(time.Minute); x.logged() > 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the log does not become empty")
		}
	}
	if err := x.publish(body, s); err != nil {
		t.Errorf("a publish after that answers %v", err)
	}
	x.end()
}

// TestAWaitThatConsumesASession has what is not at hand, too.
func TestAWaitThatConsumesASession(t *testing.T) {
	inBubble(t, func(x *clients) {
		s := x.session("s")
		x.publishAll(bodies(0, 50), s)
		for from := range 5 {
			w := &broker.Wait{Target: s, Max: 10, Consume: true, Until: x.Now().Add(time.Minute), Sink: make(waited, 1)}
			x.Receive(w)
			<-w.Sink.(waited)
			var got []string
			for i := range w.Got {
				got = append(got, string(w.Got[i].Payload))
			}
			if !slices.Equal(got, bodies(10*from, 10)) || w.Err != nil {
				x.Fatalf("got %q, %v", got, w.Err)
			}
			if from == 2 {
				x.Crash()
				x.start()
			}
		}
		x.expect(s)
	})
}

// TestWhatAClientHasIsSettledByAnyOfItsDeliveries: the node that leads may have sent the
// message again meanwhile, and there is nobody else who could have it.
func TestWhatAClientHasIsSettledByAnyOfItsDeliveries(t *testing.T) {
	inBubble(t, func(x *clients) {
		c := x.session("c")
		if err := x.publish("a", c); err != nil {
			x.Fatal(err)
		}
		first := x.expect(c, "a")
		give := func(d broker.Delivery) error {
			return commit(x.Store, func(b *broker.Batch) { b.Defer(d.Ref, x.Now(), true) }).Err
		}
		if err := give(first[0]); err != nil {
			x.Fatal(err)
		}
		if again := x.expect(c, "a"); again[0].Attempt != 2 {
			x.Fatalf("%+v", again)
		}
		if err := give(first[0]); !errors.Is(err, broker.ErrStale) {
			x.Errorf("an older delivery is given back: %v", err)
		}
		x.ack(first...)
		x.expect(c)
		x.Crash()
		x.start()
		x.expect(c)
	})
}
