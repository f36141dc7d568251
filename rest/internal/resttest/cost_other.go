//go:build !unix

package resttest

import "time"

var started = time.Now()

// cpuTime is the time that went by: there is no CPU time to ask for.
func cpuTime() time.Duration { return time.Since(started) }
