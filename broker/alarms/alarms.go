// Package alarms keeps what somebody should look at: conditions that hold now,
// and those that held. Whoever knows a condition raises it here. Alarms live in
// memory and begin anew with the process.
package alarms

import (
	"cmp"
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

	mu     sync.Mutex
	active map[string]*held
	past   []Alarm // oldest first
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
	if h == nil {
		h = &held{Alarm: Alarm{Name: name, Since: now}}
		b.active[name] = h
		b.log.Warn().Str("alarm", name).Str("what", message).Msg("alarm raised")
	}
	h.Message, h.Details = message, maps.Clone(details)
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
	h.Until = at
	if len(b.past) >= maxPast {
		b.past = slices.Delete(b.past, 0, len(b.past)-maxPast+1)
	}
	b.past = append(b.past, h.Alarm)
	b.log.Info().Str("alarm", h.Name).Msg("alarm over")
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

// Forget drops the alarms that are over.
func (b *Book) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(time.Now())
	b.past = nil
}
