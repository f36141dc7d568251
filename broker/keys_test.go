package broker_test

import (
	"errors"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// TestAKeyIsReplacedAtItsRevision is what auth relies upon where nodes share a store.
func TestAKeyIsReplacedAtItsRevision(t *testing.T) {
	f := open(t)
	k := broker.NewKeys(f.store, broker.SpaceSchemas)
	replace := func(value string, at uint64, want error) uint64 {
		t.Helper()
		b := []byte(value)
		if value == "" {
			b = nil
		}
		rev, err := k.Replace(f.ctx, "a/b", b, at)
		if !errors.Is(err, want) || (err == nil) != (rev > 0) {
			t.Fatalf("%q at %d: revision %d, %v, want %v", value, at, rev, err, want)
		}
		return rev
	}
	holds := func(value string, rev uint64) {
		t.Helper()
		all, err := k.Entries(f.ctx, "a/")
		if err != nil || string(all["a/b"].Value) != value || all["a/b"].Rev != rev || (len(all) == 1) != (value != "") {
			t.Fatalf("holds %+v, %v, want %q at %d", all, err, value, rev)
		}
	}
	holds("", 0)
	replace("x", 1, auth.ErrMoved)
	one := replace("one", 0, nil)
	holds("one", one)
	replace("x", 0, auth.ErrMoved)
	two := replace("two", one, nil)
	replace("x", one, auth.ErrMoved)
	holds("two", two)
	three := replace("three", auth.AnyRevision, nil)
	replace("", two, auth.ErrMoved)
	replace("", three, nil)
	holds("", 0)
	replace("", auth.AnyRevision, nil)
	replace("four", 0, nil)
}
