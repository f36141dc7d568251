package rest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest"
)

// TestHeadAndOptionsAtEveryDoor: HEAD is GET without the body, and asks for the
// same credentials; OPTIONS tells the methods and asks for none.
func TestHeadAndOptionsAtEveryDoor(t *testing.T) {
	s := openSite(t, func(o *rest.Options) { o.Origins = []string{"https://console.example"} })
	for door, url := range s.everyDoor() {
		got, body := s.do(t, "GET", url, "")
		head, none := s.do(t, "HEAD", url, "")
		if head.StatusCode != got.StatusCode || none != "" || body != "" && head.ContentLength != int64(len(body)) {
			t.Errorf("%s: HEAD is answered %d %q of %d bytes, GET %d of %d", door, head.StatusCode, none, head.ContentLength, got.StatusCode, len(body))
		}
		if status := send(t, "HEAD", url, nil); status != 401 {
			t.Errorf("%s: HEAD without credentials is answered %d", door, status)
		}
		r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", url, http.NoBody)
		must(t, err)
		r.Header = http.Header{"Origin": {"https://console.example"}, "Access-Control-Request-Method": {"GET"}}
		w, err := http.DefaultClient.Do(r)
		must(t, err)
		_, _ = io.Copy(io.Discard, w.Body)
		must(t, w.Body.Close())
		allow := w.Header.Get("Allow")
		if w.StatusCode != 204 || !strings.Contains(allow, "GET, HEAD") || !strings.HasSuffix(allow, "OPTIONS") || w.Header.Get("Access-Control-Allow-Methods") != allow {
			t.Errorf("%s: OPTIONS is answered %d, %v", door, w.StatusCode, w.Header)
		}
		if status := send(t, "OPTIONS", url, http.Header{"Origin": {"https://evil.example"}}); status != 403 {
			t.Errorf("%s: OPTIONS from another origin is answered %d", door, status)
		}
	}
}

// TestAPayloadHasItsLimitAtEveryDoor is limits.payload, which is the broker's.
func TestAPayloadHasItsLimitAtEveryDoor(t *testing.T) {
	const most = 100
	refused := map[string]int{"emqx": 400} // in the words of the others 413
	for _, p := range publishes {
		s := openWith(t, func(o *broker.Options) { o.MaxPayload = most }, nil)
		s.queueFor(t, p.name, p.direct)
		url := "http://" + s.Addr(p.listener).String() + p.path
		publish := func(size int) (int, string) {
			w, text := s.do(t, "POST", url, strings.Replace(p.body, "xx", strings.Repeat("x", size), 1))
			return w.StatusCode, text
		}
		if status, text := publish(most); status/100 != 2 || strings.Contains(text, "over the limit") {
			t.Errorf("%s: a payload at the limit: %d %s", p.path, status, text)
		}
		status, text := publish(most + 1)
		want, whole := refused[p.name], p.name != "pulsar" // which answers each message for itself
		if want == 0 {
			want = 413
		}
		if whole && status != want || !whole && status != 200 || !strings.Contains(text, fmt.Sprintf("over the limit of %d", most)) {
			t.Errorf("%s: a payload over the limit: %d %s", p.path, status, text)
		}
	}
}
