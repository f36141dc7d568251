package auth

import "time"

// expiryNap bounds how long the timer trusts that nobody set the clock.
const expiryNap = time.Hour

// expiry makes a new generation when a key runs out, so that decisions kept by
// callers end too. It belongs to Auth.mu.
type expiry struct {
	timer *time.Timer
	next  time.Time
	ended bool
}

// watch includes k.
func (e *expiry) watch(a *Auth, k *key) {
	at := k.record.Expires
	if e.ended || at.IsZero() || !at.After(a.now()) || !e.next.IsZero() && !at.Before(e.next) {
		return
	}
	e.next = at
	if e.timer != nil {
		e.timer.Stop()
	}
	e.timer = time.AfterFunc(min(at.Sub(a.now()), expiryNap), a.expire)
}

func (e *expiry) stop() {
	e.ended = true
	if e.timer != nil {
		e.timer.Stop()
	}
}

// expire is the timer's errand.
func (a *Auth) expire() {
	a.change(func() {
		a.expiry.next = time.Time{}
		for _, k := range a.keys {
			a.expiry.watch(a, k)
		}
	})
}
