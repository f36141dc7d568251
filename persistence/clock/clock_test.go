package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"millrace/persistence/clock"
)

// machine is a machine whose wall clock can be set, and that can sleep.
type machine struct{ set, slept time.Duration }

func (m *machine) wall() time.Time { return time.Now().Add(m.set) }

func (m *machine) clock() *clock.Clock {
	return clock.NewSleeping(m.wall, func() time.Duration { return m.slept })
}

// ask asks c for the time each second for d, as a program at work does.
func ask(t *testing.T, c *clock.Clock, d time.Duration) {
	t.Helper()
	last := c.Now()
	for range d / time.Second {
		time.Sleep(time.Second)
		now := c.Now()
		if took := now.Sub(last); took < time.Second-time.Second/clock.Slew || took > time.Second+time.Second/clock.Slew {
			t.Fatalf("in a second the clock advanced by %v", took)
		}
		last = now
	}
}

func within(t *testing.T, what string, got, want, tolerance time.Duration) {
	t.Helper()
	if d := got - want; d < -tolerance || d > tolerance {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestAJumpOfTheWallClockIsNoTimeThatPassed(t *testing.T) {
	for _, jump := range []time.Duration{-24 * time.Hour, -time.Minute, time.Minute, 24 * time.Hour, 366 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{}
			c := m.clock()
			begin := c.Now()
			ask(t, c, time.Minute)
			m.set = jump
			within(t, "ahead after the jump", c.Ahead(), jump, 0)
			ask(t, c, time.Hour)
			drawn := time.Duration(0)
			if jump.Abs() <= clock.Most {
				drawn = time.Hour / clock.Slew
			}
			within(t, "an hour and a minute", c.Now().Sub(begin), time.Hour+time.Minute, drawn)
		})
	}
}

func TestTheClockIsDrawnToTheWallClockAndStaysThere(t *testing.T) {
	for _, jump := range []time.Duration{-time.Second, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{}
			c := m.clock()
			m.set = jump
			ask(t, c, 1000*time.Second)
			within(t, "half of it", c.Ahead(), jump/2, 2*time.Millisecond)
			ask(t, c, 1100*time.Second)
			within(t, "all of it", c.Ahead(), 0, 0)
			time.Sleep(24 * time.Hour) // nobody asks, and the correction is not overdone
			within(t, "a day later", c.Ahead(), 0, 0)
		})
	}
}

func TestTimeThatTheMachineSleptHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		c := m.clock()
		begin := c.Now()
		ask(t, c, time.Minute)
		m.slept, m.set = time.Hour, time.Hour // the wall clock went on, and the monotonic one did not
		time.Sleep(time.Second)
		within(t, "a sleep of an hour", c.Now().Sub(begin), time.Hour+time.Minute+time.Second, 0)
		m.slept = time.Hour - time.Second // as an unlucky reading of two clocks shows it
		ask(t, c, time.Minute)
		m.slept = time.Hour
		ask(t, c, time.Minute)
		within(t, "two minutes later", c.Now().Sub(begin), time.Hour+3*time.Minute+time.Second, 0)
	})
}

func TestTheClockOfTheMachineIsFollowed(t *testing.T) {
	c := clock.New(nil)
	within(t, "ahead", c.Ahead(), 0, 50*time.Millisecond)
}

// The clock is read for every batch and every lease.
func BenchmarkNow(b *testing.B) {
	c := clock.New(nil)
	b.Run("steady", func(b *testing.B) {
		for b.Loop() {
			_ = c.Now().UnixMilli()
		}
	})
	b.Run("machine", func(b *testing.B) {
		for b.Loop() {
			_ = time.Now().UnixMilli()
		}
	})
}
