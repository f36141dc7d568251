package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
)

// harness is a store under test and what it told.
type harness struct {
	*testing.T
	place  Place
	store  broker.Store
	events *events
	ids    uint64
	slept  time.Duration
	live   bool // in real time, where things follow a moment later
}

// What real time costs at most: a longer sleep is left to fake time, and what
// is to follow is waited for that long.
const (
	liveSleep = 1500 * time.Millisecond
	liveWait  = 5 * time.Second
	liveQuiet = 100 * time.Millisecond
)

// quiet waits until nothing is under way.
func (h *harness) quiet() {
	if h.live {
		<-time.After(liveQuiet)
		return
	}
	synctest.Wait()
}

// follows waits until events have come, or none can.
func (h *harness) follows(count func() int) {
	if !h.live {
		synctest.Wait()
		return
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); <-time.After(liveQuiet) {
		h.events.mu.Lock()
		n := count()
		h.events.mu.Unlock()
		if n > 0 {
			return
		}
	}
}

// grace is how much later than asked a wait may end.
func (h *harness) grace() time.Duration {
	if h.live {
		return liveWait
	}
	return 5 * time.Millisecond
}

// becomes waits until ok is true, and reports whether it was.
func (h *harness) becomes(ok func() bool) bool {
	if !h.live {
		synctest.Wait()
		return ok()
	}
	for end := time.Now().Add(liveWait); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// open opens the store and binds its events.
func (h *harness) open() {
	h.Helper()
	s := h.place.Open(h.T)
	h.Cleanup(func() { _ = s.Close(context.Background()) }) // after a failure
	h.store = s
	h.events = &events{}
	h.store.Bind(h.events)
}

// close verifies the store and closes it.
func (h *harness) close() {
	h.Helper()
	h.check()
	if err := h.store.Close(context.Background()); err != nil {
		h.Fatalf("close: %v", err)
	}
	if v, ok := h.place.(Verifier); ok {
		if err := v.Verify(); err != nil {
			h.Fatalf("what it left behind: %v", err)
		}
	}
}

// check has the store verify its books.
func (h *harness) check() {
	h.Helper()
	h.quiet()
	if c, ok := h.store.(Checker); ok && h.store.State().Err == nil {
		if err := c.Check(); err != nil {
			h.Fatalf("the store's own check: %v", err)
		}
	}
	if st := h.store.State(); st.Lag == 0 && st.Err == nil {
		h.weighs()
	}
}

// sleep lets time pass, which in a bubble takes none.
func (h *harness) sleep(d time.Duration) {
	h.Helper()
	if h.slept += d; h.live && h.slept > liveSleep {
		h.Skipf("%s have to pass: that is for fake time", d)
	}
	<-time.After(d)
}

// reopen closes the store and opens it again.
func (h *harness) reopen() {
	h.Helper()
	h.close()
	h.open()
}

// keeps reports whether what is stored survives a reopen.
func (h *harness) keeps() bool { return h.store.State().Durability != broker.DurabilityMemory }

// queue defines a queue; d.Name is "q" if it has none.
func (h *harness) queue(d broker.Def) broker.Target {
	h.Helper()
	d.Kind = broker.QueueTarget
	return h.define(d, "q")
}

// stream defines a stream; d.Name is "s" if it has none.
func (h *harness) stream(d broker.Def) broker.Target {
	h.Helper()
	d.Kind = broker.StreamTarget
	return h.define(d, "s")
}

func (h *harness) define(d broker.Def, name string) broker.Target {
	h.Helper()
	if d.Name == "" {
		d.Name = name
	}
	t, err := h.store.Define(context.Background(), d)
	if err != nil {
		h.Fatalf("define %s: %v", d.Name, err)
	}
	return t
}

// target finds a target by name after a reopen.
func (h *harness) target(name string) broker.Target {
	h.Helper()
	ds, err := h.store.Definitions(context.Background())
	if err != nil {
		h.Fatalf("definitions: %v", err)
	}
	for _, d := range ds {
		if d.Def.Name == name {
			return d.Target
		}
	}
	h.Fatalf("no definition %q", name)
	return 0
}

// message returns a message with body as its payload.
func (h *harness) message(body string) *broker.Message {
	h.ids++
	m := &broker.Message{Topic: "t/" + body, Payload: []byte(body), Published: time.Now().UnixMilli(), QoS: 1}
	m.ID[15], m.ID[14] = byte(h.ids), byte(h.ids>>8)
	return m
}

// done is a Completion that can be waited for.
type done chan *broker.Batch

func (d done) Done(b *broker.Batch) { d <- b }

// submit submits one unit that build fills, and waits for it.
func (h *harness) submit(build func(b *broker.Batch)) broker.Result {
	h.Helper()
	b := &broker.Batch{}
	build(b)
	b.End()
	d := make(done, 1)
	h.store.Submit(b, broker.Durable, d)
	return (<-d).Units[0].Result
}

// must is submit for a unit that has to succeed.
func (h *harness) must(build func(b *broker.Batch)) broker.Result {
	h.Helper()
	r := h.submit(build)
	if r.Err != nil {
		h.Fatalf("unit failed: %v", r.Err)
	}
	return r
}

// publish publishes one message for each body to a queue.
func (h *harness) publish(t broker.Target, bodies ...string) {
	h.Helper()
	for _, body := range bodies {
		h.must(func(b *broker.Batch) { b.Publish(h.message(body), broker.Route{Target: t}) })
	}
}

// sink collects the outcome of waits.
type sink chan *broker.Wait

func (s sink) Deliver(w *broker.Wait) { s <- w }

// wait registers a wait without waiting for it.
func (h *harness) wait(t broker.Target, limit int, lease, until time.Duration) *broker.Wait {
	w := &broker.Wait{Target: t, Max: limit, Lease: lease, Until: time.Now().Add(until), Sink: make(sink, 1)}
	h.store.Receive(w)
	return w
}

// receive takes what is there now.
func (h *harness) receive(t broker.Target, limit int, lease time.Duration) []broker.Delivery {
	h.Helper()
	if !h.live {
		return h.take(t, "", limit, lease)
	}
	got := h.outcome(h.wait(t, limit, lease, liveWait))
	for lease > 0 && len(got) > 0 && len(got) < limit { // what is ready may come in pieces
		more := h.take(t, "", limit-len(got), lease)
		if len(more) == 0 {
			break
		}
		got = append(got, more...)
	}
	return got
}

// take takes what is there now and matches a filter.
func (h *harness) take(t broker.Target, filter string, limit int, lease time.Duration) []broker.Delivery {
	h.Helper()
	w := &broker.Wait{Target: t, Filter: filter, Max: limit, Lease: lease, Sink: make(sink, 1)}
	h.store.Receive(w)
	return h.outcome(w)
}

// outcome waits for the end of w.
func (h *harness) outcome(w *broker.Wait) []broker.Delivery {
	h.Helper()
	<-w.Sink.(sink)
	if w.Err != nil {
		h.Fatalf("wait failed: %v", w.Err)
	}
	return w.Got
}

// cancel cancels w, and returns what it got before that.
func (h *harness) cancel(w *broker.Wait) []broker.Delivery {
	h.Helper()
	if h.store.Cancel(w) {
		return nil
	}
	return h.outcome(w)
}

// pending fails if w has ended.
func (h *harness) pending(w *broker.Wait) {
	h.Helper()
	h.quiet()
	select {
	case <-w.Sink.(sink):
		h.Fatalf("wait ended with %s and error %v, want it to wait on", bodies(w.Got), w.Err)
	default:
	}
}

// expect takes what is there and compares the bodies.
func (h *harness) expect(t broker.Target, want ...string) []broker.Delivery {
	h.Helper()
	if h.live && len(want) > 0 { // they are there soon
		first := h.outcome(h.wait(t, len(want), time.Minute, liveWait))
		got := slices.Clone(first)
		if len(got) < len(want) {
			got = append(got, h.receive(t, len(want)-len(got), time.Minute)...)
		}
		h.same(got, want...)
		return got
	}
	got := h.outcome(h.wait(t, 100, time.Minute, 0))
	h.same(got, want...)
	return got
}

// same compares the bodies of deliveries.
func (h *harness) same(got []broker.Delivery, want ...string) {
	h.Helper()
	if g, w := bodies(got), fmt.Sprint(want); g != w {
		h.Fatalf("got %s, want %s", g, w)
	}
}

// bodies returns the payloads of ds.
func bodies(ds []broker.Delivery) string {
	list := []string{}
	for i := range ds {
		list = append(list, string(ds[i].Payload))
	}
	return fmt.Sprint(list)
}

// settle settles one delivery and returns the error.
func (h *harness) settle(d broker.Delivery, why broker.Reason) error {
	return h.submit(func(b *broker.Batch) { b.Settle(d.Ref, why) }).Err
}

// ack acks deliveries.
func (h *harness) ack(ds ...broker.Delivery) {
	h.Helper()
	for _, d := range ds {
		if err := h.settle(d, broker.ReasonAcked); err != nil {
			h.Fatalf("ack of %s: %v", d.Payload, err)
		}
	}
}

// nack gives a delivery back.
func (h *harness) nack(d broker.Delivery, delay time.Duration) {
	h.Helper()
	h.must(func(b *broker.Batch) { b.Defer(d.Ref, time.Now().Add(delay), true) })
}

// fails compares an error.
func (h *harness) fails(got, want error) {
	h.Helper()
	if !errors.Is(got, want) {
		h.Fatalf("error is %v, want %v", got, want)
	}
}

// info returns the counts of a target.
func (h *harness) info(t broker.Target) broker.Info {
	h.Helper()
	if !h.live {
		synctest.Wait()
	}
	in, err := h.store.Info(context.Background(), t)
	if err != nil {
		h.Fatalf("info: %v", err)
	}
	return in
}

// counts compares ready, delayed, leased, held and dead.
func (h *harness) counts(t broker.Target, want string) {
	h.Helper()
	var got string
	if !h.becomes(func() bool {
		in := h.info(t)
		got = fmt.Sprintf("ready %d delayed %d leased %d held %d dead %d", in.Ready, in.Delayed, in.Leased, in.Held, in.Dead)
		return got == want
	}) {
		h.Fatalf("counts are %s, want %s", got, want)
	}
}

// payload compares the bytes of the payloads that a queue holds.
func (h *harness) payload(t broker.Target, want int64) {
	h.Helper()
	var got int64
	if !h.becomes(func() bool { got = h.info(t).Payload; return got == want }) {
		h.Fatalf("payloads take %d bytes, want %d", got, want)
	}
}

// read reads a target.
func (h *harness) read(t broker.Target, p broker.Pos, limit int) []broker.Delivery {
	h.Helper()
	ds, err := h.store.Read(context.Background(), t, p, limit, nil)
	if err != nil {
		h.Fatalf("read: %v", err)
	}
	return ds
}

// events records what the store told.
type events struct {
	mu      sync.Mutex
	lapsed  []lapsed
	dropped []string
}

type lapsed struct {
	target broker.Target
	why    broker.Reason
	d      broker.Delivery
}

func (e *events) Lapsed(t broker.Target, why broker.Reason, ds []broker.Delivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range ds {
		e.lapsed = append(e.lapsed, lapsed{t, why, d})
	}
}

func (e *events) Dropped(_ broker.Target, why broker.Reason, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropped = append(e.dropped, fmt.Sprint(why, " ", n))
}

// told returns what lapsed since the last call, after everything settled.
func (h *harness) told() []lapsed {
	h.follows(func() int { return len(h.events.lapsed) })
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	l := h.events.lapsed
	h.events.lapsed = nil
	return l
}

// droppedSince returns what was dropped since the last call.
func (h *harness) droppedSince() string {
	h.follows(func() int { return len(h.events.dropped) })
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	l := h.events.dropped
	h.events.dropped = nil
	return fmt.Sprint(l)
}
