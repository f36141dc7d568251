//go:build !unix

package mqtt_test

import "time"

var started = time.Now()

// cpu is the time that went by: there is no processor time to ask for.
func cpu() int64 { return time.Since(started).Nanoseconds() }
