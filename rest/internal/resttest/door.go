// Package resttest is what the tests of every dialect have in common: a dialect
// over a real broker asked without a socket, golden transcripts, the comparison
// of an OpenAPI document with routes and answers, and the commands of a page of
// documentation. Only tests import it.
package resttest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/scenario"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
	"millrace/persistence/local"
	"millrace/rest/internal/httpx"
)

// Keys of the tests: the id, then the role. Secret is the secret of each.
var Keys = map[string]string{"root": "administrator", "view": "viewer", "pub": "publisher", "app": "client"}

// Secret of each of the Keys.
const Secret = "sixteen-or-more-characters"

// Origin is one that browsers may come from.
const Origin = "https://console.example"

// Door is a broker with what a dialect needs to be opened over it. Its opener
// sets Mux.
type Door struct {
	Broker *broker.Broker
	Auth   *auth.Auth
	Shared *httpx.Shared
	Mux    *httpx.Mux
	Drain  context.CancelFunc
	Stop   func() // the broker
	End    func() // all of it
}

// overJetStream says that what is not kept in a folder is kept by a NATS server.
var overJetStream = os.Getenv("MILLRACE_TEST_STORE") == "jetstream"

// late is how much later a lease may end over a NATS server.
var late = func() time.Duration {
	if overJetStream {
		return 20 * time.Millisecond
	}
	return 0
}()

// Scenarios are those of testdata/scenarios. Over a NATS server they wait a day at
// most: it is at work all the time, and costs something for every hour.
func Scenarios(tb testing.TB) []*scenario.Script {
	tb.Helper()
	scripts, err := scenario.Load("../../testdata/scenarios")
	Must(tb, err)
	if overJetStream {
		for _, s := range scripts {
			s.Shorten(24 * time.Hour)
		}
	}
	return scripts
}

// Open starts a broker over the store that o names; all of it ends with tb.
func Open(tb testing.TB, o local.Options) *Door {
	tb.Helper()
	if o.Dir == "" && overJetStream {
		return OpenStore(tb, jetStream(tb))
	}
	store, err := local.Open(o)
	Must(tb, err)
	return OpenStore(tb, store)
}

// jetStream opens a store over a NATS server of its own.
func jetStream(tb testing.TB) broker.Store {
	tb.Helper()
	s, err := jetstream.Open(tb.Context(), jetstream.Options{
		URL: "nats://lone", Replicas: 1, Sync: jetstream.SyncAlways, Hold: time.Hour, Dial: []nats.Option{jetstreamtest.InProcess(tb).Dial()},
	})
	Must(tb, err)
	return likeMemory{s}
}

// likeMemory is a store that answers as the memory driver does, whose answers
// the transcripts hold.
type likeMemory struct{ broker.Store }

// State implements broker.Store.
func (m likeMemory) State() broker.State {
	st := m.Store.State()
	st.Durability = broker.DurabilityMemory
	return st
}

// OpenStore starts a broker over a store, which it closes in the end.
func OpenStore(tb testing.TB, store broker.Store) *Door {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(store, broker.SpaceAuth)})
	Must(tb, err)
	b, err := broker.Open(ctx, broker.Options{Store: store, Auth: a})
	Must(tb, err)
	stop := sync.OnceFunc(func() { Must(tb, b.Close(ctx)) })
	end := sync.OnceFunc(func() {
		stop()
		Must(tb, a.Close(ctx))
		Must(tb, store.Close(ctx))
	})
	tb.Cleanup(end)
	for id, role := range Keys {
		_, _, err := a.AddKey(ctx, auth.KeySpec{ID: id, Secret: Secret, Role: role})
		if !errors.Is(err, auth.ErrExists) { // of an earlier start
			Must(tb, err)
		}
	}
	draining, drain := context.WithCancel(context.Background())
	tb.Cleanup(drain)
	s := &httpx.Shared{Log: zerolog.Nop(), Auth: a, Draining: draining, Origins: []string{Origin}}
	return &Door{Broker: b, Auth: a, Shared: s, Drain: drain, Stop: stop, End: end}
}

// Must ends the test on an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// System is a context of the broker itself, for what comes through other doors.
func System(tb testing.TB) context.Context {
	tb.Helper()
	return auth.WithPrincipal(tb.Context(), &auth.Principal{Kind: auth.System})
}

// Do sends a request as the administrator.
func (d *Door) Do(tb testing.TB, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	return d.As(tb, "root", method, path, body)
}

// As sends a request with one of the Keys.
func (d *Door) As(tb testing.TB, key, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key+"."+Secret)
	return d.Send(r)
}

// Send sends a request as it is.
func (d *Door) Send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.Mux.ServeHTTP(w, r)
	return w
}
