// Package storetest is the one suite that every broker.Store passes. What a
// store does not promise (State) turns the expectation of a test around, and
// never skips it silently.
package storetest

import (
	"os"
	"slices"
	"testing"
	"testing/synctest"

	"millrace/broker"
)

// Place is where a store keeps what it keeps. Open may be called again after
// the store it returned was closed: durable stores then find everything again.
type Place interface {
	Open(tb testing.TB) broker.Store
}

// Checker is a store that can verify itself. The suite asks after every test.
type Checker interface{ Check() error }

// Verifier is a place that can be examined while no store is open there. The
// suite asks after every Close.
type Verifier interface{ Verify() error }

// groups are all tests of the suite.
func groups() []group {
	return []group{
		{tests: slices.Concat(queueTests, timeTests, limitTests, waitTests, streamTests, streamWaitTests, streamKeepTests)},
		{tests: slices.Concat(subscriptionTests, subscriptionLimitTests, subscriptionKeepTests, sessionTests)},
		{tests: selectTests, filter: true},
		{tests: slices.Concat(keyTests, targetTests, batchTests, reopenTests)},
	}
}

// group are tests that ask the same of a store.
type group struct {
	tests  []test
	filter bool // they receive by topic
}

// Run runs the suite. newPlace makes an empty place; it is called inside a
// synctest bubble, once for each test.
func Run(t *testing.T, newPlace func(tb testing.TB) Place) {
	t.Helper()
	for _, g := range groups() {
		for _, tc := range g.tests {
			t.Run(tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { g.run(&harness{T: t, place: newPlace(t)}, tc) })
			})
		}
	}
}

// RunLive runs the suite in real time, for stores that need sockets. Tests that
// let much time pass are skipped, and say so. Of the others every tenth runs,
// unless MILLRACE_CLUSTER is all.
func RunLive(t *testing.T, newPlace func(tb testing.TB) Place) {
	t.Helper()
	n := 0
	for _, g := range groups() {
		for _, tc := range g.tests {
			if n++; n%10 != 1 && os.Getenv("MILLRACE_CLUSTER") != "all" {
				continue
			}
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				g.run(&harness{T: t, place: newPlace(t), live: true}, tc)
			})
		}
	}
}

// run runs one test, or sees that a receive by topic is refused.
func (g group) run(h *harness, tc test) {
	h.open()
	switch {
	case g.filter && !h.store.State().Selective:
		w := &broker.Wait{Target: h.queue(broker.Def{}), Filter: "a/#", Max: 1, Sink: make(sink, 1)}
		h.store.Receive(w)
		<-w.Sink.(sink)
		h.fails(w.Err, broker.ErrNotSelective)
	default:
		tc.run(h)
	}
	h.close()
}

// test is one sentence of the contract.
type test struct {
	name string
	run  func(h *harness)
}
