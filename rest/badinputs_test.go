package rest_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest"
)

// everyDoor is a path of each dialect that wants credentials.
func (s *site) everyDoor() map[string]string {
	memfifo := "http://" + s.Addr("memfifo").String()
	return map[string]string{
		"flowmq": s.url("/api/v1/queues"), "emqx": s.url("/api/v5/clients"), "fastqueue": s.url("/v1/queues"),
		"pulsar": s.url("/admin/v2/persistent/public/default/x/partitions"), "memfifo": memfifo + "/queues",
	}
}

// send sends a request with these headers and no others.
func send(t *testing.T, method, url string, h http.Header) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	if r.Header = h.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Client-Id", "test")
	w, err := http.DefaultClient.Do(r)
	must(t, err)
	_, _ = io.Copy(io.Discard, w.Body)
	must(t, w.Body.Close())
	return w.StatusCode
}

func TestCredentialsInWrongPlacesAre401AtEveryDoor(t *testing.T) { // X243, X244, X246, X247
	s := openSite(t, nil)
	const key = "root.sixteen-or-more-characters"
	s.do(t, "POST", s.url("/api/v1/users"), `{"username":"ann","password":"a password of hers","superuser":true}`)
	for door, url := range s.everyDoor() {
		if got := send(t, "GET", url, http.Header{"Authorization": {"Bearer " + key}}); got == 401 || got == 403 {
			t.Errorf("%s: %d with a right key", door, got)
		}
		for name, h := range map[string]http.Header{
			"none":          nil,
			"an empty one":  {"Authorization": {"Bearer"}},
			"two":           {"Authorization": {"Bearer " + key, "Bearer " + key}},
			"no base64":     {"Authorization": {"Basic !!!"}},
			"no colon":      {"Authorization": {"Basic cm9vdA=="}},
			"no secret":     {"Authorization": {"Basic cm9vdDo="}},
			"a NUL":         {"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("root\x00:sixteen-or-more-characters"))}},
			"a user's":      {"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("ann:a password of hers"))}}, // D11
			"another case":  {"Authorization": {"Bearer Root.sixteen-or-more-characters"}},
			"one character": {"Authorization": {"Bearer root.sixteen-or-more-characterS"}},
			"a cookie":      {"Cookie": {"access_token=" + key}},
			"a header":      {"X-Api-Key": {key}},
			"a proxy's":     {"Proxy-Authorization": {"Bearer " + key}},
		} {
			if got := send(t, "GET", url, h); got != 401 {
				t.Errorf("%s: %d with credentials in the wrong place: %s", door, got, name)
			}
		}
		if got := send(t, "GET", url+"?access_token="+key+"&key="+key, nil); got != 401 {
			t.Errorf("%s: %d with a key in the query", door, got)
		}
	}
}

func TestAMethodIsWhatTheRequestLineSays(t *testing.T) { // X191, X192
	s := openSite(t, nil)
	h := http.Header{"Authorization": {bearer}}
	for door, url := range s.everyDoor() {
		for _, method := range []string{"TRACE", "BREW", "get"} {
			if got := send(t, method, url, h); got != 405 {
				t.Errorf("%s: %s is answered %d", door, method, got)
			}
		}
	}
	s.do(t, "POST", s.url("/api/v1/queues"), `{"name":"q","topic_filter":"a"}`)
	for _, override := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
		h := http.Header{"Authorization": {bearer}, override: {"DELETE"}}
		if got := send(t, "GET", s.url("/api/v1/queues/q"), h); got != 200 {
			t.Errorf("%s: %d", override, got)
		}
	}
	if w, _ := s.do(t, "GET", s.url("/api/v1/queues/q"), ""); w.StatusCode != 200 {
		t.Errorf("the queue is gone: %d", w.StatusCode)
	}
}

func TestAPathHasTheCheckOfWhereItLeads(t *testing.T) { // X193
	s := openSite(t, nil)
	for _, path := range []string{
		"/api/v1/topics/../keys", "/api/v1/topics/%2e%2e/keys", "/api/v1/topics/%2e%2e%2fkeys/messages", "//api/v1/keys", "/api/v1//keys",
		"/livez/../api/v1/keys", "/api/v1/keys;x", "/api/v1/keys/", "/API/v1/keys", "/api-docs/../api/v1/keys",
	} {
		status, _ := s.raw(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		if status != 400 && status != 401 && status != 404 && status != 405 {
			t.Errorf("%s is answered %d without credentials", path, status)
		}
	}
}

func TestTooManyWaitsAre429WithRetryAfter(t *testing.T) { // X204
	s := openLimited(t, auth.Rates{}, 3, nil)
	s.do(t, "POST", s.url("/api/v1/queues"), `{"name":"q","topic_filter":"a"}`)
	type answer struct {
		status int
		after  string
	}
	answered := make(chan answer, 4)
	for range 4 {
		go func() { // ends with the drain below
			w, _ := s.do(t, "POST", s.url("/api/v1/queues/q/messages/consume"), `{"timeout_seconds":60}`)
			answered <- answer{w.StatusCode, w.Header.Get("Retry-After")}
		}()
	}
	if first := <-answered; first != (answer{429, "1"}) {
		t.Errorf("one wait too many is answered %+v", first)
	}
	s.Drain()
	for range 3 {
		if other := <-answered; other.status != 200 {
			t.Errorf("a wait is answered %+v", other)
		}
	}
}

func TestBodiesAreTakenUpToTheirConfiguredLimit(t *testing.T) { // X189
	s := openSite(t, func(o *rest.Options) { o.Bodies = rest.Bodies{Raw: 100, JSON: 200, Batch: 400} })
	s.do(t, "POST", s.url("/api/v1/queues"), `{"name":"q","topic_filter":"a"}`)
	memfifo := "http://" + s.Addr("memfifo").String() + "/queues"
	c := broker.NewQueueConfig("m", "")
	c.Driver, c.Maker = broker.Memory, "memfifo"
	_, err := s.broker.CreateQueue(auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System}), c)
	must(t, err)
	fill := func(head, tail string, size int) string {
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
	}
	for _, c := range []struct {
		name, url, head, tail string
		limit                 int
	}{
		{"raw", memfifo + "/m/messages", "", "", 100},
		{"json", s.url("/api/v1/topics/a/messages"), `{"payload":"`, `"}`, 200},
		{"batch", s.url("/api/v1/topics/a/messages/batch"), `{"messages":[{"payload":"`, `"}]}`, 400},
	} {
		if w, text := s.do(t, "POST", c.url, fill(c.head, c.tail, c.limit)); w.StatusCode == 413 {
			t.Errorf("%s at its limit: %d %s", c.name, w.StatusCode, text)
		}
		if w, text := s.do(t, "POST", c.url, fill(c.head, c.tail, c.limit+1)); w.StatusCode != 413 || !strings.Contains(text, fmt.Sprintf("larger than %d bytes", c.limit)) {
			t.Errorf("%s over its limit: %d %s", c.name, w.StatusCode, text)
		}
	}
}
