package jetstreamtest

import (
	"sync/atomic"
	"testing"
	"time"
	_ "unsafe" // for linkname
)

// A NATS server ages messages by a clock that one goroutine of the process sets
// (its package ats). That goroutine cannot live in a bubble of fake time, so it is
// kept from starting, and each test sets the clock itself, every second.

//go:linkname clock github.com/nats-io/nats-server/v2/server/ats.utime
var clock atomic.Int64

//go:linkname clockUsers github.com/nats-io/nats-server/v2/server/ats.refs
var clockUsers atomic.Int64

// tell sets the clock until the test ends.
func tell(tb testing.TB) {
	tb.Helper()
	clockUsers.CompareAndSwap(0, 1<<30) // somebody has it: the goroutine never starts
	end, over := make(chan struct{}), make(chan struct{})
	clock.Store(time.Now().UnixNano())
	go func() {
		defer close(over)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				clock.Store(time.Now().UnixNano())
			case <-end:
				return
			}
		}
	}()
	tb.Cleanup(func() { close(end); <-over })
}
