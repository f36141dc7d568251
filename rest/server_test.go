package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
	"millrace/rest"
	"millrace/rest/pulsar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bearer = "Bearer root.sixteen-or-more-characters"

// site is a running server with an administrator and a queue.
type site struct {
	*rest.Server
	broker *broker.Broker
	stop   func() // of the broker
	log    *logged
}

// logged is a log that can be waited on.
type logged struct {
	mu   sync.Mutex
	grew sync.Cond
	text bytes.Buffer
}

func newLogged() *logged {
	l := &logged{}
	l.grew.L = &l.mu
	return l
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.grew.Broadcast()
	return l.text.Write(p)
}

// await returns once the log holds all the parts in one line.
func (l *logged) await(parts ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !slices.ContainsFunc(strings.Split(l.text.String(), "\n"), func(line string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	}) {
		l.grew.Wait()
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func openSite(tb testing.TB, change func(*rest.Options)) *site {
	tb.Helper()
	return openRated(tb, auth.Rates{}, change)
}

// openRated opens a site whose identities have rates.
func openRated(tb testing.TB, rates auth.Rates, change func(*rest.Options)) *site {
	tb.Helper()
	return openLimited(tb, rates, 0, change)
}

// openLimited opens one where so many receives wait at once, 0 for the default.
func openLimited(tb testing.TB, rates auth.Rates, waiting int, change func(*rest.Options)) *site {
	tb.Helper()
	return openSiteOf(tb, auth.Options{Rates: rates}, func(o *broker.Options) { o.MaxWaiting = waiting }, change)
}

// openWith opens one over a broker with other options.
func openWith(tb testing.TB, options func(*broker.Options), change func(*rest.Options)) *site {
	tb.Helper()
	return openSiteOf(tb, auth.Options{}, options, change)
}

func openSiteOf(tb testing.TB, accounts auth.Options, options func(*broker.Options), change func(*rest.Options)) *site {
	tb.Helper()
	ctx := context.WithoutCancel(tb.Context())
	store, err := local.Open(local.Options{})
	must(tb, err)
	accounts.Store = broker.NewKeys(store, broker.SpaceAuth)
	a, err := auth.Open(ctx, accounts)
	must(tb, err)
	_, _, err = a.AddKey(ctx, auth.KeySpec{ID: "root", Secret: "sixteen-or-more-characters", Role: "administrator"})
	must(tb, err)
	bo := broker.Options{Store: store, Auth: a}
	options(&bo)
	b, err := broker.Open(ctx, bo)
	must(tb, err)
	log := newLogged()
	o := rest.Options{
		Broker: b, Log: zerolog.New(log),
		Listeners: []rest.Listener{
			{Name: "http", Address: "127.0.0.1:0", Dialects: []rest.Dialect{rest.FlowMQ, rest.EMQX, rest.FastQueue, rest.Pulsar}},
			{Name: "memfifo", Address: "127.0.0.1:0", Dialects: []rest.Dialect{rest.Memfifo}},
		},
		Notice: "development", Pulsar: pulsar.Options{CreateTopics: true},
	}
	if change != nil {
		change(&o)
	}
	s, err := rest.Listen(ctx, o)
	must(tb, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	stop := sync.OnceFunc(func() { must(tb, b.Close(ctx)) })
	tb.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		must(tb, s.Close(ctx))
		must(tb, <-served)
		stop()
		must(tb, a.Close(ctx))
		must(tb, store.Close(ctx))
	})
	return &site{s, b, stop, log}
}

func (s *site) url(path string) string { return "http://" + s.Addr("http").String() + path }

// do sends a request as the administrator and returns the answer with its body read.
func (s *site) do(tb testing.TB, method, url, body string) (*http.Response, string) {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	must(tb, err)
	r.Header.Set("Authorization", bearer)
	r.Header.Set("Client-Id", "test") // memfifo asks for one
	if method == "POST" {
		r.Header.Set("Content-Type", "application/json") // and EMQX for this
	}
	w, err := http.DefaultClient.Do(r)
	must(tb, err)
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	must(tb, err)
	return w, string(text)
}

// raw sends bytes on a connection of its own and returns the first answer's
// status, 0 when the connection ended without one.
func (s *site) raw(tb testing.TB, text string) (status int, closed bool) {
	tb.Helper()
	c, err := net.Dial("tcp", s.Addr("http").String())
	must(tb, err)
	defer c.Close()
	must(tb, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(c, text)
	must(tb, err)
	r := bufio.NewReader(c)
	w, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, true
	}
	_, _ = io.Copy(io.Discard, w.Body)
	_ = w.Body.Close()
	return w.StatusCode, w.Close
}

func TestThePrefixChoosesTheShapeOfEveryAnswer(t *testing.T) {
	s := openSite(t, nil)
	memfifo := "http://" + s.Addr("memfifo").String()
	for url, want := range map[string]struct {
		status int
		body   string
	}{
		s.url("/api/v1/none"):              {404, `{"success":false,"data":null,"error":{"code":"NOT_FOUND"`},
		s.url("/api/v1"):                   {404, `{"success":false`},
		s.url("/api/v10"):                  {404, `{"error":"no such path"}`},
		s.url("//api/v1/queues"):           {404, `{"error":"no such path"}`},
		s.url("/%61pi/v1/queues"):          {404, `{"error":"no such path"}`},
		s.url("/api/v1/namespace"):         {200, `{"success":true`},
		s.url("/api/v5/clients"):           {200, `{"data":[]`},
		s.url("/api/v5/none"):              {404, `{"code":"NOT_FOUND"`},
		s.url("/status"):                   {200, "Node millrace@127.0.0.1 is started"},
		s.url("/api-docs/swagger.json"):    {200, `{"openapi": "3.0.3"`},
		s.url("/v1/queues"):                {200, `{"queues":[]`},
		s.url("/v1/none"):                  {404, `{"detail":"no such path"}`},
		s.url("/health"):                   {200, `{"message":"ok"}`},
		s.url("/api-docs/fastqueue.yaml"):  {200, "openapi: 3.1.0"},
		s.url("/topics/a/b/c"):             {405, `{"error_code":40501`},
		s.url("/topics"):                   {404, `{"error_code":40404`},
		s.url("/api-docs/pulsar.yaml"):     {200, "openapi: 3.1.0"},
		s.url("/queues"):                   {404, `{"error":"no such path"}`}, // memfifo is not served here
		memfifo + "/queues":                {200, "[]"},
		memfifo + "/anything":              {404, `{"error":"no such path"}`},
		memfifo + "/api/v1/namespace":      {404, `{"error":"no such path"}`},
		memfifo + "/api-docs/memfifo.yaml": {200, "openapi: 3.1.0"},
		memfifo + "/api-docs/flowmq.yaml":  {404, `{"error":"no such path"}`},
		memfifo + "/livez":                 {200, `{"status":"ok"}`},
		s.url("/"):                         {200, "# Millrace"},
		s.url("/livez"):                    {200, `{"status":"ok"}`},
		s.url("/readyz"):                   {200, `{"status":"ok"}`},
		s.url("/healthz"):                  {200, `{"status":"ok"}`},
		s.url("/api-docs/flowmq.yaml"):     {200, "openapi: 3.1.0"},
		s.url("/api-docs/memfifo.yaml"):    {200, "openapi: 3.1.0"},
		s.url("/favicon.ico"):              {404, `{"error":"no such path"}`},
		s.url("/api/v1/../v1/namespace"):   {404, `{"success":false`},
	} {
		w, body := s.do(t, "GET", url, "")
		if w.StatusCode != want.status || !strings.HasPrefix(body, want.body) {
			t.Errorf("%s: %d %s, want %d %s", url, w.StatusCode, body, want.status, want.body)
		}
		h := w.Header
		if h.Get("Server") != "millrace" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Millrace-Notice") != "development" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: headers %v", url, h)
		}
	}
}

func TestMemfifoAsksForCredentialsUnlessItIsOpen(t *testing.T) {
	for _, open := range []bool{false, true} {
		s := openSite(t, func(o *rest.Options) { o.MemfifoOpen = open })
		want := 401
		if open {
			want = 200
		}
		w, err := http.Get("http://" + s.Addr("memfifo").String() + "/queues")
		must(t, err)
		must(t, w.Body.Close())
		if w.StatusCode != want {
			t.Errorf("open %v: status %d", open, w.StatusCode)
		}
		if w, err = http.Get(s.url("/api/v1/queues")); err != nil || w.StatusCode != 401 {
			t.Errorf("/api/v1 without credentials: %v, %v", w, err)
		}
		must(t, w.Body.Close())
	}
}

func TestReadinessEndsWithTheDrainAndWaitsAreAnswered(t *testing.T) {
	s := openSite(t, nil)
	s.do(t, "POST", s.url("/api/v1/queues"), `{"name":"q","topic_filter":"a"}`)
	answered := make(chan string, 1)
	go func() {
		_, body := s.do(t, "POST", s.url("/api/v1/queues/q/messages/consume"), `{"timeout_seconds":60}`)
		answered <- body
	}()
	s.log.await(`"path":"/api/v1/queues"`, `"status":201`, `"dialect":"flowmq"`)
	s.Drain()
	if body := <-answered; !strings.Contains(body, `"count":0`) {
		t.Errorf("the wait was answered %s", body)
	}
	w, body := s.do(t, "GET", s.url("/readyz"), "")
	if w.StatusCode != 503 || w.Header.Get("Retry-After") == "" || !strings.Contains(body, `"reason":"draining"`) {
		t.Errorf("readyz: %d %s", w.StatusCode, body)
	}
	if w, _ := s.do(t, "GET", s.url("/livez"), ""); w.StatusCode != 200 {
		t.Errorf("livez: %d", w.StatusCode)
	}
	if w, _ := s.do(t, "POST", s.url("/api/v1/topics/a/messages"), `{"payload":"x"}`); w.StatusCode != 200 {
		t.Errorf("publish while draining: %d", w.StatusCode)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, s.Close(ctx))
	if _, err := net.Dial("tcp", s.Addr("http").String()); err == nil {
		t.Error("a closed server accepts")
	}
}

func TestReadinessEndsWhenTheBrokerStops(t *testing.T) {
	s := openSite(t, nil)
	s.stop()
	for _, path := range []string{"/readyz", "/healthz"} {
		if w, body := s.do(t, "GET", s.url(path), ""); w.StatusCode != 503 || !strings.Contains(body, "shutting down") {
			t.Errorf("%s: %d %s", path, w.StatusCode, body)
		}
	}
	if w, body := s.do(t, "POST", s.url("/api/v1/topics/a/messages"), `{"payload":"x"}`); w.StatusCode != 503 || !strings.Contains(body, `"outcome":"rejected"`) {
		t.Errorf("publish: %d %s", w.StatusCode, body)
	}
}

func TestBadRequestsEndTheConnection(t *testing.T) {
	s := openSite(t, nil)
	const host = "Host: x\r\nAuthorization: " + bearer + "\r\n"
	for name, c := range map[string]struct {
		text   string
		status []int // any of them
		closed bool
	}{
		"17 KiB of headers":           {"GET /livez HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 17<<10) + "\r\n\r\n", []int{431}, true},
		"15 KiB of headers":           {"GET /livez HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 15<<10) + "\r\n\r\n", []int{200}, false},
		"an idempotency key of 1 MiB": {"POST /api/v1/topics/a/messages HTTP/1.1\r\n" + host + "Idempotency-Key: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", []int{431}, true},
		"unknown transfer encoding":   {"POST /api/v1/queues HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", []int{501, 400}, true},
		"two lengths":                 {"POST /api/v1/queues HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", []int{400}, true},
		"space before the colon":      {"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n", []int{400}, true},
		"a huge chunk":                {"POST /api/v1/queues HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", []int{400, 413}, true},
		"a malformed chunk":           {"POST /api/v1/queues HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", []int{400}, true},
		"a malformed escape":          {"GET /api/v1/queues/%zz HTTP/1.1\r\n" + host + "\r\n", []int{400}, true},
		"no host":                     {"GET /livez HTTP/1.1\r\n\r\n", []int{400}, true},
		"8 MiB and a byte announced":  {"POST /api/v1/queues HTTP/1.1\r\n" + host + "Content-Length: 8388609\r\n\r\n", []int{413}, true},
		"CONNECT":                     {"CONNECT x:80 HTTP/1.1\r\n" + host + "\r\n", []int{405}, false},
		"TRACE":                       {"TRACE /api/v1/queues HTTP/1.1\r\n" + host + "\r\n", []int{405}, false},
		"a NUL in the path":           {"POST /api/v1/topics/%00/messages HTTP/1.1\r\n" + host + "Content-Length: 14\r\n\r\n{\"payload\":\"\"}", []int{400}, false},
	} {
		status, closed := s.raw(t, c.text)
		if !strings.Contains(fmt.Sprint(c.status), fmt.Sprint(status)) || closed != c.closed {
			t.Errorf("%s: status %d, closed %v, want %v, %v", name, status, closed, c.status, c.closed)
		}
	}
}

func TestChunkedBodyOverTheLimitIs413(t *testing.T) {
	s := openSite(t, nil)
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url("/api/v1/queues"), io.MultiReader(strings.NewReader(strings.Repeat(" ", 9<<20))))
	must(t, err)
	r.Header.Set("Authorization", bearer)
	w, err := http.DefaultClient.Do(r)
	must(t, err)
	defer w.Body.Close()
	if body, _ := io.ReadAll(w.Body); w.StatusCode != 413 || !w.Close || !strings.Contains(string(body), "PAYLOAD_TOO_LARGE") {
		t.Errorf("status %d, close %v, %s", w.StatusCode, w.Close, body)
	}
}

func TestListenBindsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	b := openSite(t, nil).broker
	_, err = rest.Listen(t.Context(), rest.Options{Broker: b, Log: zerolog.Nop(), Listeners: []rest.Listener{
		{Name: "a", Address: "127.0.0.1:0"}, {Name: "b", Address: taken.Addr().String()},
	}})
	if err == nil || !strings.Contains(err.Error(), "listen on "+taken.Addr().String()+" for b") {
		t.Errorf("error %v", err)
	}
}

func TestMountsAreServedAtTheirPath(t *testing.T) {
	s := openSite(t, func(o *rest.Options) {
		o.Mounts = map[string]http.Handler{"/mqtt": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			_ = c.Close()
		})}
	})
	if status, _ := s.raw(t, "GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"); status != 101 {
		t.Errorf("status %d", status)
	}
}

// overTLS opens a site with one listener over TLS, which offers protos.
func overTLS(tb testing.TB, protos ...string) *site {
	tb.Helper()
	h := httptest.NewUnstartedServer(nil)
	h.StartTLS()
	config := &tls.Config{Certificates: h.TLS.Certificates, NextProtos: protos}
	h.Close()
	return openSite(tb, func(o *rest.Options) {
		o.Listeners = []rest.Listener{{Name: "https", Address: "127.0.0.1:0", TLS: config, Dialects: []rest.Dialect{rest.FlowMQ, rest.EMQX}}}
	})
}

// trusting is a client of HTTP/2, if it is offered, that takes any certificate.
func trusting(tb testing.TB) *http.Client {
	tb.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	tb.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func TestTLS(t *testing.T) {
	for protos, want := range map[string]int{"h2 http/1.1": 2, "http/1.1": 1, "": 1} {
		s := overTLS(t, strings.Fields(protos)...)
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.Addr("https").String()+"/api/v1/namespace", nil)
		must(t, err)
		r.Header.Set("Authorization", bearer)
		w, err := trusting(t).Do(r)
		must(t, err)
		body, _ := io.ReadAll(w.Body)
		must(t, w.Body.Close())
		if w.ProtoMajor != want || !strings.Contains(string(body), `"endpoint":"https://`) {
			t.Errorf("%q: HTTP/%d: %s", protos, w.ProtoMajor, body)
		}
	}
}

func TestPlainHTTPAtAPortOfTLSIsTold(t *testing.T) {
	s := overTLS(t, "h2")
	c, err := net.Dial("tcp", s.Addr("https").String())
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	if text, _ := io.ReadAll(c); !strings.HasPrefix(string(text), "HTTP/1.0 400 ") {
		t.Errorf("%q", text)
	}
}

func TestClientThatLeavesItsWaitTakesNothing(t *testing.T) {
	s := openSite(t, nil)
	s.do(t, "POST", s.url("/api/v1/queues"), `{"name":"q","topic_filter":"a"}`)
	c, err := net.Dial("tcp", s.Addr("http").String())
	must(t, err)
	const body = `{"timeout_seconds":60}`
	_, err = fmt.Fprintf(c, "POST /api/v1/queues/q/messages/consume HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", bearer, len(body), body)
	must(t, err)
	must(t, c.Close())
	s.log.await(`"path":"/api/v1/queues/q/messages/consume"`)
	s.do(t, "POST", s.url("/api/v1/topics/a/messages"), `{"payload":"x"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ctx = auth.WithPrincipal(ctx, &auth.Principal{Kind: auth.System})
	got, err := s.broker.Receive(ctx, "q", broker.ReceiveOptions{Max: 1, Wait: 10 * time.Second, Lease: time.Minute})
	if err != nil || len(got) != 1 || got[0].Attempt != 1 {
		t.Fatalf("the next consumer got %v, %v", got, err)
	}
}
