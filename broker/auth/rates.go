package auth

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Rates bound what one identity may do in a second, at all doors together: a
// user, a key, or an anonymous client by its client id. Zero is no bound. What
// a second gives may be used at once, and what is larger than that goes when a
// whole second was saved, and is paid for afterwards.
type Rates struct {
	Requests int // over HTTP
	Messages int // published
	Bytes    int // of their payloads
}

// Usage is what something costs of Rates.
type Usage struct{ Requests, Messages, Bytes int }

// RateError refuses what is over a rate. Nothing was done.
type RateError struct {
	What  string // requests, messages, bytes
	Rate  int    // of them a second
	Retry time.Duration
}

func (e *RateError) Error() string {
	return fmt.Sprintf("more than %d %s a second: wait %s and try again, or ask for a higher limit", e.Rate, e.What, e.Retry.Round(time.Millisecond))
}

// maxMeters bounds the identities that are counted; beyond it those that are
// owed nothing are forgotten, which changes nothing for them.
const maxMeters = 16_384

// meters count what identities use. Nil counts nothing.
type meters struct {
	rates Rates

	mu   sync.Mutex
	byID map[string]*meter
}

func newMeters(r Rates) *meters {
	if r == (Rates{}) {
		return nil
	}
	return &meters{rates: r, byID: make(map[string]*meter)}
}

// SetRates changes the rates from now on. Everybody begins with a full second.
func (a *Auth) SetRates(r Rates) { a.meters.Store(newMeters(r)) }

// meter counts one identity.
type meter struct {
	of      *meters
	mu      sync.Mutex
	buckets [3]bucket
}

// bucket fills by rate a second, up to rate; below zero it is in debt.
type bucket struct {
	rate  float64 // 0 is no bound
	level float64
	at    time.Time
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.level = min(b.rate, b.level+b.rate*d.Seconds())
		b.at = now
	}
}

// wait is how long n has to be waited for. What is larger than the bucket
// waits for a full one.
func (b *bucket) wait(n int) time.Duration {
	missing := min(float64(n), b.rate) - b.level
	if n == 0 || b.rate == 0 || missing <= 0 {
		return 0
	}
	return max(time.Millisecond, time.Duration(missing/b.rate*float64(time.Second)))
}

func (m *meters) of(p *Principal, now time.Time) *meter {
	if m == nil || p == nil || p.Kind == System {
		return nil
	}
	if t := p.meter.Load(); t != nil && t.of == m {
		return t
	}
	id := p.String()
	if p.Kind == Anonymous {
		id += ":" + p.ClientID
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.byID[id]
	if t == nil {
		if len(m.byID) >= maxMeters {
			m.forget(now)
		}
		t = &meter{of: m}
		for i, rate := range []int{m.rates.Requests, m.rates.Messages, m.rates.Bytes} {
			t.buckets[i] = bucket{rate: float64(rate), level: float64(rate), at: now}
		}
		m.byID[id] = t
	}
	p.meter.Store(t)
	return t
}

// forget drops the meters that are full again, or any where none is.
func (m *meters) forget(now time.Time) {
	for id, t := range m.byID {
		if t.full(now) {
			delete(m.byID, id)
		}
	}
	for id := range m.byID { // in random order
		if len(m.byID) < maxMeters {
			return
		}
		delete(m.byID, id)
	}
}

func (t *meter) full(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.buckets {
		if b := &t.buckets[i]; b.rate > 0 {
			if b.fill(now); b.level < b.rate {
				return false
			}
		}
	}
	return true
}

// take books u, unless it has to be waited for longer than patience; which says
// what is short then. What is booked and waits is a debt of the bucket.
func (t *meter) take(u Usage, patience time.Duration, now time.Time) (wait time.Duration, which int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	need := [...]int{u.Requests, u.Messages, u.Bytes}
	for i, n := range need {
		b := &t.buckets[i]
		if b.fill(now); b.wait(n) > wait {
			wait, which = b.wait(n), i
		}
	}
	if wait > patience {
		return wait, which
	}
	for i, n := range need {
		if b := &t.buckets[i]; b.rate > 0 {
			b.level -= float64(n)
		}
	}
	return wait, which
}

// Spend books what p is about to do, or refuses it with a *RateError. A nil
// Auth has no rates.
func (a *Auth) Spend(ctx context.Context, p *Principal, u Usage) error {
	if a == nil {
		return nil
	}
	m := a.meters.Load()
	if m == nil || ctx.Value(unmeteredKey{}) != nil {
		return nil
	}
	now := a.now()
	t := m.of(p, now)
	if t == nil {
		return nil
	}
	wait, which := t.take(u, 0, now)
	if wait == 0 {
		return nil
	}
	r := m.rates
	return &RateError{
		What: [...]string{"requests", "messages", "bytes"}[which], Rate: [...]int{r.Requests, r.Messages, r.Bytes}[which], Retry: wait,
	}
}

// Reserve books what p does, and says how long p has to pause before it does
// it. With false nothing is booked: that would have been longer than patience.
func (a *Auth) Reserve(p *Principal, u Usage, patience time.Duration) (pause time.Duration, ok bool) {
	m := a.meters.Load()
	if m == nil {
		return 0, true
	}
	now := a.now()
	t := m.of(p, now)
	if t == nil {
		return 0, true
	}
	wait, _ := t.take(u, patience, now)
	return wait, wait <= patience
}

type unmeteredKey struct{}

// Unmetered returns a context in which nothing is counted: for what the broker
// does in somebody's name at a time that it chose itself.
func Unmetered(ctx context.Context) context.Context {
	return context.WithValue(ctx, unmeteredKey{}, true)
}
