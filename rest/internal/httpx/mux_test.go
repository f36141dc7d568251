package httpx_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a dialect that tells what it was given.
func echo(s *httpx.Shared, authenticate func(*httpx.Request) (*auth.Principal, error)) *httpx.Mux {
	say := func(w http.ResponseWriter, r *httpx.Request, text string) error {
		return httpx.WriteJSON(w, r, http.StatusOK, httpx.AppendString(r.Buffer(), text))
	}
	return httpx.NewMux(s, httpx.Dialect{
		Name: "echo",
		Routes: []httpx.Route{
			{Method: "GET", Path: "/q/:name", Handler: func(w http.ResponseWriter, r *httpx.Request) error { return say(w, r, r.Param("name")) }},
			{Method: "DELETE", Path: "/q/:name", Handler: func(w http.ResponseWriter, r *httpx.Request) error { return httpx.ErrNoRoute }},
			{Method: "POST", Path: "/t/*rest", Handler: func(w http.ResponseWriter, r *httpx.Request) error { return say(w, r, r.Param("rest")) }},
			{Method: "GET", Path: "/pop", Unsafe: true, Handler: func(w http.ResponseWriter, r *httpx.Request) error {
				r.SetClient("reader-1")
				return say(w, r, "gone")
			}},
			{Method: "POST", Path: "/panic", Handler: func(w http.ResponseWriter, r *httpx.Request) error { panic("boom") }},
			{Method: "POST", Path: "/fault", Handler: func(w http.ResponseWriter, r *httpx.Request) error { return errors.New("disk on fire") }},
			{Method: "POST", Path: "/body", Handler: func(w http.ResponseWriter, r *httpx.Request) error {
				b, err := r.ReadBody(8)
				if err != nil {
					return err
				}
				return say(w, r, string(b))
			}},
		},
		Authenticate: authenticate,
		RenderError: func(w http.ResponseWriter, r *httpx.Request, err error) {
			status, text := http.StatusTeapot, err.Error()
			if e, ok := errors.AsType[*httpx.StatusError](err); ok {
				status = e.Status
			} else if broker.KindOf(err) == broker.Internal {
				status = http.StatusInternalServerError
			}
			_ = httpx.WriteJSON(w, r, status, httpx.AppendString(r.Buffer(), text))
		},
	})
}

func shared(log io.Writer) *httpx.Shared {
	return &httpx.Shared{Log: zerolog.New(log), Draining: context.Background(), Origins: []string{"https://console.example"}}
}

func send(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoutingGoesByTheEscapedPath(t *testing.T) {
	m := echo(shared(io.Discard), nil)
	for _, c := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/q/a", 200, `"a"`},
		{"GET", "/q/a%2Fb%20c%2500", 200, `"a/b c%00"`},
		{"GET", "/q/a+b", 200, `"a+b"`},
		{"GET", "/q/a/b", 404, `"no such path"`},
		{"GET", "/q/a/", 404, `"no such path"`},
		{"GET", "/Q/a", 404, `"no such path"`},
		{"GET", "//q/a", 404, `"no such path"`},
		{"DELETE", "/q/a", 404, `"no such path"`},
		{"POST", "/t/a//b/../c/", 200, `"/a//b/../c/"`},
		{"POST", "/t/%2e%2e%2f", 200, `"/%2e%2e%2f"`},
		{"HEAD", "/q/a", 200, ""},
		{"POST", "/q/a", 405, `"method POST is not allowed here"`},
		{"BREW", "/q/a", 405, `"method BREW is not allowed here"`},
		{"TRACE", "/t/x", 405, `"method TRACE is not allowed here"`},
		{"OPTIONS", "/q/a", 204, ""},
		{"OPTIONS", "/none", 404, `"no such path"`},
	} {
		w := send(m, c.method, c.target, "")
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.target, w.Code, w.Body, c.status, c.body)
		}
		if c.status == 405 || c.status == 204 {
			want := "DELETE, GET, HEAD, OPTIONS"
			if strings.HasPrefix(c.target, "/t") {
				want = "POST, OPTIONS"
			}
			if got := w.Header().Get("Allow"); got != want {
				t.Errorf("%s %s: Allow %q, want %q", c.method, c.target, got, want)
			}
		}
	}
}

func TestPanicBecomesTheDialects500AndIsLoggedWithoutTheBody(t *testing.T) {
	var log bytes.Buffer
	s := shared(&log)
	w := send(echo(s, nil), "POST", "/panic", `{"password":"hunter2"}`, "Authorization", "Bearer id.hunter2")
	if w.Code != 500 || s.Panics.Load() != 1 {
		t.Errorf("status %d, %d panics counted", w.Code, s.Panics.Load())
	}
	if text := log.String(); !strings.Contains(text, "request panicked") || strings.Contains(text, "hunter2") {
		t.Errorf("log: %s", text)
	}
}

func TestOwnFaultsAreLoggedUnderTheRequestID(t *testing.T) {
	var log bytes.Buffer
	w := send(echo(shared(&log), nil), "POST", "/fault", "", "X-Request-Id", "my-id.1")
	if w.Code != 500 || w.Header().Get("X-Request-Id") != "my-id.1" {
		t.Errorf("status %d, id %q", w.Code, w.Header().Get("X-Request-Id"))
	}
	if text := log.String(); !strings.Contains(text, "disk on fire") || !strings.Contains(text, "my-id.1") {
		t.Errorf("log: %s", text)
	}
}

func TestUnfitRequestIDsAreReplaced(t *testing.T) {
	m := echo(shared(io.Discard), nil)
	for _, id := range []string{"", strings.Repeat("x", 65), "a b", "a\x1b[31m", "ä", `a"b`} {
		if got := send(m, "GET", "/q/a", "", "X-Request-Id", id).Header().Get("X-Request-Id"); got == id || got == "" {
			t.Errorf("%q was answered with %q", id, got)
		}
	}
	id := strings.Repeat("x", 64)
	if got := send(m, "GET", "/q/a", "", "X-Request-Id", id).Header().Get("X-Request-Id"); got != id {
		t.Errorf("64 characters were answered with %q", got)
	}
}

func TestBodyOverItsLimitIsRefusedWithAndWithoutLength(t *testing.T) {
	m := echo(shared(io.Discard), nil)
	for _, chunked := range []bool{false, true} {
		for body, ok := range map[string]bool{"": true, "12345678": true, "123456789": false} {
			r := httptest.NewRequest("POST", "/body", strings.NewReader(body))
			if chunked {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			if (w.Code == 200) != ok || (w.Header().Get("Connection") == "close") == ok {
				t.Errorf("%d bytes, chunked %v: status %d, Connection %q", len(body), chunked, w.Code, w.Header().Get("Connection"))
			}
		}
	}
}

func TestOnlyKnownOriginsPass(t *testing.T) {
	m := echo(shared(io.Discard), nil)
	for origin, want := range map[string]int{
		"https://console.example": 200, "http://example.com": 200, "https://EXAMPLE.com": 200,
		"https://evil.example": 418, "null": 418, "http://console.example": 418, "example.com": 418, "https://console.example:444": 418,
	} {
		w := send(m, "GET", "/q/a", "", "Origin", origin)
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", origin, w.Code, want)
		}
		if shown := w.Header().Get("Access-Control-Allow-Origin"); (shown != "") != (origin == "https://console.example") {
			t.Errorf("%s: allowed origin %q", origin, shown)
		}
	}
	w := send(m, "OPTIONS", "/q/a", "", "Origin", "https://console.example", "Access-Control-Request-Method", "DELETE")
	if w.Code != 204 || !strings.Contains(w.Header().Get("Access-Control-Allow-Methods"), "DELETE") {
		t.Errorf("preflight: %d %v", w.Code, w.Header())
	}
}

func TestQueryNumbersAreChecked(t *testing.T) {
	var page httpx.Page
	m := httpx.NewMux(shared(io.Discard), httpx.Dialect{
		Routes: []httpx.Route{{Method: "GET", Path: "/", Handler: func(w http.ResponseWriter, r *httpx.Request) (err error) {
			page, err = httpx.ReadPage(r)
			return err
		}}},
		RenderError: func(w http.ResponseWriter, _ *httpx.Request, err error) { http.Error(w, err.Error(), 400) },
	})
	for query, want := range map[string]httpx.Page{
		"": {50, 0}, "?limit=1&offset=7": {1, 7}, "?limit=1000": {1000, 0},
		"?limit=0": {}, "?limit=1001": {}, "?limit=-1": {}, "?limit=x": {}, "?limit=": {}, "?offset=-1": {},
		"?offset=99999999999999999999": {}, "?limit=1&limit=2": {}, "?limit=%zz": {}, "?limit=1;offset=2": {},
	} {
		page = httpx.Page{}
		if w := send(m, "GET", "/"+query, ""); (w.Code == 200) != (want != httpx.Page{}) || w.Code == 200 && page != want {
			t.Errorf("%s: status %d, page %v, want %v", query, w.Code, page, want)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"/q/a%2Fb", "/t/a//b", "/q/%00", "/t/%ff", "/q/..%2f", "//q/a", "/q/a;x", "/", ""} {
		f.Add(p)
	}
	m := echo(shared(io.Discard), nil)
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := r.URL.Parse("/")
		if err != nil {
			t.Fatal(err)
		}
		u.Path, u.RawPath = path, ""
		if p, err := httpx.Unescape(path); err == nil {
			u.Path, u.RawPath = p, path
		}
		r.URL = u
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		if w.Code == 500 {
			t.Fatalf("%q: %s", path, w.Body)
		}
	})
}

func TestAGetThatChangesSomethingIsNoAnswerToHead(t *testing.T) {
	var log bytes.Buffer
	m := echo(shared(&log), nil)
	for method, want := range map[string]int{"GET": 200, "HEAD": 405, "OPTIONS": 204} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(method, "/pop", nil))
		if allow := w.Header().Get("Allow"); w.Code != want || want != 200 && allow != "GET, OPTIONS" {
			t.Errorf("%s: status %d, Allow %q", method, w.Code, allow)
		}
	}
	if !strings.Contains(log.String(), `"client":"reader-1"`) {
		t.Errorf("the log does not name the client: %s", &log)
	}
}

// short is a client that takes so many bytes and no more.
type short struct {
	*httptest.ResponseRecorder
	takes int
}

func (s *short) Write(b []byte) (int, error) {
	if s.takes -= len(b); s.takes < 0 {
		return 0, io.ErrClosedPipe
	}
	return s.ResponseRecorder.Write(b)
}

func TestRawBodiesThatCannotBeWrittenAreAnError(t *testing.T) {
	for size, takes := range map[int]int{0: 0, 1: 1, 512: 512, 513: 513, 100_000: 100_000, 10: 9, 600: 599, 100_001: 70_000} {
		var err error
		m := httpx.NewMux(shared(io.Discard), httpx.Dialect{Routes: []httpx.Route{{Method: "GET", Path: "/", Handler: func(w http.ResponseWriter, r *httpx.Request) error {
			err = httpx.WriteRaw(w, r, "a/b; c=d", bytes.Repeat([]byte("x"), size))
			return nil
		}}}})
		w := &short{httptest.NewRecorder(), takes}
		m.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if (err != nil) != (takes < size) || err != nil && broker.KindOf(err) != broker.Unavailable {
			t.Errorf("%d bytes to a client that takes %d: %v", size, takes, err)
		}
		if err == nil && (w.Body.Len() != size || w.Header().Get("Content-Type") != "a/b; c=d") {
			t.Errorf("%d bytes: wrote %d, %v", size, w.Body.Len(), w.Header())
		}
	}
}
