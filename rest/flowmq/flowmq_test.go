package flowmq_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"millrace/broker"
	"millrace/persistence/local"
	"millrace/rest/flowmq"
	"millrace/rest/internal/httpx"
	"millrace/rest/internal/resttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = resttest.Secret

// door is the dialect over a real broker, asked without a socket.
type door struct {
	broker *broker.Broker
	shared *httpx.Shared
	mux    *httpx.Mux
	drain  context.CancelFunc
	stop   func() // of the broker
	end    func() // of all of it
}

// open starts a broker over the memory driver; all of it ends with tb.
func open(tb testing.TB) *door {
	tb.Helper()
	return openOver(tb, local.Options{})
}

func openOver(tb testing.TB, o local.Options) *door {
	tb.Helper()
	d := resttest.Open(tb, o)
	d.Mux = flowmq.New(d.Broker, d.Shared)
	return &door{broker: d.Broker, shared: d.Shared, mux: d.Mux, drain: d.Drain, stop: d.Stop, end: d.End}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// do sends a request as the administrator.
func (d *door) do(tb testing.TB, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	return d.as(tb, "root", method, path, body)
}

func (d *door) as(tb testing.TB, key, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key+"."+secret)
	return d.send(r)
}

func (d *door) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.mux.ServeHTTP(w, r)
	return w
}
