// Package clock is the time by which leases, delays and lives of messages are
// judged: a wall clock that nobody can set while the program runs.
//
// It begins as the wall clock of the machine. From then on it advances by what
// really passed (the monotonic reading of Go, and the time that the machine
// slept), so that a jump of the wall clock neither ends a lease early nor holds
// one back. A small difference, as of a clock that is corrected now and then, is
// made good by one part in 2,000 of the time that passes: as fast as a kernel
// slews a clock, and within what clocks err by. A large one stays until the
// process is started again, which begins with the wall clock: a jump over a
// restart looks like time that passed, or did not.
package clock

import (
	"sync/atomic"
	"time"
)

const (
	// slew is the part of the time that passes by which the clock is drawn to
	// the wall clock, if they differ by no more than most.
	slew = 2000
	most = time.Hour
	// lookEvery is how often the wall clock is looked at, while somebody asks
	// for the time.
	lookEvery = time.Second
	// nap is the shortest sleep of the machine that is believed: the two clocks
	// that tell it are not read at one moment.
	nap = 100 * time.Millisecond
)

// Clock is a steady wall clock. Its methods may be called from any goroutine.
type Clock struct {
	wall  func() time.Time
	slept func() time.Duration
	mark  atomic.Pointer[mark]
}

// mark is a moment from which the clock is reckoned.
type mark struct {
	at    time.Time     // as the machine reads it: with its monotonic reading
	shown time.Time     // what the clock showed: without
	off   time.Duration // by how much it is to be drawn to the wall clock
	slept time.Duration // how long the machine had slept until then
}

// New returns a clock that shows what wall does now; nil is the wall clock of the machine.
func New(wall func() time.Time) *Clock {
	if wall == nil {
		wall = time.Now
	}
	c := &Clock{wall: wall, slept: slept}
	c.mark.Store(&mark{at: time.Now(), shown: wall().Round(0), slept: slept()})
	return c
}

// Now returns the time. It never goes back, and its readings are compared with
// one another only: they have no monotonic reading.
func (c *Clock) Now() time.Time {
	m := c.mark.Load()
	d := time.Since(m.at)
	if d >= lookEvery {
		return c.look(m)
	}
	return m.after(d)
}

// Ahead returns how far the wall clock is ahead of this one.
func (c *Clock) Ahead() time.Duration { return c.wall().Round(0).Sub(c.Now()) }

// after is what the clock shows d after m.
func (m *mark) after(d time.Duration) time.Time {
	drawn := d / slew
	if m.off < 0 {
		drawn = max(-drawn, m.off)
	} else {
		drawn = min(drawn, m.off)
	}
	return m.shown.Add(d + drawn)
}

// look sets a new mark behind m, and returns the time.
func (c *Clock) look(m *mark) time.Time {
	at := time.Now()
	next := &mark{at: at, shown: m.after(at.Sub(m.at)), slept: max(m.slept, c.slept())}
	if d := next.slept - m.slept; d >= nap {
		next.shown = next.shown.Add(d)
	} else {
		next.slept = m.slept
	}
	if off := c.wall().Round(0).Sub(next.shown); off.Abs() <= most {
		next.off = off
	}
	if !c.mark.CompareAndSwap(m, next) {
		return c.Now() // somebody else looked
	}
	return next.shown
}
