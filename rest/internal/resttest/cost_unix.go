//go:build unix

package resttest

import (
	"syscall"
	"testing"
)

// Cost reports the CPU time of the whole process per message, which a busy
// machine does not change; call the result when the loop is over.
func Cost(b *testing.B, messages int) func() {
	b.Helper()
	b.ReportAllocs()
	used := func() int64 {
		var u syscall.Rusage
		Must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N*messages), "cpu-ns/message") }
}
