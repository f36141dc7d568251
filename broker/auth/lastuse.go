package auth

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lastUseEvery   = time.Minute
	lastUseTimeout = 30 * time.Second
)

// lastUse writes when keys were used and users logged in, at most once a minute
// and only after one did. It sleeps otherwise.
type lastUse struct {
	save func(context.Context) error

	mu    sync.Mutex
	timer *time.Timer // runs while there is something to write
	ended bool
}

// due arranges for a write within the minute.
func (l *lastUse) due(write func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil && !l.ended {
		l.timer = time.AfterFunc(lastUseEvery, write)
	}
}

// begin reports whether there is still something to write.
func (l *lastUse) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	pending := l.timer != nil
	l.timer = nil
	return pending
}

// stop writes what is due and lets nothing become due any more.
func (l *lastUse) stop(ctx context.Context) error {
	l.mu.Lock()
	l.ended = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	if !l.begin() {
		return nil
	}
	return l.save(ctx)
}

// touch notes that a key or user is in use now. It never waits for the disk.
func (a *Auth) touch(last *atomic.Int64) {
	minute := a.now().Unix() / 60
	if last.Load() == minute || last.Swap(minute) == minute {
		return
	}
	a.used.due(a.writeLastUse)
}

// timeOf is the time that was touched, zero for never.
func timeOf(last *atomic.Int64) time.Time {
	if minute := last.Load(); minute > 0 {
		return time.Unix(minute*60, 0).UTC()
	}
	return time.Time{}
}

// writeLastUse is the timer's errand.
func (a *Auth) writeLastUse() {
	ctx, cancel := context.WithTimeout(context.Background(), lastUseTimeout)
	defer cancel()
	err := a.inTurn(ctx, func() error {
		if !a.used.begin() {
			return nil
		}
		return a.used.save(ctx)
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		a.log.Warn().Err(err).Msg("last use of keys and users not written")
	}
}

// saveLastUse writes them with those of other nodes. The caller has the turn.
func (a *Auth) saveLastUse(ctx context.Context) error {
	err := ErrMoved
	for try := 0; errors.Is(err, ErrMoved) && try < maxTries; try++ {
		at := a.revision(lastUseKey)
		err = a.put(ctx, lastUseKey, a.lastUses(), at)
	}
	return err
}

// lastUses are the times of all that were used, to the minute.
func (a *Auth) lastUses() map[string]int64 {
	minutes := make(map[string]int64)
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id, k := range a.keys {
		if minute := k.lastUse.Load(); minute > 0 {
			minutes[id] = minute
		}
	}
	for n, u := range a.users {
		if minute := u.lastUse.Load(); minute > 0 {
			minutes[n.String()] = minute // no key id has a colon
		}
	}
	return minutes
}

// readLastUse reads when keys and users were used, here or elsewhere: the later time
// counts.
func (a *Auth) readLastUse(value []byte) (alteration, error) {
	if value == nil {
		return func() bool { return false }, nil
	}
	var minutes map[string]int64
	if err := json.Unmarshal(value, &minutes); err != nil {
		return nil, err
	}
	return func() bool {
		for id, k := range a.keys {
			later(k.lastUse, minutes[id])
		}
		for n, u := range a.users {
			later(u.lastUse, minutes[n.String()])
		}
		return false
	}, nil
}

// later raises a time to another that is later.
func later(last *atomic.Int64, minute int64) {
	for now := last.Load(); now < minute && !last.CompareAndSwap(now, minute); {
		now = last.Load()
	}
}
