package memfifo_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"millrace/broker"
	"millrace/persistence/local"
	"millrace/rest/internal/httpx"
	"millrace/rest/internal/resttest"
	"millrace/rest/memfifo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = resttest.Secret

// door is the dialect over a real broker, asked without a socket.
type door struct {
	broker *broker.Broker
	system context.Context //nolint:containedctx // of the broker itself, for what comes through other doors
	shared *httpx.Shared
	mux    *httpx.Mux // asks nobody for credentials
	locked *httpx.Mux // does
	close  func()
}

// open starts a broker over the memory driver; all of it ends with tb.
func open(tb testing.TB) *door {
	tb.Helper()
	return openOver(tb, local.Options{})
}

func openOver(tb testing.TB, o local.Options) *door {
	tb.Helper()
	store, err := local.Open(o)
	must(tb, err)
	return openStore(tb, store)
}

func openStore(tb testing.TB, store broker.Store) *door {
	tb.Helper()
	d := resttest.OpenStore(tb, store)
	return &door{
		broker: d.Broker, shared: d.Shared, close: d.End,
		mux: memfifo.New(d.Broker, d.Shared, memfifo.Options{Open: true}), locked: memfifo.New(d.Broker, d.Shared, memfifo.Options{}),
		system: resttest.System(tb),
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// request makes one with the headers that the dialect asks for.
func request(tb testing.TB, method, path, body string) *http.Request {
	tb.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(tb.Context(), method, path, in)
	if strings.HasSuffix(path, "/messages") {
		r.Header.Set("Client-Id", "tester")
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (d *door) do(tb testing.TB, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	return d.send(request(tb, method, path, body))
}

func (d *door) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.mux.ServeHTTP(w, r)
	return w
}

// wants sends a request that must be answered with status, and returns the body.
func (d *door) wants(tb testing.TB, status int, method, path, body string) string {
	tb.Helper()
	w := d.do(tb, method, path, body)
	if w.Code != status {
		tb.Fatalf("%s %s %.200s: status %d, want %d: %s", method, path, body, w.Code, status, w.Body)
	}
	return w.Body.String()
}

// queue makes a queue of a driver with attributes.
func (d *door) queue(tb testing.TB, name, driver, attributes string) {
	tb.Helper()
	d.wants(tb, 200, "POST", "/queues", `{"name":"`+name+`","driver":"`+driver+`","attributes":{`+attributes+`}}`)
}

// submit and read move one message.
func (d *door) submit(tb testing.TB, queue, body string) string {
	tb.Helper()
	return d.wants(tb, 200, "POST", "/queues/"+queue+"/messages", body)
}

func (d *door) read(tb testing.TB, queue string) string {
	tb.Helper()
	return d.wants(tb, 200, "GET", "/queues/"+queue+"/messages", "")
}

func (d *door) empty(tb testing.TB, queue string) {
	tb.Helper()
	if body := d.wants(tb, 204, "GET", "/queues/"+queue+"/messages", ""); body != "" {
		tb.Errorf("204 has the body %q", body)
	}
}
