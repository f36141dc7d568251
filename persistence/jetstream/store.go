package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/clock"
	"millrace/persistence/hand"
)

// Promises that do not change.
const (
	resolution  = 15 * time.Millisecond // JetStream looks at leases within 10 ms
	lag         = 50 * time.Millisecond
	dedupWindow = 5 * time.Minute
	fullFor     = 2 * time.Second // a publish that was refused for room says so for so long
)

// Store keeps messages and keys in a NATS JetStream.
type Store struct {
	o     Options
	names names
	nc    *nats.Conn
	js    jetstream.JetStream
	calls *calls
	log   zerolog.Logger
	ctx   context.Context // ends with the store
	stop  context.CancelFunc
	work  sync.WaitGroup // goroutines
	lines lines
	clock *clock.Clock
	keys  map[broker.Space]*keySpace
	defs  *keySpace
	dedup *keySpace
	node  *keySpace
	subs  *keySpace
	back  *keySpace // how far sessions are
	due   *mover
	own   *membership
	marks *watermarks
	water struct{ dead, delayed, log *watermark } // of streams that all share
	until time.Time                               // while it opens: servers that are missing are waited for until then

	sessions *sessionLog

	waits  hand.Waits
	events atomic.Pointer[bound]
	failed atomic.Pointer[error]
	full   atomic.Int64 // until when the servers count as full, Unix milliseconds
	weight weight

	mu       sync.RWMutex
	closing  bool // nothing new is taken
	closed   bool // nothing is under way any more
	targets  map[broker.Target]target
	byName   map[name]target
	newest   uint64 // revision of the newest definition: no target is above it
	defining turns
}

// bound are the Events of a store that was bound.
type bound struct{ broker.Events }

// name tells targets of one name apart.
type name struct {
	kind broker.TargetKind
	name string
}

// target is a queue, a stream or a subscription.
type target interface {
	definition() broker.Definition
	// alter changes the definition, which is recorded already.
	alter(ctx context.Context, d broker.Def) error
	// drop ends every wait; the definition is gone.
	drop(ctx context.Context) error
	// begin starts the timers, once Events are bound.
	begin()
	// close ends the waits and keeps what must outlive the process.
	close(ctx context.Context) error
	// reconnected is told that what was asked of the servers may be lost.
	reconnected()
	receive(w *broker.Wait)
	cancel(w *broker.Wait) bool
	info(ctx context.Context) (broker.Info, error)
	read(ctx context.Context, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error)
}

var _ broker.Store = (*Store)(nil)

// Open connects to the servers, checks that they can do what is needed, and
// reads what the prefix holds.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, &openError{ErrUnfit, err}
	}
	s := &Store{
		clock: clock.New(nil),
		o:     o, names: names{o.Prefix}, log: o.Log,
		defining: turns{busy: map[name]bool{}},
		keys:     map[broker.Space]*keySpace{}, targets: map[broker.Target]target{}, byName: map[name]target{},
	}
	s.defining.over.L = &s.defining.mu
	s.marks = newWatermarks(s)
	// The store outlives the context of its opening.
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	o.Dial = append(o.Dial, nats.ReconnectHandler(func(*nats.Conn) { s.reconnected() }))
	s.until = time.Now().Add(o.Wait)
	soon, cancel := context.WithDeadline(ctx, s.until)
	defer cancel()
	nc, err := connect(soon, &o, o.Creds)
	if err != nil {
		return nil, err
	}
	s.nc = nc
	if err = s.meet(soon, &o); err == nil {
		err = s.open(ctx)
	}
	if err != nil {
		s.abandon()
		return nil, noRoom(err)
	}
	s.until = time.Time{}
	return s, nil
}

// abandon releases what a failed Open took.
func (s *Store) abandon() {
	s.mu.Lock()
	s.closing, s.closed = true, true
	s.mu.Unlock()
	s.stop()
	if s.due != nil {
		s.due.stop()
	}
	if s.sessions != nil {
		s.sessions.close()
	}
	if s.calls != nil {
		s.calls.close()
	}
	s.nc.Close()
	s.work.Wait()
}

// meet asks the servers what they are, and settles the options.
func (s *Store) meet(ctx context.Context, o *Options) (err error) {
	if o.Domain == "" {
		s.js, err = jetstream.New(s.nc)
	} else {
		s.js, err = jetstream.NewWithDomain(s.nc, o.Domain)
	}
	if err != nil {
		return err
	}
	if err := check(ctx, s.js, o); err != nil {
		return err
	}
	if err := o.readSync(ctx); err != nil {
		return err
	}
	s.o = *o
	return nil
}

// open reads what there is, however long that takes.
func (s *Store) open(ctx context.Context) (err error) {
	if s.calls, err = newCalls(s.nc); err != nil {
		return err
	}
	took := s.log.Debug()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"node", s.openNode},
		{"join", func(ctx context.Context) (err error) { s.own, err = s.join(ctx); return err }},
		{"keys", s.openKeys}, // once nobody else writes them
		{"clocks", s.compareClocks},
		{"shared", s.openShared},
		{"targets", s.openTargets},
		{"log", s.openLog},
		{"dead", s.loadDead},
		{"scheduled", s.loadScheduled},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return err
		}
		took.Dur(step.name, time.Since(began))
	}
	for _, t := range s.all() {
		if q, ok := t.(*queue); ok {
			q.balance()
		}
	}
	s.spawn(s.marks.keep)
	took.Msg("the store is read")
	if s.o.Sync != SyncAlways {
		s.log.Warn().Msg("the nats servers do not sync every write (sync_interval: always), or nobody says so: answers are marked relaxed")
	}
	return nil
}

// State implements broker.Store.
func (s *Store) State() broker.State {
	st := broker.State{
		Durability: s.o.durability(), Resolution: resolution, Lag: lag, Nodes: 1,
		Selective: true, Lost: *s.marks.told.Load(),
	}
	st.Full = s.full.Load() > s.milli()
	switch failed := s.failed.Load(); {
	case failed != nil:
		st.Err = *failed
	case !s.nc.IsConnected():
		st.Err = fmt.Errorf("no connection to nats %s", s.o.hosts())
	}
	return st
}

// payloadRoom is what a message takes beside its payload, at most: topic,
// properties, and where it goes.
const payloadRoom = 128 << 10

// MaxPayload is how large a payload the servers take.
func (s *Store) MaxPayload() int64 { return s.nc.MaxPayload() - payloadRoom }

// notice marks the store as full for a while after the servers said so.
func (s *Store) notice(err error) {
	if e, ok := errors.AsType[*apiError](err); ok && (e.ErrCode == errStoreFull || e.ErrCode == errNoStorage || e.ErrCode == errNoMemory) {
		s.full.Store(s.milli() + fullFor.Milliseconds())
	}
}

// Now implements broker.Store.
func (s *Store) Now() time.Time { return s.clock.Now() }

// milli is Now as messages count it.
func (s *Store) milli() int64 { return s.clock.Now().UnixMilli() }

// fail ends all work: this process must not go on.
func (s *Store) fail(err error) {
	if !s.failed.CompareAndSwap(nil, &err) {
		return
	}
	s.log.Error().Err(err).Msg("the store takes no more work")
	go s.calls.close() // nobody waits for what cannot be written; who fails it may hold a lock
	if s.o.Failed != nil {
		s.o.Failed(err)
	}
}

// Bind implements broker.Store.
func (s *Store) Bind(e broker.Events) {
	s.events.Store(&bound{e})
	s.Stored() // begins to count
	for _, t := range s.all() {
		t.begin()
	}
	s.due.begin()
}

// tell calls f with the Events on a goroutine of its own; the broker may answer
// at once.
func (s *Store) tell(f func(broker.Events)) {
	if e := s.events.Load(); e != nil {
		s.spawn(func() { f(e.Events) })
	}
}

// spawn runs f on a goroutine that Close waits for, unless the store is closed.
func (s *Store) spawn(f func()) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return
	}
	s.work.Go(f)
}

// all returns the targets there are.
func (s *Store) all() []target {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]target, 0, len(s.targets))
	for _, t := range s.targets {
		list = append(list, t)
	}
	return list
}

// lookup returns a target, ErrGone if it was dropped, or ErrNotFound.
func (s *Store) lookup(t broker.Target) (target, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch x := s.targets[t]; {
	case s.closed:
		return nil, broker.ErrClosed
	case x != nil:
		return x, nil
	case t != 0 && uint64(t) <= s.newest:
		return nil, broker.ErrGone
	}
	return nil, broker.ErrNotFound
}

// queueOf is lookup of a queue.
func (s *Store) queueOf(t broker.Target) (*queue, error) {
	x, err := s.lookup(t)
	if err != nil {
		return nil, err
	}
	if q, ok := x.(*queue); ok {
		return q, nil
	}
	return nil, fmt.Errorf("%w: target %d is no queue", broker.ErrNotFound, t)
}

// source is a target that leases messages: a queue or a subscription.
type source interface {
	// settleable says why an operation on a delivery is not possible, as far as
	// that is known without asking.
	settleable(op *broker.Op) error
	// apply does it, and calls u.done once.
	apply(op *broker.Op, u *unit)
	find(id broker.ID) (broker.Ref, error)
}

// sourceOf is lookup of what leases messages.
func (s *Store) sourceOf(t broker.Target) (source, error) {
	x, err := s.lookup(t)
	if err != nil {
		return nil, err
	}
	if from, ok := x.(source); ok {
		return from, nil
	}
	return nil, fmt.Errorf("%w: target %d leases no messages", broker.ErrNotFound, t)
}

// Receive implements broker.Store.
func (s *Store) Receive(w *broker.Wait) {
	if s.waits.Again(w) {
		return
	}
	clear(w.Got)
	w.Got, w.Err, w.Bounds = w.Got[:0], nil, broker.PartitionInfo{}
	t, err := s.lookup(w.Target)
	if _, ok := t.(*queue); err == nil && w.Filter != "" && !ok {
		err = broker.ErrNotSelective
	}
	if err != nil {
		w.Err = err
		s.deliver(w)
		return
	}
	t.receive(w)
}

// Cancel implements broker.Store.
func (s *Store) Cancel(w *broker.Wait) bool {
	return s.waits.NotAgain(w) || s.withdraw(w)
}

// withdraw takes w out of the line in which it stands, and reports whether it did.
func (s *Store) withdraw(w *broker.Wait) bool {
	t, err := s.lookup(w.Target)
	return err == nil && t.cancel(w)
}

// Read implements broker.Store.
func (s *Store) Read(ctx context.Context, t broker.Target, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	x, err := s.lookup(t)
	if err != nil {
		return dst, err
	}
	return x.read(ctx, p, limit, dst)
}

// Info implements broker.Store.
func (s *Store) Info(ctx context.Context, t broker.Target) (broker.Info, error) {
	x, err := s.lookup(t)
	if err != nil {
		return broker.Info{}, err
	}
	return x.info(ctx)
}

// Find implements broker.Store. It knows what this process handed out.
func (s *Store) Find(_ context.Context, t broker.Target, id broker.ID) (broker.Ref, error) {
	from, err := s.sourceOf(t)
	if err != nil {
		return broker.Ref{}, err
	}
	return from.find(id)
}

// reconnected is called after a cut: the servers have forgotten who waited.
func (s *Store) reconnected() {
	if s.sessions != nil {
		s.sessions.followAgain()
	}
	wake(s.marks.doubts)
	for _, t := range s.all() {
		t.reconnected()
	}
}

// request asks the JetStream API, repeating until there is an answer, which it
// reads into v.
func (s *Store) request(ctx context.Context, subject string, ask, v any) error {
	var data []byte
	if ask != nil {
		var err error
		if data, err = json.Marshal(ask); err != nil {
			return err
		}
	}
	m, err := s.calls.wait(ctx, s.o.api()+subject, nil, data)
	if err != nil {
		return err
	}
	return parseAPI(m.Data, v)
}

// parseAPI reads an answer of the API, or its error.
func parseAPI(data []byte, v any) error {
	var e struct {
		Err *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%w: answer of the jetstream api: %w", broker.ErrUnknown, err)
	}
	if e.Err != nil {
		return e.Err
	}
	return json.Unmarshal(data, v)
}
