package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
	"millrace/persistence/jetstream/jetstreamtest"
)

// TestNodesComeAndGo has nodes killed, stopped and cut off while others publish,
// consume, define queues and take sessions over: nothing that was acknowledged is
// lost, or comes again.
func TestNodesComeAndGo(t *testing.T) {
	startNodes(t, "a", "b", "c").suffer(nodeFaults, 2)
}

// fault is what happens to a node, which leads or follows.
type fault struct {
	name     string
	follower bool
	do       func(x *traffic, name string)
	gap      time.Duration // between two publishes that are answered, at most; 0 = not promised
}

// suffer plays MILLRACE_NODES_ROUNDS rounds, one fault after the other, or a few. The gap
// between publishes counts where rounds are asked for: a machine that does much else
// beside may be late.
func (f *fleetOf) suffer(kinds []fault, few int64) {
	asked := fromEnv(f.t, "MILLRACE_NODES_ROUNDS", 0) > 0
	for n := range int(fromEnv(f.t, "MILLRACE_NODES_ROUNDS", few)) {
		what := kinds[n%len(kinds)]
		x := f.begin(n + 1)
		x.more(50)
		name := f.leader()
		if what.follower {
			name = f.names[(1+slices.Index(f.names, name))%len(f.names)]
		}
		x.mu.Lock()
		x.gap = 0
		x.mu.Unlock()
		f.t.Logf("round %d: %s %s", n+1, name, what.name)
		what.do(x, name)
		x.more(50)
		if f.at(name) == nil {
			f.start(name)
		}
		x.more(50)
		x.end()
		if asked && what.gap > 0 && x.gap > what.gap {
			f.t.Errorf("no publish was answered for %s, want %s at most", x.gap, what.gap)
		}
		for _, name := range f.names {
			select {
			case <-f.at(name).ended:
				f.t.Fatalf("node %s has ended", name)
			default:
			}
		}
	}
}

// nodeFaults are what happens to nodes.
var nodeFaults = []fault{
	{"leads, and is killed", false, func(x *traffic, name string) { x.f.down(name).kill() }, 10 * time.Second},
	{"leads, and is cut off", false, func(x *traffic, name string) { x.cutOff(name, jetstreamtest.Way.Cut, true) }, 0},
	{"leads, and is stopped", false, func(x *traffic, name string) { x.f.down(name).stop() }, 0},
	{"follows, and is cut off", true, func(x *traffic, name string) { x.cutOff(name, jetstreamtest.Way.Cut, false) }, 0},
	{"leads, and its network loses everything", false, func(x *traffic, name string) { x.cutOff(name, jetstreamtest.Way.Stall, true) }, 0},
	{"follows, and its network loses everything", true, func(x *traffic, name string) { x.cutOff(name, jetstreamtest.Way.Stall, false) }, 0},
	{"leads, and halts for longer than others wait for it", false, (*traffic).halt, 0},
}

// TestNATSServersComeAndGo is the same with what happens to the servers.
func TestNATSServersComeAndGo(t *testing.T) {
	t.Parallel() // it waits more than it works
	p := jetstreamtest.StartProcesses(t)
	queues := func() int { return p.Leader("mr_q_") }
	again := func(after time.Duration, servers ...int) func(*traffic, string) {
		return func(*traffic, string) {
			leader := queues()
			for i := range servers {
				servers[i] = (leader + i) % 3
				p.Kill(servers[i])
			}
			<-time.After(after)
			for _, i := range servers {
				p.Start(i)
			}
		}
	}
	f := startNodesOver(t, func() jetstreamtest.Way { return p.NewWay(t) }, "a", "b")
	f.suffer([]fault{
		{"loses the server that leads a queue", false, again(2*time.Second, 0), 0},
		{"loses a server that follows", false, func(*traffic, string) { i := (queues() + 1) % 3; p.Kill(i); p.Start(i) }, 0},
		{"loses all servers for 10 s", false, again(10*time.Second, 0, 1, 2), 0},
	}, 1)
}

func (x *traffic) halt(name string) {
	f := x.f
	s := f.down(name)
	if err := jetstreamtest.Pause(s.cmd.Process); err != nil {
		f.t.Fatal(err)
	}
	f.replaced(name)
	_ = jetstreamtest.Resume(s.cmd.Process) // it ends by itself, and that is waited for
	s.givesUp()
}

// replaced waits until another node leads.
func (f *fleetOf) replaced(name string) {
	f.t.Helper()
	if !eventually(time.Minute, func() bool { return f.leader() != name }) {
		f.t.Fatal("nobody leads in its place")
	}
}

// givesUp waits for the end of a node that led and was given up.
func (s *server) givesUp() {
	s.t.Helper()
	select {
	case <-s.ended:
		if code := s.cmd.ProcessState.ExitCode(); code != 75 {
			s.t.Errorf("the node that was given up ends with code %d", code)
		}
	case <-time.After(time.Minute):
		s.t.Error("the node that was given up goes on")
		s.kill()
	}
}

// departed counts how often the others gave a node up that followed.
func (f *fleetOf) departed(name string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for other, s := range f.up {
		if text, err := os.ReadFile(s.log); err == nil && other != name {
			for line := range strings.Lines(string(text)) {
				if strings.Contains(line, `"left the cluster"`) && strings.Contains(line, fmt.Sprintf(`"node":%q`, name)) {
					n++
				}
			}
		}
	}
	return n
}

// cutOff takes a node's way to the servers away for longer than others wait for it.
// It has leased a message and has a device with a durable session, and both go on at
// another node meanwhile; then it acknowledges nothing any more.
func (x *traffic) cutOff(name string, how func(jetstreamtest.Way), leads bool) {
	f, t := x.f, x.f.t
	t.Helper()
	old, other := f.at(name), f.other(name)
	o := x.give(old, other)
	before := f.departed(name)
	how(f.ways[name])
	if leads {
		f.replaced(name)
	} else if !eventually(time.Minute, func() bool { return f.departed(name) > before }) {
		t.Error("the node that is cut off is not given up")
	}
	var wg sync.WaitGroup
	wg.Go(func() { o.movesTo(other) })
	wg.Go(func() { o.isFenced() })
	wg.Wait()
	f.ways[name].Mend()
	if leads {
		f.down(name)
		old.givesUp()
		x.forget(o.id)
		return
	}
	if !eventually(time.Minute, func() bool { code, _ := old.view(t, http.MethodGet, "/readyz", ""); return code == http.StatusOK }) {
		t.Error("the node that was cut off is not back")
	}
	x.forget(o.id)
}

// owner is what a node has that is about to be cut off.
type owner struct {
	x      *traffic
	old    *server
	id     string
	device *wire.Conn // of a durable session, with a message that is not acknowledged
	packet uint16
	clean  *wire.Conn // of one that ends with it
	lease  held       // of queue held
}

// give has a node own something.
func (x *traffic) give(old, other *server) *owner {
	t := x.f.t
	t.Helper()
	o := &owner{x: x, old: old, id: fmt.Sprint("owner-", x.round)}
	var err error
	if o.device, err = o.dial(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := o.device.Subscribe("own/#", 1); err != nil {
		t.Fatal(err)
	}
	if o.clean, err = wire.Dial(t.Context(), old.ports["mqtt"], wire.Login{ClientID: o.id + "c", User: testKeyID, Password: testSecret}); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"own/1", "held/1"} {
		if err := newService(other).publish(t.Context(), topic, "1"); err != nil {
			t.Fatal(err)
		}
	}
	var text string
	if text, o.packet = next(t, o.device); text != "1" {
		t.Fatalf("the device got %q", text)
	}
	hs, err := newService(old).consume(t.Context(), "held", 1, 20, 5)
	if err != nil || len(hs) != 1 {
		t.Fatalf("got %v, %v", hs, err)
	}
	o.lease = hs[0]
	return o
}

func (o *owner) dial(ctx context.Context, s *server) (*wire.Conn, error) {
	return wire.Dial(ctx, s.ports["mqtt"], wire.Login{ClientID: o.id, User: testKeyID, Password: testSecret, Keep: true})
}

// next is the next message that comes.
func next(t *testing.T, c *wire.Conn) (text string, packet uint16) {
	t.Helper()
	text, packet, err := read(c)
	if err != nil {
		t.Errorf("no message came: %v", err)
	}
	return text, packet
}

// read waits for a message.
func read(c *wire.Conn) (text string, packet uint16, err error) {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	p, err := c.Read1()
	if err == nil && p.Type != wire.Publish {
		err = fmt.Errorf("packet type %d came", p.Type)
	}
	if err != nil {
		return "", 0, err
	}
	_, packet, payload, _ := p.Message()
	return string(payload), packet, nil
}

// movesTo has another node serve the device and the queue.
func (o *owner) movesTo(other *server) {
	t := o.x.f.t
	begun := time.Now()
	c, err := o.dial(t.Context(), other)
	if err != nil {
		t.Errorf("the device does not get in at another node: %v", err)
		return
	}
	took := time.Since(begun)
	defer func() { _ = c.Close() }()
	for _, want := range []string{"1", "2"} {
		if want == "2" {
			if err := newService(other).publish(t.Context(), "own/2", want); err != nil {
				t.Errorf("publish to the device: %v", err)
			}
		}
		text, packet, err := read(c)
		if err != nil || text != want {
			t.Errorf("the device got %q, %v at another node, want %q", text, err, want)
		}
		if _, err := c.Write(wire.AppendAck(nil, wire.Puback, packet)); err != nil {
			t.Error(err)
		}
	}
	api := newService(other)
	hs, err := api.consume(t.Context(), "held", 1, 30, 30)
	if err != nil || len(hs) != 1 || hs[0].ID != o.lease.ID {
		t.Errorf("what was leased at the node that is cut off did not come again: %v, %v", hs, err)
		return
	}
	if err := api.ack(t.Context(), "held", hs[0]); err != nil {
		t.Errorf("ack of what came again: %v", err)
	}
	t.Logf("the device was in at another node after %s", took.Round(time.Millisecond))
}

// isFenced wants the node to do nothing of what it did before.
func (o *owner) isFenced() {
	t, api := o.x.f.t, newService(o.old)
	var wg sync.WaitGroup
	wg.Go(func() { holdsOff(t, "an acknowledgement", api.ack(t.Context(), "held", o.lease)) })
	wg.Go(func() { holdsOff(t, "a publish", api.publish(t.Context(), "e/fenced", "x")) })
	wg.Go(func() {
		holdsOff(t, "a publish that meets nobody there", api.publish(t.Context(), "nobody/fenced", "x"))
	})
	wg.Go(func() {
		hs, err := api.consume(t.Context(), "e", 10, 1, leaseOf)
		if err == nil && len(hs) > 0 {
			t.Errorf("a node that was given up hands out %v", hs)
		}
	})
	wg.Go(func() {
		holdsOff(t, "a definition", api.call(t.Context(), http.MethodPost, "/queues", map[string]string{"name": "fenced"}, nil))
	})
	wg.Go(func() { // late, for what another node has by now; and nothing more comes
		_ = o.device.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = o.device.Write(wire.AppendAck(nil, wire.Puback, o.packet)) // it may be closed
		if p, err := o.device.Read1(); err == nil {
			t.Errorf("a node that was given up sends its device packet type %d", p.Type)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection of a durable session stays at a node that was given up")
		}
		_ = o.device.Close()
	})
	wg.Go(func() {
		defer func() { _ = o.clean.Close() }()
		_ = o.clean.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = o.clean.Write(wire.AppendPublish(nil, "nobody/fenced", 1, 7, []byte("x")))
		if p, err := o.clean.Read1(); err == nil {
			t.Errorf("a node that was given up answers a publish with packet type %d", p.Type)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a publish at a node that was given up has no answer for 30 s")
		}
	})
	wg.Go(func() {
		var refused *wire.RefusedError
		if c, err := o.dial(t.Context(), o.old); err == nil {
			_ = c.Close()
			t.Error("a node that was given up lets a device in")
		} else if !errors.As(err, &refused) || refused.Code != 3 {
			t.Errorf("a node that was given up refuses a device so: %v", err)
		}
	})
	wg.Go(func() {
		if code, text := o.old.view(t, http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable {
			t.Errorf("a node that was given up says that it is ready: %d %s", code, text)
		}
	})
	wg.Wait()
}

// holdsOff wants an error.
func holdsOff(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s is done by a node that was given up", what)
	}
}
