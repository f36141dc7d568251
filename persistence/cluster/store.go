package cluster

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/clock"
	"millrace/persistence/hand"
	"millrace/persistence/jetstream"
)

// Options of a node.
type Options struct {
	// Store says which JetStream, and how this node is named. A leader is given up
	// for dead after its Hold, and so is a node that follows.
	Store jetstream.Options
	// Version of the program, for others to see, and the address at which clients reach
	// its MQTT, "" if it does not say.
	Version, MQTT string
}

// Times of a cluster, as parts of the Hold of its store.
const (
	defaultHold = 5 * time.Second
	beats       = 10  // a node that follows is heard of so often in a Hold
	quietAt     = 0.3 // of it without an answer, and the node looks for another leader
	fenceAt     = 0.6 // of it without a sign, and the node answers nothing by what it knows
	ticks       = 20  // looks at all that in a Hold
	seekEvery   = 50 * time.Millisecond
	askFor      = time.Second // for one answer to a request of the cluster's own
)

// How long an operation waits.
const (
	forLeader  = 8 * time.Second  // until a node leads
	forOpening = 25 * time.Second // the same, while one is about to (patience)
	forAnswer  = 30 * time.Second // of one, before the outcome is unknown
)

// linger is how long a node that has stopped says so to those who do not know it yet.
// One that is gone without is found out by who asks it, but not by whose request was on
// its way to it just then: that would wait for its answer.
const linger = 100 * time.Millisecond

// Store is one node's view of the store that all nodes of a cluster share. It is a
// broker.Store and a broker.Cluster.
type Store struct {
	o      Options
	hold   time.Duration
	nc     *nats.Conn
	w      *wire
	log    zerolog.Logger
	self   broker.Node
	ctx    context.Context // ends with the store
	stop   context.CancelFunc
	work   sync.WaitGroup
	lines  hand.Lines // of batches
	failed func(error)

	clock  *clock.Clock
	stored atomic.Int64 // bytes, as the leader said last
	ahead  atomic.Int64 // nanoseconds by which the leader's clock is ahead of ours
	latest atomic.Int64 // the latest time that was shown, Unix nanoseconds

	lead     atomic.Pointer[lead] // once this node leads
	asks     asks
	answers  handlers[func(ctx context.Context, from string, body []byte) ([]byte, error)]
	heeds    handlers[func(from string, body []byte)]
	events   atomic.Pointer[bound]
	followed atomic.Pointer[followed]
	calling  sync.Mutex // of followed: one call at a time
	news     chan struct{}
	waits    hand.Waits

	// Times are nanoseconds since born.
	born    time.Time
	sure    atomic.Int64 // until when this node was one of the cluster for certain
	beaten  atomic.Int64 // when it sent the newest beat that the leader has answered
	linked  atomic.Int64 // when the connection was there again
	caught  atomic.Bool  // it has heard of all that was before it joined
	sign    atomic.Int64 // when a node last showed that it is about to lead
	opening atomic.Bool  // this node is about to

	mu      sync.Mutex
	closed  bool // it takes nothing more
	over    bool // no goroutine begins any more
	ops     ops
	to      *leader // nil while there is none
	state   broker.State
	nodes   []broker.Node
	alone   bool
	gone    string  // the leader that there was until now
	past    process // the leader that was the last to say that it stops
	queue   []event
	early   []parcel // changes that came while it joined
	joining bool
	ready   bool // what is in the queue may be told
}

// bound and followed are what was bound.
type (
	bound    struct{ broker.Events }
	followed struct {
		broker.ClusterEvents
		known *known
	}
)

var (
	_ broker.Store   = (*Store)(nil)
	_ broker.Cluster = (*Store)(nil)
)

// Open connects to the servers, and returns once this node leads, or follows one
// that does. The errors are those of jetstream.Open.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		o: o, hold: cmp.Or(o.Store.Hold, defaultHold), log: o.Store.Log, clock: clock.New(nil),
		news: make(chan struct{}, 1), born: time.Now(),
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.self = broker.Node{Name: o.Store.Node, Start: uint64(time.Now().UnixMilli()), Version: o.Version, MQTT: o.MQTT}
	s.o.Store.Shared = true
	s.o.Store.Failed, s.failed = s.fail, o.Store.Failed
	dial := o.Store
	dial.Dial = append(slices.Clip(dial.Dial),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { s.lost(nil) }),
		nats.ReconnectHandler(func(*nats.Conn) { s.linked.Store(int64(time.Since(s.born))) }))
	wait := cmp.Or(o.Store.Wait, 30*time.Second)
	soon, cancel := context.WithTimeout(ctx, wait)
	nc, err := jetstream.Dial(soon, dial)
	cancel()
	if err != nil {
		s.stop()
		return nil, err
	}
	s.nc = nc
	s.w = newWire(nc, cmp.Or(o.Store.Prefix, "mr"), s.self.Name, s.self.Start)
	s.w.take[askLane] = s.asked
	s.w.take[tellLane] = s.told
	s.w.take[storeLane] = s.operate
	s.w.take[eventLane] = s.heard
	if err := s.w.listen(); err != nil {
		s.release()
		return nil, err
	}
	if err := s.seek(ctx); err != nil {
		s.release()
		return nil, err
	}
	s.caught.Store(true)
	s.work.Go(func() { s.repeat(s.look, s.news) })
	s.work.Go(func() { s.repeat(s.watch, nil) }) // whatever look waits for
	return s, nil
}

// fail ends all work for good: this process must start again.
func (s *Store) fail(err error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if s.failed != nil && !closed {
		s.failed(err)
	}
}

// spawn runs f on a goroutine that Close waits for, unless that waits already.
func (s *Store) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.work.Go(f)
	return true
}

// repeat calls f several times in a hold, and when there is news, until the node closes.
func (s *Store) repeat(f func(), news <-chan struct{}) {
	tick := time.NewTicker(s.hold / ticks)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-news:
		case <-tick.C:
		}
		f()
	}
}

// watch ends what takes too long, and tells the broker when this node counts as gone.
func (s *Store) watch() {
	s.expire()
	s.watchAlone()
}

// State implements broker.Store.
func (s *Store) State() broker.State {
	var st broker.State
	led := true
	if l := s.lead.Load(); l != nil {
		st = l.inner.State()
		st.Nodes = l.size()
	} else {
		s.mu.Lock()
		st, led = s.state, s.to != nil
		st.Nodes = len(s.nodes)
		s.mu.Unlock()
	}
	if st.Err == nil && (!led || !s.current()) {
		st.Err = errNobody
	}
	return st
}

// Stored implements broker.Store. On a node that follows it is what the leader said
// at the last beat.
func (s *Store) Stored() int64 {
	if l := s.lead.Load(); l != nil {
		return l.inner.Stored()
	}
	return s.stored.Load()
}

// errNobody is the state of a cluster without a leader, and the answer to work that
// waited for one.
var errNobody = &remote{broker.ErrClosed, "no node of the cluster leads just now, or this one does not reach the nats servers: nothing was done"}

// Now implements broker.Store: it is the leader's time, which never goes back here.
func (s *Store) Now() time.Time {
	var now int64
	if l := s.lead.Load(); l != nil {
		now = l.inner.Now().UnixNano()
	} else {
		now = s.clock.Now().UnixNano() + s.ahead.Load()
	}
	for {
		latest := s.latest.Load()
		if now <= latest {
			return time.Unix(0, latest)
		}
		if s.latest.CompareAndSwap(latest, now) {
			return time.Unix(0, now)
		}
	}
}

// Bind implements broker.Store. The node that leads has the events.
func (s *Store) Bind(e broker.Events) {
	s.mu.Lock()
	s.events.Store(&bound{e})
	l := s.lead.Load()
	s.mu.Unlock()
	if l != nil {
		l.bind(e)
	}
}

// MaxPayload is how large a payload the servers take.
func (s *Store) MaxPayload() int64 { return s.nc.MaxPayload() - payloadRoom }

// payloadRoom is what a message takes beside its payload, at most.
const payloadRoom = 128 << 10

// Close implements broker.Store. A node that leads gives that up to another.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	to, l := s.to, s.lead.Load()
	s.mu.Unlock()
	var err error
	switch {
	case l != nil:
		err = l.close(ctx)
	case to != nil:
		s.settle(ctx)
		soon, cancel := context.WithTimeout(ctx, askFor)
		_, left := s.w.wait(soon, to.name, askLane, kindLeave, to.head(0))
		cancel()
		s.log.Debug().Err(left).Msg("left the cluster")
	}
	s.stop()
	s.endAll(broker.ErrClosed)
	s.end()
	if l != nil && l.size() > 1 || to != nil {
		<-time.After(linger)
	}
	s.w.close()
	return err
}

// end waits for goroutines. No other begins from then on.
func (s *Store) end() {
	s.stop()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.work.Wait()
}

// release ends what a failed Open began.
func (s *Store) release() {
	s.end()
	s.w.close()
}

// settle waits for what is under way, while ctx lasts.
func (s *Store) settle(ctx context.Context) {
	tick := time.NewTicker(seekEvery)
	defer tick.Stop()
	for s.writing() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// isClosed reports whether err says that a store is closed.
func isClosed(err error) bool { return errors.Is(err, broker.ErrClosed) }
