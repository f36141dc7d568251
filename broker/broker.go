package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker/alarms"
	"millrace/broker/auth"
	"millrace/router"
)

// Options configure a Broker. Zero values take the stated default.
type Options struct {
	Store Store      // required
	Auth  *auth.Auth // required
	// Cluster connects the nodes that share the Store; nil = it is this one's alone.
	Cluster Cluster
	Log     zerolog.Logger
	// Alarms is told what an operator should look at; default: a book of our own.
	Alarms *alarms.Book

	Limits
	MaxPayload int           // bytes; default 4 MiB
	Topics     router.Limits // of topics and filters; default 1,024 bytes, 201 levels
	// Overloaded tells that memory is short, so that publishers are refused;
	// nil = never.
	Overloaded func() bool
	// NodeBuffer is how much waits to be sent to another node, in bytes; what is
	// more is let go. Default 16 MiB.
	NodeBuffer int
}

// Limits are those that can change while a Broker runs. Zero values take the
// stated default.
type Limits struct {
	MaxWaiting int // receives waiting at once; default 10,000
	// What waits for one session while its client does not take it; a change is
	// for sessions that begin after it, and for all at the next start.
	SessionMessages int64         // default 100,000
	SessionBytes    int64         // as stored; default 64 MiB
	SessionPolicy   SessionPolicy // default SessionDropOldest
	// What there may be in all; 0 = no limit. What is there when a limit is lowered
	// stays, and publishes under way at once may pass the last two.
	Queues, Streams int
	Retained        int   // topics with a retained message
	Stored          int64 // bytes that queues, streams and sessions hold
}

func (l *Limits) setDefaults() error {
	l.MaxWaiting = cmp.Or(l.MaxWaiting, 10_000)
	l.SessionMessages = cmp.Or(l.SessionMessages, 100_000)
	l.SessionBytes = cmp.Or(l.SessionBytes, 64<<20)
	switch l.SessionPolicy = cmp.Or(l.SessionPolicy, SessionDropOldest); l.SessionPolicy {
	case SessionDropOldest, SessionDropNewest, SessionRefuse:
		return nil
	default:
		return fmt.Errorf("broker: session policy %q is none of %s, %s and %s", l.SessionPolicy, SessionDropOldest, SessionDropNewest, SessionRefuse)
	}
}

// SetLimits changes the limits from now on.
func (b *Broker) SetLimits(l Limits) error {
	if err := l.setDefaults(); err != nil {
		return err
	}
	b.tuned.Store(&l)
	return nil
}

func (o *Options) setDefaults() error {
	if o.Store == nil || o.Auth == nil {
		return errors.New("broker: Options need a Store and an Auth")
	}
	if o.Alarms == nil {
		o.Alarms = alarms.NewBook(o.Log)
	}
	o.MaxPayload = cmp.Or(o.MaxPayload, 4<<20)
	if o.NodeBuffer = cmp.Or(o.NodeBuffer, 16<<20); o.NodeBuffer < 0 {
		return fmt.Errorf("broker: Options.NodeBuffer is %d, which is negative", o.NodeBuffer)
	}
	return o.Limits.setDefaults()
}

// Broker is the one entry point for every protocol: it publishes, receives,
// settles and defines. All methods may be called from any goroutine. The
// principal of a call comes from its context (auth.From).
type Broker struct {
	opts       Options
	store      Store
	cluster    Cluster // nil: the store is this node's alone
	replica    *replica
	auth       *auth.Auth
	log        zerolog.Logger
	limits     router.Limits
	tuned      atomic.Pointer[Limits]
	tree       *router.Tree[destination]
	ids        idSource
	receipts   *receiptKey
	receives   sync.Pool // of *receive that were delivered
	publishes  sync.Pool // of *waitingPublish whose outcomes were read
	dead       *deadLetters
	retained   retained
	delayed    delayed
	members    members
	sessions   sessions
	peers      *peers // nil: this node is alone
	attempts   attempts
	stats      counters
	watches    watches
	refusals   [totals]atomic.Uint64 // for each of Totals
	joined     atomic.Uint64         // live subscriptions ever made
	durability Durability            // of the store; fixed
	waiting    atomic.Int64          // receives that wait
	closed     atomic.Bool

	defining sync.Mutex      // orders the calls that define and drop
	making   map[string]bool // queues that the store defines just now; under defining
	made     sync.Cond       // one of them less

	mu      sync.RWMutex // protects the maps below
	queues  map[string]*queue
	streams map[string]*stream
	targets map[Target]*queue
	groups  map[string]*sharedGroup
}

// destination is what the topic tree holds: *queue, *stream, *Subscription,
// *sessionSub or *sharedGroup.
type destination interface{ destination() }

// Open reads the definitions from the store, binds them to the topic tree, and
// begins to answer the store's events.
func Open(ctx context.Context, o Options) (*Broker, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	b := &Broker{
		opts: o, store: o.Store, cluster: o.Cluster, auth: o.Auth, log: o.Log,
		limits:     o.Topics,
		durability: o.Store.State().Durability,
		tree:       new(router.Tree[destination]),
		queues:     make(map[string]*queue),
		streams:    make(map[string]*stream),
		targets:    make(map[Target]*queue),
		groups:     make(map[string]*sharedGroup),
		making:     make(map[string]bool),
	}
	b.made.L = &b.defining
	b.tuned.Store(&o.Limits)
	b.replica = &replica{b: b}
	b.sessions.init(b)
	if b.cluster != nil {
		b.peers = openPeers(b, b.cluster)
		b.cluster.Follow(b.replica)
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	b.dead = startDeadLetters(b)
	b.store.Bind(b.dead)
	b.delayed.start(b) //nolint:contextcheck // it lives until Close
	b.members.start(b) //nolint:contextcheck // as above
	b.sessions.start()
	b.retained.start()
	b.replica.begin()
	if b.peers != nil {
		b.peers.meet(ctx)
	}
	return b, nil
}

// load reads what the store has.
func (b *Broker) load(ctx context.Context) (err error) {
	if b.receipts, err = loadReceiptKey(ctx, b.store); err != nil {
		return fmt.Errorf("receipt key: %w", err)
	}
	defs, err := b.store.Definitions(ctx)
	if err != nil {
		return fmt.Errorf("read the definitions: %w", err)
	}
	if err := b.defineDelayed(ctx, defs); err != nil {
		return fmt.Errorf("define the queue of delayed messages: %w", err)
	}
	slices.SortStableFunc(defs, func(x, y Definition) int { return cmp.Compare(x.Def.Kind, y.Def.Kind) }) // streams before their subscriptions
	for _, d := range defs {
		if d.Def.Kind == SessionTarget {
			continue // with the rest of the session
		}
		if err := b.bind(d); err != nil {
			return fmt.Errorf("definition of %q: %w", d.Def.Name, err)
		}
	}
	if err := b.followAuth(ctx); err != nil {
		return fmt.Errorf("read the accounts again: %w", err)
	}
	b.retained.b = b
	if err := b.retained.load(ctx); err != nil {
		return fmt.Errorf("read the retained messages: %w", err)
	}
	if err := b.watches.load(ctx, NewKeys(b.store, SpaceSystem)); err != nil {
		return fmt.Errorf("read the watched topics: %w", err)
	}
	if err := b.loadSessions(ctx, defs); err != nil {
		return fmt.Errorf("read the sessions: %w", err)
	}
	return nil
}

// Close refuses new work and waits, at most until ctx ends, for the dead
// letters under way. It does not close the store.
func (b *Broker) Close(ctx context.Context) error {
	b.closed.Store(true)
	b.delayed.close()
	b.members.close(ctx)
	b.sessions.close()
	b.retained.close()
	if b.peers != nil {
		b.peers.close()
	}
	return b.dead.close(ctx)
}

// Auth decides who may do what.
func (b *Broker) Auth() *auth.Auth { return b.auth }

// Now is the time by which deadlines are judged: that of the store. Every time
// of a message is one of it.
func (b *Broker) Now() time.Time { return b.store.Now() }

// State is the condition of the store.
func (b *Broker) State() State { return b.store.State() }

// Ready returns nil when publishes and acks work now, else why they do not.
func (b *Broker) Ready() error {
	if b.closed.Load() {
		return errClosed
	}
	if s := b.store.State(); s.Err != nil {
		return &Error{Kind: Unavailable, Message: "the store has failed", Err: s.Err}
	}
	return nil
}

// unasked is why an answer that nothing is there cannot be given: the store could not
// be asked.
func (b *Broker) unasked() error {
	if err := b.store.State().Err; err != nil {
		return &Error{Kind: Unavailable, Message: "the store cannot be asked now; nothing was done, try again", Err: err}
	}
	return nil
}

// errClosed is the answer to work that arrives while the broker drains.
var errClosed = errorf(Unavailable, NoSubject, "the broker is shutting down; nothing was stored, try again")

// May asks whether the principal of ctx may do this. Every method asks for
// itself; protocols ask for what is theirs alone, as users, keys and rules.
func (b *Broker) May(ctx context.Context, act auth.Action, r auth.Resource) error {
	return b.may(ctx, act, r)
}

// may is the one question about access that every path asks.
func (b *Broker) may(ctx context.Context, act auth.Action, r auth.Resource) error {
	return b.permit(auth.From(ctx), act, r)
}

func (b *Broker) permit(p *auth.Principal, act auth.Action, r auth.Resource) error {
	if b.auth.Allow(p, act, r) {
		return nil
	}
	return forbidden(p, act, r, b.auth.Decide(p, act, r).Rule)
}

func forbidden(p *auth.Principal, act auth.Action, r auth.Resource, rule string) error {
	who := "nobody"
	if p != nil {
		who = p.String()
	}
	return &Error{
		Kind:    Forbidden,
		Message: fmt.Sprintf("%s may not %s %s", who, act, r),
		Err:     errors.New("decided by " + rule),
	}
}

// isGone reports whether err says that the thing is not there any more.
func isGone(err error) bool { return errors.Is(err, ErrGone) || errors.Is(err, ErrNotFound) }

// storeError turns an error of the store into one for people.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		return &Error{Kind: Full, Message: "the disk has too little room; nothing was stored: consume, purge, or make room on it", Err: err}
	case errors.Is(err, ErrDamaged):
		return &Error{Kind: Damaged, Message: err.Error(), Err: ErrDamaged}
	case errors.Is(err, ErrClosed):
		return &Error{Kind: Unavailable, Message: "the store takes no writes now; nothing was stored", Err: err}
	case errors.Is(err, ErrUnknown), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: Unknown, Message: "the outcome is not known: it may have happened", Err: err}
	case errors.Is(err, ErrConflict):
		return &Error{Kind: Conflict, Message: "it changed meanwhile, or cannot be changed so", Err: err}
	default:
		return err
	}
}
