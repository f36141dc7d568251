package jetstream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// answered is a Completion that hands batches back.
type answered chan *broker.Batch

func (a answered) Done(b *broker.Batch) { a <- b }

// heard keeps what lapsed.
type heard chan broker.Delivery

func (h heard) Lapsed(_ broker.Target, _ broker.Reason, ds []broker.Delivery) {
	for _, d := range ds {
		h <- d
	}
}
func (heard) Dropped(broker.Target, broker.Reason, int) {}

// waited is a WaitSink that is waited for.
type waited chan *broker.Wait

func (w waited) Deliver(x *broker.Wait) { w <- x }

// take receives what is there within d.
func take(s broker.Store, q broker.Target, limit int, lease, d time.Duration) []broker.Delivery {
	w := &broker.Wait{Target: q, Max: limit, Lease: lease, Until: s.Now().Add(d), Sink: make(waited, 1)}
	s.Receive(w)
	<-w.Sink.(waited)
	return w.Got
}

// commit submits one unit.
func commit(s broker.Store, build func(b *broker.Batch)) broker.Result {
	b := &broker.Batch{}
	build(b)
	b.End()
	done := make(answered, 1)
	s.Submit(b, broker.Durable, done)
	return (<-done).Units[0].Result
}

func send(t *testing.T, s broker.Store, q broker.Target, body string) {
	t.Helper()
	m := &broker.Message{Topic: "t", Payload: []byte(body), QoS: 1}
	copy(m.ID[:], body)
	if r := commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) }); r.Err != nil {
		t.Fatal(r.Err)
	}
}

// TestANodeThatDies has another take its place: nothing is lost, a lease of the
// dead one ends at its time, and a last attempt that died with it is told to the
// broker instead of being handed out once more.
func TestANodeThatDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{c.Dial()}}
		s := open(t, o)
		s.Bind(make(heard, 10))
		q, err := s.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			t.Fatal(err)
		}
		last, err := s.Define(t.Context(), broker.Def{Name: "last", Kind: broker.QueueTarget, LapseAt: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"a", "b", "c"} {
			send(t, s, q, body)
		}
		send(t, s, last, "x")
		leased := take(s, q, 2, time.Minute, time.Second)
		take(s, last, 1, time.Minute, time.Second)
		s.Crash()

		again := open(t, o)
		told := make(heard, 10)
		again.Bind(told)
		if got := take(again, q, 10, time.Minute, time.Second); len(got) != 1 || string(got[0].Payload) != "c" {
			t.Fatalf("%d are there at once, want c", len(got))
		}
		if in, err := again.Info(t.Context(), q); err != nil || in.Leased != 3 || in.Ready != 0 {
			t.Errorf("%+v, %v; want 3 leased", in, err)
		}
		if r := commit(again, func(b *broker.Batch) { b.Settle(leased[0].Ref, broker.ReasonAcked) }); r.Err != nil {
			t.Errorf("a receipt of before answers %v", r.Err)
		}
		if got := take(again, q, 10, time.Minute, time.Minute); len(got) != 1 || string(got[0].Payload) != "b" || got[0].Attempt != 2 {
			t.Errorf("%d come again, want b at its second attempt", len(got))
		}
		if got := take(again, last, 1, time.Minute, 2*time.Minute); len(got) != 0 {
			t.Errorf("the last attempt of a dead node is handed out again, as %d", got[0].Attempt)
		}
		if d := <-told; string(d.Payload) != "x" {
			t.Errorf("told of %q, want x", d.Payload)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestAServerThatRestarts has publishes and waits outlive it.
func TestAServerThatRestarts(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	s := open(t, jetstream.Options{URL: c.URL()})
	s.Bind(make(heard, 10))
	q, err := s.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []broker.Delivery, 1)
	go func() { got <- take(s, q, 1, time.Minute, time.Minute) }()
	sent := make(chan broker.Result, 1)
	restarted := make(chan struct{})
	go func() { c.Restart(t, 0); close(restarted) }()
	go func() {
		m := &broker.Message{Topic: "t", Payload: []byte("a"), ID: broker.ID{1}}
		sent <- commit(s, func(b *broker.Batch) { b.Publish(m, broker.Route{Target: q}) })
	}()
	if r := <-sent; r.Err != nil {
		t.Errorf("a publish while the server is away answers %v", r.Err)
	}
	<-restarted
	if ds := <-got; len(ds) != 1 || string(ds[0].Payload) != "a" {
		t.Errorf("the wait of before got %d", len(ds))
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
