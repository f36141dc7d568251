package clock

import "time"

// What tests see of the constants.
const (
	Slew = slew
	Most = most
)

// NewSleeping returns a clock of a machine that has slept as long as slept says.
func NewSleeping(wall func() time.Time, slept func() time.Duration) *Clock {
	c := New(wall)
	c.slept = slept
	c.mark.Load().slept = slept()
	return c
}
