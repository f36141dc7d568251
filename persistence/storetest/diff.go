package storetest

import (
	"github.com/google/go-cmp/cmp"

	"millrace/broker"
)

// diffMessage returns what differs, in words.
func diffMessage(got, want broker.Message) string { return cmp.Diff(want, got) }
