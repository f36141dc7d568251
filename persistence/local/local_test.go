package local_test

import (
	"testing"

	"millrace/broker"
	"millrace/persistence/local"
	"millrace/persistence/storetest"
)

// memory is a place that keeps nothing.
type memory struct{}

func (memory) Open(t testing.TB) broker.Store {
	t.Helper()
	s, err := local.Open(local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheMemoryDriverPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Place { return memory{} })
}
