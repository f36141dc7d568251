package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// slept returns how long the machine has slept since it was started. It is
// never more than that: the clock that goes on in sleep is read first.
func slept() time.Duration {
	var always, awake unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &always) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil {
		return 0
	}
	return max(0, time.Duration(always.Nano()-awake.Nano()))
}
