package flowmq_test

import (
	"testing"

	"go.uber.org/goleak"

	"millrace/persistence/local"
	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = resttest.Secret

// door is the dialect over a real broker, asked without a socket.
type door struct{ *resttest.Door }

// open starts a broker over the memory driver; all of it ends with tb.
func open(tb testing.TB) *door {
	tb.Helper()
	return openOver(tb, local.Options{})
}

func openOver(tb testing.TB, o local.Options) *door {
	tb.Helper()
	d := resttest.Open(tb, o)
	d.Mux = flowmq.New(d.Broker, d.Shared)
	return &door{d}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	resttest.Must(tb, err)
}
