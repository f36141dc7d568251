package flowmq_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
	"millrace/rest/flowmq"
	"millrace/rest/internal/httpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keys of the tests: the id, then the role.
var keys = map[string]string{"root": "administrator", "view": "viewer", "pub": "publisher", "app": "client"}

const secret = "sixteen-or-more-characters"

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
	ctx := context.WithoutCancel(tb.Context())
	store, err := local.Open(o)
	must(tb, err)
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(store, broker.SpaceAuth)})
	must(tb, err)
	b, err := broker.Open(ctx, broker.Options{Store: store, Auth: a})
	must(tb, err)
	stop := sync.OnceFunc(func() { must(tb, b.Close(ctx)) })
	end := sync.OnceFunc(func() {
		stop()
		must(tb, a.Close(ctx))
		must(tb, store.Close(ctx))
	})
	tb.Cleanup(end)
	for id, role := range keys {
		_, _, err := a.AddKey(ctx, auth.KeySpec{ID: id, Secret: secret, Role: role})
		if !errors.Is(err, auth.ErrExists) { // of an earlier start
			must(tb, err)
		}
	}
	draining, drain := context.WithCancel(context.Background())
	tb.Cleanup(drain)
	s := &httpx.Shared{Log: zerolog.Nop(), Draining: draining, Origins: []string{"https://console.example"}}
	return &door{broker: b, shared: s, mux: flowmq.New(b, s), drain: drain, stop: stop, end: end}
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
