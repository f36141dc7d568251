//go:build !unix

package local_test

import "time"

var started = time.Now()

// cpu is the time that went by: there is no processor time to ask for.
func cpu() time.Duration { return time.Since(started) }
