// Package alarms keeps what somebody should look at: conditions that hold now,
// and those that held. Whoever knows a condition raises it here. What is over
// outlives the process where there is a store for it; a condition that still
// holds after a start is raised anew by who knows it. A book that is kept has one
// goroutine, which records.
package alarms

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// maxPast bounds the alarms that are over and still shown.
const maxPast = 1000

// Alarm is one condition.
type Alarm struct {
	Name    string // of the condition: one alarm of a name is active at a time
	Message string // for people
	Details map[string]any
	Since   time.Time
	Until   time.Time // zero while it is active
}

// Book holds the alarms.
type Book struct {
	log zerolog.Logger

	mu        sync.Mutex
	active    map[string]*held
	past      []Alarm // oldest first
	number    uint64  // of the next that is over
	forgotten uint64  // those before it are
	kept      *keeper // nil = in memory only
}

// held is an active alarm, which may end by itself.
type held struct {
	Alarm
	ends time.Time // zero = when it is cleared
}

// NewBook returns an empty book, which logs what is raised and what is over.
func NewBook(log zerolog.Logger) *Book { return &Book{log: log, active: map[string]*held{}} }

// Raise says that a condition holds, until Clear.
func (b *Book) Raise(name, message string, details map[string]any) {
	b.raise(name, message, details, 0)
}

// RaiseFor says that something happened, and is worth an alarm for that long
// after it happened last.
func (b *Book) RaiseFor(d time.Duration, name, message string, details map[string]any) {
	b.raise(name, message, details, d)
}

func (b *Book) raise(name, message string, details map[string]any, d time.Duration) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	h := b.active[name]
	raised := h == nil
	if raised {
		h = &held{Alarm: Alarm{Name: name, Since: now}}
		b.active[name] = h
		b.log.Warn().Str("alarm", name).Str("what", message).Msg("alarm raised")
	}
	h.Message, h.Details = message, maps.Clone(details)
	if raised { // what it says later is recorded when it is over
		b.write(activePrefix+name, h.Alarm)
	}
	if h.ends = (time.Time{}); d > 0 {
		h.ends = now.Add(d)
	}
}

// Clear says that a condition is over, and reports whether it held.
func (b *Book) Clear(name string) bool {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	h := b.active[name]
	if h == nil {
		return false
	}
	b.end(h, now)
	return true
}

// sweep ends what ends by itself. The caller holds mu.
func (b *Book) sweep(now time.Time) {
	var over []*held
	for _, h := range b.active {
		if !h.ends.IsZero() && !h.ends.After(now) {
			over = append(over, h)
		}
	}
	slices.SortFunc(over, func(x, y *held) int { return x.ends.Compare(y.ends) })
	for _, h := range over {
		b.end(h, h.ends)
	}
}

func (b *Book) end(h *held, at time.Time) {
	delete(b.active, h.Name)
	b.write(activePrefix+h.Name, nil)
	h.Until = at
	b.over(h.Alarm)
}

// over adds to those that are over. The caller holds mu.
func (b *Book) over(a Alarm) {
	if len(b.past) >= maxPast {
		b.past = slices.Delete(b.past, 0, len(b.past)-maxPast+1)
	}
	b.past = append(b.past, a)
	b.write(pastKey(b.number), past{b.number, a})
	b.number++
	b.log.Info().Str("alarm", a.Name).Msg("alarm over")
}

// Active lists the alarms that hold, newest first.
func (b *Book) Active() []Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(time.Now())
	all := make([]Alarm, 0, len(b.active))
	for _, h := range b.active {
		all = append(all, h.Alarm)
	}
	slices.SortFunc(all, func(x, y Alarm) int { return cmp.Or(y.Since.Compare(x.Since), cmp.Compare(x.Name, y.Name)) })
	return all
}

// Past lists the alarms that are over, newest first: the last 1,000.
func (b *Book) Past() []Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(time.Now())
	all := slices.Clone(b.past)
	slices.Reverse(all)
	return all
}

// Forget drops the alarms that are over. It returns nil when they would stay
// away after a crash.
func (b *Book) Forget(ctx context.Context) error {
	b.mu.Lock()
	b.sweep(time.Now())
	b.past, b.forgotten = nil, b.number
	kept, mark := b.kept, b.forgotten
	b.mu.Unlock()
	if kept == nil {
		return nil
	}
	value, err := json.Marshal(mark)
	if err == nil {
		err = kept.keys.Put(ctx, forgottenKey, value)
	}
	if err != nil {
		return fmt.Errorf("forget the alarms: %w", err)
	}
	return nil
}
