package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Options configure an Auth. Zero values take the stated default.
type Options struct {
	Store Keys // required
	// AllowAnonymous lets MQTT clients in that name nobody known here, where
	// the listener's argument of Login says so too; default no.
	AllowAnonymous bool
	Limits         Limits
	Rates          Rates     // default none
	Issuer         string    // iss of the tokens made here; default millrace
	Audit          io.Writer // takes one JSON line a call, see Audit; default none
	Log            zerolog.Logger
	Now            func() time.Time // default time.Now

	cost cost // of a password hash; default standardCost
}

// Auth keeps users, keys and rules, and decides. Its methods may be called by
// any number of goroutines.
type Auth struct {
	store     Keys
	anonymous bool
	limits    Limits
	issuer    string
	log       zerolog.Logger
	now       func() time.Time

	hasher    *hasher
	brake     *brake
	meters    atomic.Pointer[meters]
	used      *lastUse
	audit     *audit
	refusals  refusals
	verified  *remembered
	signers   atomic.Pointer[ring]
	policy    atomic.Pointer[policy]
	maxSheets int64
	changing  chan struct{} // holds one token: the turn to change something
	bans      *bans

	mu       sync.RWMutex // never held while the store is called
	users    map[account]*user
	keys     map[string]*key
	families families
	rules    *ruleset
	revs     revisions
	expiry   expiry
	closed   bool
}

// policy stands for one state of users, keys and rules; a new one is made at
// each change.
type policy struct {
	generation uint64
	rules      *ruleset
	over       chan struct{} // closed when the next one is in force
	term       atomic.Pointer[term]
}

// Open reads what is stored. It fails on anything it does not understand,
// rather than run with less protection than was configured.
func Open(ctx context.Context, o Options) (*Auth, error) {
	if o.Store == nil {
		return nil, errors.New("auth: a store is required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.cost == (cost{}) {
		o.cost = standardCost
	}
	if o.Issuer == "" {
		o.Issuer = "millrace"
	}
	a := &Auth{
		store:     o.Store,
		anonymous: o.AllowAnonymous,
		limits:    o.Limits.orDefault(),
		issuer:    o.Issuer,
		log:       o.Log,
		now:       o.Now,
		hasher:    newHasher(o.cost),
		brake:     newBrake(),
		audit:     newAudit(o.Audit, o.Log, o.Now),
		verified:  newRemembered(),
		maxSheets: maxSheets,
		changing:  make(chan struct{}, 1),
		bans:      newBans(),
		users:     make(map[account]*user),
		keys:      make(map[string]*key),
		families:  newFamilies(),
		revs:      newRevisions(),
		rules:     &ruleset{},
	}
	a.signers.Store(&ring{})
	a.SetRates(o.Rates)
	a.used = &lastUse{save: a.saveLastUse}
	if err := a.load(ctx); err != nil {
		return nil, fmt.Errorf("open auth: %w", err)
	}
	a.change(func() {
		for _, k := range a.keys {
			a.expiry.watch(a, k)
		}
	})
	return a, nil
}

// Close writes what was still to be written, stops the timers and refuses
// changes from then on. Questions are answered as before.
func (a *Auth) Close(ctx context.Context) error {
	done, err := a.turn(ctx)
	if err != nil {
		if errors.Is(err, ErrClosed) {
			return nil
		}
		return err
	}
	defer done()
	err = a.used.stop(ctx)
	a.audit.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.expiry.stop()
	return err
}

// Generation grows at every change of users, keys, rules and bans. Read it before
// asking for decisions that are to be kept.
func (a *Auth) Generation() uint64 { return a.policy.Load().generation }

// Changed returns a channel that is closed once Generation grows beyond what it
// was before the call.
func (a *Auth) Changed() <-chan struct{} { return a.policy.Load().over }

// turn waits for the turn to change something, so that one change is on disk
// before the next is checked. Unlike a lock it can be given up.
func (a *Auth) turn(ctx context.Context) (done func(), err error) {
	select {
	case a.changing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	done = func() { <-a.changing }
	a.mu.RLock()
	closed := a.closed
	a.mu.RUnlock()
	if closed {
		done()
		return nil, ErrClosed
	}
	return done, nil
}

// change alters what is in memory and puts it in force.
func (a *Auth) change(alter func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	alter()
	a.enforce()
}

// enforce puts what is in memory in force. The caller holds mu.
func (a *Auth) enforce() {
	next := &policy{generation: 1, rules: a.rules, over: make(chan struct{})}
	now := a.policy.Load()
	if now != nil {
		next.generation = now.generation + 1
	}
	a.policy.Store(next)
	if now != nil {
		close(now.over)
	}
}
