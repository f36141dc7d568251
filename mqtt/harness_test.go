package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/mqtt"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is the context of the broker itself.
func system() context.Context {
	return auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.System})
}

// edge is a Server on a free port in front of a broker with a memory store.
type edge struct {
	*mqtt.Server
	broker *broker.Broker
	auth   *auth.Auth
	store  *gate
	log    *logs
	check  func() error // of the store's books
	ended  bool
	dir    string
}

// open starts an edge with the options changed by each of change.
func open(tb testing.TB, change ...func(*mqtt.Options)) *edge {
	tb.Helper()
	return openDir(tb, "", change...)
}

// bubble runs f in fake time with an edge whose clients come over pipes.
func bubble(t *testing.T, f func(t *testing.T, e *edge), change ...func(*mqtt.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, openWith(t, "", mqtt.Bare, change...))
	})
}

// openDir is open with a store on disk in dir.
func openDir(tb testing.TB, dir string, change ...func(*mqtt.Options)) *edge {
	tb.Helper()
	return openWith(tb, dir, mqtt.Listen, change...)
}

func openWith(tb testing.TB, dir string, listen func(mqtt.Options) (*mqtt.Server, error), change ...func(*mqtt.Options)) *edge {
	tb.Helper()
	return openLimited(tb, dir, listen, auth.Rates{}, broker.Options{}, change...)
}

// openPolicy is open where a session holds n messages at most.
func openPolicy(tb testing.TB, policy string, n int64) *edge {
	tb.Helper()
	return openLimited(tb, "", mqtt.Listen, auth.Rates{}, broker.Options{Limits: broker.Limits{SessionMessages: n, SessionPolicy: broker.SessionPolicy(policy)}})
}

// openRated is openWith under rates.
func openRated(tb testing.TB, dir string, rates auth.Rates, listen func(mqtt.Options) (*mqtt.Server, error), change ...func(*mqtt.Options)) *edge {
	tb.Helper()
	return openLimited(tb, dir, listen, rates, broker.Options{}, change...)
}

func openLimited(tb testing.TB, dir string, listen func(mqtt.Options) (*mqtt.Server, error), rates auth.Rates, bo broker.Options, change ...func(*mqtt.Options)) *edge {
	tb.Helper()
	inner, check := openStore(tb, dir)
	return openOver(tb, &edge{store: &gate{Store: inner}, check: check, log: &logs{}, dir: dir}, listen, rates, bo, change...)
}

// openOver starts the broker and the listeners of e, over its store.
func openOver(tb testing.TB, e *edge, listen func(mqtt.Options) (*mqtt.Server, error), rates auth.Rates, bo broker.Options, change ...func(*mqtt.Options)) *edge {
	tb.Helper()
	var err error
	e.auth, err = auth.Open(tb.Context(), auth.Options{Store: broker.NewKeys(e.store, broker.SpaceAuth), AllowAnonymous: true, Rates: rates})
	if err != nil {
		tb.Fatal(err)
	}
	bo.Store, bo.Auth, bo.Log = e.store, e.auth, zerolog.New(e.log)
	e.broker, err = broker.Open(tb.Context(), bo)
	if err != nil {
		tb.Fatal(err)
	}
	o := mqtt.Options{
		Broker: e.broker, Log: zerolog.New(e.log).Level(zerolog.DebugLevel),
		Listeners: []mqtt.Listener{{Address: "127.0.0.1:0", AllowAnonymous: true}, {Address: "127.0.0.1:0"}},
	}
	for _, f := range change {
		f(&o)
	}
	if e.Server, err = listen(o); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		e.stop(tb)
		if all := e.log.String(); tb.Failed() {
			const end = 2000 // bytes that may say why
			tb.Log(all[max(0, len(all)-end):])
		}
	})
	return e
}

// stop ends everything, as at the end of the process.
func (e *edge) stop(tb testing.TB) {
	tb.Helper()
	if e.ended {
		return
	}
	e.ended = true
	e.store.open()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		tb.Errorf("close the edge: %v", err)
	}
	if err := e.broker.Close(ctx); err != nil {
		tb.Errorf("close the broker: %v", err)
	}
	if err := closeAuth(ctx, e.auth); err != nil {
		tb.Errorf("close auth: %v", err)
	}
	if err := e.check(); err != nil {
		tb.Errorf("the store's own check: %v", err)
	}
	if err := e.store.Close(ctx); err != nil {
		tb.Errorf("close the store: %v", err)
	}
}

// closeAuth writes what auth has not written yet.
func closeAuth(ctx context.Context, a *auth.Auth) error { return a.Close(ctx) }

// queue makes a queue, so that publishes that match filter have to be stored.
func (e *edge) queue(tb testing.TB, name, filter string) {
	tb.Helper()
	c := broker.NewQueueConfig(name, filter)
	if e.broker.State().Durability == broker.DurabilityMemory {
		c.Driver = broker.Memory
	}
	if _, err := e.broker.CreateQueue(system(), c); err != nil {
		tb.Fatal(err)
	}
}

// rules puts rules in force.
func (e *edge) rules(tb testing.TB, rules ...auth.Rule) {
	tb.Helper()
	if err := e.auth.SetRules(system(), rules); err != nil {
		tb.Fatal(err)
	}
}

func deny(do, filter string) auth.Rule {
	return auth.Rule{Effect: "deny", Who: "all", Do: []string{do}, Filter: filter}
}

// logs collects what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// patience is for tests with tens of thousands of messages, on any store and machine.
const patience = 10 * time.Minute

// eventually waits until ok, which nothing announces, and fails after 10 s.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(10 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			tb.Fatalf("never came: %s", what)
		}
	}
}

// gate is a store whose commits of publishes can be held back, as by an fsync
// that does not return, and made to fail.
type gate struct {
	broker.Store
	mu   sync.Mutex
	held bool
	err  error
	wait []func()
	n    int // publishes submitted
	bang bool
	full bool // like a disk with no room for more
	// batches is how many had publishes in them.
	batches int
}

// State is that of the store, or of one whose disk is full.
func (g *gate) State() broker.State {
	st := g.Store.State()
	g.mu.Lock()
	defer g.mu.Unlock()
	st.Full = st.Full || g.full
	return st
}

// fill makes the disk full, or takes that back.
func (g *gate) fill(full bool) { g.mu.Lock(); g.full = full; g.mu.Unlock() }

type gated struct {
	g *gate
	broker.Completion
}

func (g *gate) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	n := 0
	for i := range b.Ops {
		if b.Ops[i].Kind == broker.OpPublish {
			n++
		}
	}
	g.mu.Lock()
	g.n += n
	if n > 0 {
		g.batches++
	}
	bang := g.bang && n > 0
	g.mu.Unlock()
	if bang {
		panic("the store has a bug")
	}
	g.Store.Submit(b, l, gated{g, c})
}

// Done tells the end of a batch now, or when the gate opens. Once one is held
// all after it are, so that they keep their order.
func (d gated) Done(b *broker.Batch) {
	g := d.g
	g.mu.Lock()
	err := g.err
	tell := func() {
		for i := range b.Units {
			if ops := b.OpsOf(i); err != nil && len(ops) > 0 && ops[0].Kind == broker.OpPublish {
				b.Units[i].Result.Err = err
			}
		}
		d.Completion.Done(b)
	}
	if g.held {
		g.wait = append(g.wait, tell)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	tell()
}

func (g *gate) hold() { g.mu.Lock(); g.held = true; g.mu.Unlock() }

func (g *gate) open() {
	for {
		g.mu.Lock()
		wait := g.wait
		if g.wait = nil; len(wait) == 0 {
			g.held = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		for _, tell := range wait {
			tell()
		}
	}
}

func (g *gate) fail(err error) { g.mu.Lock(); g.err = err; g.mu.Unlock() }

// published returns how many publishes reached the store.
func (g *gate) published() int { g.mu.Lock(); defer g.mu.Unlock(); return g.n }

// stopped reports an error that says that the other side is gone.
func stopped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
