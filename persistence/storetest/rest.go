package storetest

import (
	"github.com/google/go-cmp/cmp"

	"millrace/broker"
)

func diffMessage(got, want broker.Message) string { return cmp.Diff(want, got) }

var timeTests, limitTests, waitTests, streamTests, keyTests, targetTests, batchTests, reopenTests []test
