//go:build !unix

package resttest

import "testing"

// Cost reports allocations only: there is no CPU time to ask for.
func Cost(b *testing.B, _ int) func() {
	b.Helper()
	b.ReportAllocs()
	return func() {}
}
