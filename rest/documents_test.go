package rest_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"millrace/rest"
	"millrace/rest/apidocs"
)

// see asks without credentials, for what a browser or a program asks for.
func (s *site) see(t *testing.T, method, url, accept, encoding string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", encoding) // so that the client does not unpack by itself
	w, err := (&http.Client{Transport: http.DefaultTransport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(r)
	must(t, err)
	defer w.Body.Close()
	body := io.Reader(w.Body)
	if w.Header.Get("Content-Encoding") == "gzip" && method != http.MethodHead {
		body, err = gzip.NewReader(w.Body)
		must(t, err)
	}
	text, err := io.ReadAll(body)
	must(t, err)
	return w, string(text)
}

// ownPorts opens a listener for each dialect that has a port of its own.
func ownPorts(o *rest.Options) {
	for name, d := range map[string]rest.Dialect{"emqx": rest.EMQX, "fastqueue": rest.FastQueue} {
		o.Listeners = append(o.Listeners, rest.Listener{Name: name, Address: "127.0.0.1:0", Dialects: []rest.Dialect{d}})
	}
}

func TestEachListenerShowsTheDocumentsOfItsDialects(t *testing.T) {
	s := openSite(t, ownPorts)
	links := regexp.MustCompile(`/api-docs/[a-z]+\.(?:yaml|json)`)
	for listener, want := range map[string][]string{
		"http":      {"flowmq.yaml", "swagger.json", "fastqueue.yaml", "pulsar.yaml", "memfifo.yaml"},
		"emqx":      {"swagger.json"},
		"fastqueue": {"fastqueue.yaml"},
		"memfifo":   {"memfifo.yaml"},
	} {
		base := "http://" + s.Addr(listener).String()
		_, index := s.see(t, "GET", base+"/", "text/html,*/*;q=0.8", "")
		_, text := s.see(t, "GET", base+"/llms.txt", "*/*", "")
		for name, page := range map[string]string{"the index": index, "llms.txt": text} {
			got := slices.Compact(links.FindAllString(page, -1))
			if len(got) != len(want) {
				t.Errorf("%s of %s names %v, want %v", name, listener, got, want)
			}
			for _, link := range want {
				if !slices.Contains(got, "/api-docs/"+link) {
					t.Errorf("%s of %s does not name %s", name, listener, link)
				}
			}
		}
		for _, link := range want {
			if w, doc := s.see(t, "GET", base+"/api-docs/"+link, "*/*", ""); w.StatusCode != 200 || !strings.Contains(doc[:40], "openapi") {
				t.Errorf("%s of %s: %d", link, listener, w.StatusCode)
			}
		}
		_, page := s.see(t, "GET", base+"/api-docs/index.html", "text/html", "")
		if got := links.FindAllString(page, -1); len(got) != 1 || got[0] != "/api-docs/"+want[0] {
			t.Errorf("the page of %s shows %v first", listener, got)
		}
		if others := strings.Count(page, "?doc="); (others > 0) != (len(want) > 1) {
			t.Errorf("the page of %s leads to %d documents", listener, others)
		}
	}
}

func TestPagesTakeNothingFromOtherHosts(t *testing.T) {
	s := openSite(t, ownPorts)
	for _, path := range []string{"/", "/api-docs/index.html", "/api-docs/index.html?doc=pulsar", "/api-docs/index.html?doc=memfifo"} {
		w, page := s.see(t, "GET", s.url(path), "text/html", "")
		policy := w.Header.Get("Content-Security-Policy")
		if w.StatusCode != 200 || !strings.HasPrefix(w.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d %v", path, w.StatusCode, w.Header)
		}
		if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "script-src 'self';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s: policy %s", path, policy)
		}
		if strings.Contains(page, "://") || regexp.MustCompile(`<script>|<style>| on\w+=| style=`).MatchString(page) {
			t.Errorf("%s has something inline or of another host:\n%s", path, page)
		}
	}
	if _, page := s.see(t, "GET", s.url("/api-docs/index.html?doc=memfifo"), "text/html", ""); !strings.Contains(page, "data-elsewhere=") {
		t.Error("calls of memfifo can be tried where it is not served")
	}
}

func TestDocumentsAskForNoCredentialsAndTellWhatIsNotThere(t *testing.T) {
	s := openSite(t, ownPorts)
	for _, c := range []struct {
		method, path, accept string
		status               int
		location             string
	}{
		{"GET", "/", "*/*", 200, ""},
		{"HEAD", "/", "text/html", 200, ""},
		{"GET", "/llms.txt", "*/*", 200, ""},
		{"GET", "/api-docs", "*/*", 308, "/api-docs/index.html"},
		{"GET", "/api-docs/", "*/*", 308, "/api-docs/index.html"},
		{"GET", "/api-docs/index.html?doc=other", "*/*", 404, ""},
		{"GET", "/api-docs/other.yaml", "*/*", 404, ""},
		{"GET", "/api-docs/swagger-ui/LICENSE", "*/*", 404, ""},
		{"GET", "/api-docs/LICENSE", "*/*", 200, ""},
		{"GET", "/api-docs/NOTICE", "*/*", 200, ""},
		{"GET", "/api-docs/swagger-ui-bundle.js.LICENSE.txt", "*/*", 200, ""},
		{"POST", "/api-docs/index.html", "*/*", 405, ""},
	} {
		w, _ := s.see(t, c.method, s.url(c.path), c.accept, "")
		if w.StatusCode != c.status || w.Header.Get("Location") != c.location {
			t.Errorf("%s %s: %d to %q", c.method, c.path, w.StatusCode, w.Header.Get("Location"))
		}
	}
}

// TestSwaggerUIIsTheReleaseItSays compares what is served, packed and unpacked,
// with the files of the release of npm.
func TestSwaggerUIIsTheReleaseItSays(t *testing.T) {
	if apidocs.SwaggerVersion != "5.35.0" {
		t.Fatalf("release %s: take the sums of its files below", apidocs.SwaggerVersion)
	}
	s := openSite(t, nil)
	for path, sum := range map[string]string{
		"/api-docs/swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
		"/api-docs/swagger-ui.css":       "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
	} {
		for _, encoding := range []string{"", "gzip, deflate, br"} {
			w, text := s.see(t, "GET", s.url(path), "*/*", encoding)
			got := sha256.Sum256([]byte(text))
			if hex.EncodeToString(got[:]) != sum || (w.Header.Get("Content-Encoding") == "gzip") != (encoding != "") {
				t.Errorf("%s for %q: %d bytes, encoding %q, sum %x", path, encoding, len(text), w.Header.Get("Content-Encoding"), got)
			}
		}
	}
}
