package main_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/cmd/millrace/wire"
)

// leaseOf is how many seconds the consumers of traffic have: what died with one
// comes again soon.
const leaseOf = 5

// traffic publishes to queue e and consumes from it at all nodes, defines queues,
// and has devices with durable sessions go from node to node; it keeps book.
type traffic struct {
	f       *fleetOf
	round   int
	stop    context.CancelFunc
	work    sync.WaitGroup
	walkers []*walker

	mu      sync.Mutex
	apis    map[*server]*service
	stored  map[string]bool // its publish was acknowledged
	seen    map[string]bool
	settled map[string]bool // its acknowledgement was
	defined []string        // queues whose definition was
	wrong   []string
	last    time.Time
	gap     time.Duration // the longest between two acknowledged publishes
}

// newTraffic is the book of a round, before anything happens.
func (f *fleetOf) newTraffic(round int, stop context.CancelFunc) *traffic {
	return &traffic{f: f, round: round, stop: stop, apis: map[*server]*service{}, stored: map[string]bool{}, seen: map[string]bool{}, settled: map[string]bool{}}
}

func (f *fleetOf) begin(round int) *traffic {
	f.t.Helper()
	ctx, stop := context.WithCancel(f.t.Context())
	x := f.newTraffic(round, stop)
	for qos := byte(1); qos <= 2; qos++ {
		w := &walker{x: x, qos: qos, has: map[uint16]bool{}, seen: map[string]int{}}
		w.begin()
		x.walkers = append(x.walkers, w)
		x.work.Go(func() { w.walk(ctx, int(qos)) })
	}
	for i := range f.names {
		x.work.Go(func() { x.publish(ctx, i, i) })
		x.work.Go(func() { x.consume(ctx, i) })
	}
	x.work.Go(func() { x.define(ctx) })
	return x
}

// api is the HTTP client of a node.
func (x *traffic) api(s *server) *service {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.apis[s] == nil {
		x.apis[s] = newService(s)
	}
	return x.apis[s]
}

// fault notes a promise that was broken.
func (x *traffic) fault(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wrong = append(x.wrong, fmt.Sprintf(format, args...))
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// publish goes to the next node when one does not answer.
func (x *traffic) publish(ctx context.Context, name, at int) {
	for n := 0; ctx.Err() == nil; n++ {
		s := x.f.node(at)
		text := fmt.Sprintf("%d-%d-%05d", x.round, name, n)
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := x.api(s).call(one, http.MethodPost, "/topics/e/t/messages", map[string]any{"payload": text, "qos": 2}, nil)
		cancel()
		if err != nil {
			at++
			rest(ctx, 20*time.Millisecond)
			continue
		}
		x.mu.Lock()
		x.stored[text] = true
		if now := time.Now(); !x.last.IsZero() {
			x.gap = max(x.gap, now.Sub(x.last))
		}
		x.last = time.Now()
		x.mu.Unlock()
		rest(ctx, time.Millisecond)
	}
}

func (x *traffic) consume(ctx context.Context, at int) {
	for ctx.Err() == nil {
		api := x.api(x.f.node(at))
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		hs, err := api.consume(one, "e", 50, 1, leaseOf)
		if err == nil {
			x.take(one, api, hs)
		} else {
			at++
		}
		cancel()
	}
}

// take notes what was received, and acknowledges it.
func (x *traffic) take(ctx context.Context, api *service, hs []held) {
	x.mu.Lock()
	for _, h := range hs {
		text := string(h.bytes())
		x.seen[text] = true
		if x.settled[text] {
			x.wrong = append(x.wrong, text+" was acknowledged, and came again")
		}
	}
	x.mu.Unlock()
	for _, h := range hs {
		if api.ack(ctx, "e", h) == nil {
			x.mu.Lock()
			x.settled[string(h.bytes())] = true
			x.mu.Unlock()
		}
	}
}

// define makes queues at one node after the other. What one has answered the next
// must not deny.
func (x *traffic) define(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		rest(ctx, 500*time.Millisecond)
		name := fmt.Sprintf("made-%d-%d", x.round, n)
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := x.api(x.f.node(n)).call(one, http.MethodPost, "/queues", map[string]string{"name": name, "topic_filter": name + "/#"}, nil)
		if err == nil {
			x.mu.Lock()
			x.defined = append(x.defined, name)
			x.mu.Unlock()
			if _, err := x.api(x.f.node(n+1)).counts(one, name); err != nil && strings.Contains(err.Error(), "404") {
				x.fault("queue %s was made at one node, and another one says %v", name, err)
			}
		}
		cancel()
	}
}

// more waits until so many more publishes were acknowledged.
func (x *traffic) more(n int) {
	x.f.t.Helper()
	count := func() int {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.stored)
	}
	from := count()
	if !eventually(90*time.Second, func() bool { return count() >= from+n }) {
		x.f.t.Fatalf("within 90 s %d publishes were acknowledged, not %d", count()-from, n)
	}
}

// end stops the clients, takes out what is left, and looks at the books.
func (x *traffic) end() {
	t := x.f.t
	t.Helper()
	x.stop()
	x.work.Wait()
	x.drain()
	x.lacks("the queue", func(text string) bool { return x.seen[text] })
	if len(x.wrong) > 0 {
		x.comesLate()
	}
	for _, w := range x.walkers {
		w.finish()
		x.lacks(w.id(), func(text string) bool { return w.seen[text] > 0 })
	}
	for i := range x.f.names {
		for _, name := range x.defined {
			if _, err := x.api(x.f.node(i)).counts(t.Context(), name); err != nil {
				x.fault("queue %s was made: %v", name, err)
			}
		}
	}
	for _, name := range x.defined {
		if err := x.api(x.f.node(0)).call(t.Context(), http.MethodDelete, "/queues/"+name, nil, nil); err != nil {
			x.fault("delete queue %s: %v", name, err)
		}
	}
	for _, text := range x.wrong[:min(10, len(x.wrong))] {
		t.Error(text)
	}
	t.Logf("%d publishes, %d acknowledgements and %d definitions were answered, the longest gap between publishes was %s",
		len(x.stored), len(x.settled), len(x.defined), x.gap.Round(time.Millisecond))
}

// drain empties queue e. What was leased to a client that is gone comes again.
func (x *traffic) drain() {
	t := x.f.t
	t.Helper()
	api := x.api(x.f.node(0))
	if eventually(2*time.Minute, func() bool {
		hs, err := api.consume(t.Context(), "e", 100, 5, 60)
		if err == nil {
			x.take(t.Context(), api, hs)
		}
		n, err := api.counts(t.Context(), "e")
		return err == nil && n.Waiting+n.Held == 0
	}) {
		return
	}
	n, err := api.counts(t.Context(), "e")
	t.Errorf("%+v are left, %v", n, err)
}

// comesLate tells of what is missing whether the queue has it after all.
func (x *traffic) comesLate() {
	t := x.f.t
	t.Helper()
	api, before := x.api(x.f.node(0)), len(x.seen)
	n, err := api.counts(t.Context(), "e")
	t.Logf("the queue has %+v, %v", n, err)
	eventually(time.Minute, func() bool {
		if hs, err := api.consume(t.Context(), "e", 100, 5, 60); err == nil {
			x.take(t.Context(), api, hs)
		}
		return len(x.seen) > before
	})
	n, err = api.counts(t.Context(), "e")
	t.Logf("%d messages came after the queue had said that it is empty; it has %+v, %v", len(x.seen)-before, n, err)
}

// lacks looks for acknowledged publishes that somebody does not have.
func (x *traffic) lacks(who string, has func(text string) bool) {
	var lost []string
	for text := range x.stored {
		if !has(text) {
			lost = append(lost, text)
		}
	}
	slices.Sort(lost)
	if len(lost) > 0 {
		x.fault("of %d acknowledged publishes %s lacks %d: %v", len(x.stored), who, len(lost), lost)
	}
}

// walker is a device with a durable session that goes from node to node.
type walker struct {
	x    *traffic
	qos  byte
	has  map[uint16]bool // packets of QoS 2 that are not released
	seen map[string]int
}

func (w *walker) id() string { return fmt.Sprintf("walker%d-%d", w.x.round, w.qos) }

func (w *walker) dial(ctx context.Context, s *server) (*wire.Conn, error) {
	return wire.Dial(ctx, s.ports["mqtt"], wire.Login{ClientID: w.id(), User: testKeyID, Password: testSecret, Keep: true})
}

func (w *walker) begin() {
	t := w.x.f.t
	t.Helper()
	c, err := w.dial(t.Context(), w.x.f.node(0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Subscribe("e/#", w.qos); err != nil {
		t.Fatal(err)
	}
}

// walk is at each node for half a second.
func (w *walker) walk(ctx context.Context, at int) {
	for ; ctx.Err() == nil; at++ {
		c, err := w.dial(ctx, w.x.f.node(at))
		if err != nil {
			rest(ctx, 100*time.Millisecond)
			continue
		}
		w.take(ctx, c, 500*time.Millisecond, false)
	}
}

// finish takes what is still to come. A CONNECT that was given up may still end its
// connection.
func (w *walker) finish() {
	t := w.x.f.t
	begun := time.Now()
	for at := 0; w.lacks() > 0 && time.Since(begun) < time.Minute; at++ {
		c, err := w.dial(t.Context(), w.x.f.node(at))
		if err != nil {
			t.Logf("%s does not get in: %v", w.id(), err)
			rest(t.Context(), time.Second)
			continue
		}
		w.take(t.Context(), c, 20*time.Second, true)
	}
	w.x.forget(w.id())
}

// forget ends a durable session, which would keep what later rounds publish.
func (x *traffic) forget(id string) {
	c, err := wire.Dial(x.f.t.Context(), x.f.node(0).ports["mqtt"], wire.Login{ClientID: id, User: testKeyID, Password: testSecret})
	if err != nil {
		x.fault("%s does not end its session: %v", id, err)
		return
	}
	_, _ = c.Write(wire.AppendDisconnect(nil)) // the session ends at the end of the connection, too
	_ = c.Close()
}

// lacks is how many acknowledged publishes it has not.
func (w *walker) lacks() (n int) {
	w.x.mu.Lock()
	defer w.x.mu.Unlock()
	for text := range w.x.stored {
		if w.seen[text] == 0 {
			n++
		}
	}
	return n
}

// take answers what comes for so long, or until it has all.
func (w *walker) take(ctx context.Context, c *wire.Conn, d time.Duration, all bool) {
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	_ = c.SetDeadline(time.Now().Add(d))
	for left := w.lacks(); !all || left > 0; {
		p, err := c.Read1()
		if err != nil {
			return
		}
		var answer []byte
		switch p.Type {
		case wire.Publish:
			_, id, payload, _ := p.Message()
			text := string(payload)
			qos := p.Flags >> 1 & 3
			if qos == 2 && w.has[id] {
				answer = wire.AppendAck(nil, wire.Pubrec, id)
				break
			}
			if w.seen[text]++; w.seen[text] == 1 && all && w.x.stored[text] {
				left--
			}
			if qos == 1 {
				answer = wire.AppendAck(nil, wire.Puback, id)
				break
			}
			if w.has[id] = true; w.seen[text] > 1 {
				w.x.fault("%s came twice in QoS 2", text)
			}
			answer = wire.AppendAck(nil, wire.Pubrec, id)
		case wire.Pubrel:
			delete(w.has, p.ID())
			answer = wire.AppendAck(nil, wire.Pubcomp, p.ID())
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
