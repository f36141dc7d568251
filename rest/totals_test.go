package rest_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// creations make one queue or stream more in each dialect, and what the refusal for a
// limit says.
var creations = []struct {
	method, listener, path, body string
	status                       int
	says                         string
}{
	{"POST", "http", "/api/v1/queues", `{"name":"more","topic_filter":"b"}`, 429, `"code":"LIMIT_REACHED"`},
	{"POST", "http", "/api/v1/streams", `{"name":"more","topic_filter":"b"}`, 429, `"code":"LIMIT_REACHED"`},
	{"POST", "http", "/v1/queues", `{"name":"more"}`, 429, `"detail":"1 queues are there`},
	{"POST", "memfifo", "/queues", `{"name":"more","driver":"memfifo"}`, 503, `"error":"1 queues are there`},
	{"POST", "http", "/api/v5/message_queues/queues", `{"name":"more","topic_filter":"b"}`, 409, `"code":"EXCEED_LIMIT"`},
	{"POST", "http", "/api/v5/message_streams/streams", `{"name":"more","topic_filter":"b"}`, 409, `"code":"EXCEED_LIMIT"`},
	{"PUT", "http", "/admin/v2/persistent/public/default/more/partitions", "1", 429, `"1 streams are there`},
	{"POST", "http", "/topics/persistent/public/default/more", `{"messages":[{"payload":"xx"}]}`, 429, `"1 streams are there`},
}

// limitedSite has as many queues and streams as there may be, and nothing stored.
func limitedSite(t *testing.T) *site {
	t.Helper()
	s := openWith(t, func(*broker.Options) {}, nil)
	s.queueFor(t, "memfifo", false)
	_, err := s.broker.CreateStream(auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System}), broker.NewStreamConfig("a", "a"))
	must(t, err)
	return s
}

func TestQueuesAndStreamsBeyondTheLimitAreRefusedByEachDialect(t *testing.T) { // D29
	s := limitedSite(t)
	for _, c := range creations {
		url := "http://" + s.Addr(c.listener).String() + c.path
		must(t, s.broker.SetLimits(broker.Limits{Queues: 1, Streams: 1}))
		if w, text := s.do(t, c.method, url, c.body); w.StatusCode != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s", c.path, w.StatusCode, text)
		}
		must(t, s.broker.SetLimits(broker.Limits{}))
		if w, text := s.do(t, c.method, url, c.body); w.StatusCode/100 != 2 {
			t.Errorf("%s: without a limit %d %s", c.path, w.StatusCode, text)
		}
		ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
		if s.broker.DeleteQueue(ctx, "more") != nil && s.broker.DeleteStream(ctx, "more") != nil {
			must(t, s.broker.DeleteStream(ctx, "public/default/more"))
		}
	}
}

func TestPublishesBeyondWhatMayBeStoredAreRefusedByEachDialect(t *testing.T) { // D29
	statuses := map[string]int{"memfifo": http.StatusServiceUnavailable, "emqx": http.StatusServiceUnavailable, "pulsar": http.StatusOK}
	for _, p := range publishes {
		s := openWith(t, func(*broker.Options) {}, nil)
		s.queueFor(t, p.name, p.direct)
		url := "http://" + s.Addr(p.listener).String() + p.path
		publish := func() (*http.Response, string) { return s.do(t, "POST", url, p.body) }
		if w, text := publish(); w.StatusCode/100 != 2 {
			t.Fatalf("%s: %d %s", p.path, w.StatusCode, text)
		}
		must(t, s.broker.SetLimits(broker.Limits{Stored: 1}))
		want := http.StatusTooManyRequests
		if other := statuses[p.name]; other != 0 {
			want = other
		}
		w, text := publish()
		if w.StatusCode != want || !strings.Contains(text, "limits.stored allows 1;") {
			t.Errorf("%s: %d %s", p.path, w.StatusCode, text)
		}
		if told := w.Header.Get("Retry-After") != ""; told == (p.name == "pulsar") { // whose messages have answers of their own
			t.Errorf("%s: Retry-After %q", p.path, w.Header.Get("Retry-After"))
		}
		ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
		_, err := s.broker.Purge(ctx, "q", false)
		must(t, err)
		for _, d := range []string{"a", "public/default/a"} {
			_ = s.broker.DeleteStream(ctx, d) // Pulsar's
		}
		if w, text := publish(); w.StatusCode/100 != 2 || strings.Contains(text, "limits.stored") {
			t.Errorf("%s: after a purge %d %s", p.path, w.StatusCode, text)
		}
	}
}
