package memfifo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/rest/internal/httpx"
	"millrace/rest/memfifo"
)

var update = flag.Bool("update", false, "rewrite the golden transcripts")

// A transcript is an archive of requests, each followed by its response, and of
// steps: "wait 31s", "publish TOPIC" of what other doors would, "failure WHAT".
// Message ids are replaced by names; {{5 x}} is xxxxx. A request "As: KEY" goes
// to a dialect that asks for credentials.
type transcript struct {
	*door
	names map[string]string // of message ids
}

func TestTranscripts(t *testing.T) {
	for _, file := range transcripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			must(t, err)
			var got []byte
			synctest.Test(t, func(t *testing.T) { got = play(t, parseArchive(want)).format() })
			if *update {
				must(t, os.WriteFile(file, got, 0o600))
				return
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("run with -update and read the diff (-want +got):\n%s", diff)
			}
		})
	}
}

func transcripts(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	return files
}

func play(t *testing.T, script *archive) *archive {
	t.Helper()
	tr := &transcript{door: open(t), names: map[string]string{}}
	out := &archive{comment: script.comment}
	for _, f := range script.files {
		what, arg, _ := strings.Cut(f.name, " ")
		switch what {
		case "response":
			continue
		case "wait":
			d, err := time.ParseDuration(arg)
			must(t, err)
			time.Sleep(d)
		case "publish":
			_, err := tr.broker.Publish(tr.system, &broker.Message{Topic: arg, Payload: bytes.TrimSuffix(f.data, []byte("\n")), QoS: 1})
			must(t, err)
		}
		out.files = append(out.files, f)
		if what == "failure" {
			out.files = append(out.files, file{"response " + arg, tr.show(fail(t, arg))})
		}
		if what == "request" {
			out.files = append(out.files, file{"response " + arg, tr.exchange(t, string(f.data))})
		}
	}
	return out
}

// fail shows the answer to an error that a broker in good health does not give.
func fail(t *testing.T, what string) *httptest.ResponseRecorder {
	t.Helper()
	err, known := map[string]error{
		"internal":    &broker.Error{Kind: broker.Internal, Message: "not for clients"},
		"unknown":     &broker.Error{Kind: broker.Unknown, Message: "the outcome is not known: it may have happened"},
		"unavailable": &broker.Error{Kind: broker.Unavailable, Message: "the broker is shutting down; nothing was stored, try again"},
		"store full":  &broker.Error{Kind: broker.Full, Message: "the store is full; nothing was stored", Err: broker.ErrFull},
		"canceled":    context.Canceled,
	}[what]
	if !known {
		t.Fatalf("unknown failure %q", what)
	}
	m := httpx.NewMux(&httpx.Shared{Log: zerolog.Nop()}, httpx.Dialect{
		Routes:      []httpx.Route{{Method: "GET", Path: "/", Handler: func(http.ResponseWriter, *httpx.Request) error { return err }}},
		RenderError: memfifo.RenderError,
	})
	r, w := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), httptest.NewRecorder()
	r.Header.Set("X-Request-Id", "golden")
	m.ServeHTTP(w, r)
	checkAgainstDocument(t, "GET", "/", w)
	return w
}

func TestTranscriptsShowEveryRouteAndEveryStatus(t *testing.T) {
	var all []byte
	for _, f := range transcripts(t) {
		text, err := os.ReadFile(f)
		must(t, err)
		all = append(all, text...)
	}
	for _, status := range memfifo.ByKind {
		if !bytes.Contains(all, fmt.Appendf(nil, "\n%d %s\n", status, http.StatusText(status))) {
			t.Errorf("status %d is in no transcript", status)
		}
	}
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]+) (/queues[^?\n]*)`).FindAllSubmatch(all, -1) {
		shown[routeOf(string(m[1]), string(m[2]))] = true
	}
	for _, route := range memfifo.RoutePaths() {
		if !shown[route] {
			t.Errorf("%s is in no transcript", route)
		}
	}
}

// routeOf returns the route that a request means, "" for none.
func routeOf(method, path string) string {
	for _, route := range memfifo.RoutePaths() {
		if m, template, _ := strings.Cut(route, " "); strings.EqualFold(m, method) && matches(template, path) {
			return route
		}
	}
	return ""
}

var (
	repeat = regexp.MustCompile(`\{\{(\d+) ([^}]+)\}\}`)
	ulids  = regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`)
)

// exchange sends a request as it is written and returns the response alike.
func (tr *transcript) exchange(t *testing.T, text string) []byte {
	t.Helper()
	text = repeat.ReplaceAllStringFunc(text, func(s string) string {
		m := repeat.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[1])
		return strings.Repeat(m[2], n)
	})
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	method, target, _ := strings.Cut(lines[0], " ")
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(strings.TrimSuffix(body, "\n")))
	r.Header.Set("X-Request-Id", "golden")
	mux := tr.mux
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ": ")
		if k == "As" {
			mux = tr.locked
			if v == "nobody" {
				continue
			}
			k, v = "Authorization", "Bearer "+v+"."+secret
		}
		r.Header.Add(k, v)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	checkAgainstDocument(t, method, r.URL.EscapedPath(), w)
	return tr.show(w)
}

func (tr *transcript) show(w *httptest.ResponseRecorder) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %s\n", w.Code, http.StatusText(w.Code))
	h := w.Header()
	for _, k := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[k] {
			fmt.Fprintf(&b, "%s: %s\n", k, v)
		}
	}
	b.WriteString("\n")
	if w.Body.Len() > 0 {
		if json.Indent(&b, w.Body.Bytes(), "", "    ") != nil {
			b.Write(w.Body.Bytes())
		}
		b.WriteString("\n")
	}
	return ulids.ReplaceAllFunc(b.Bytes(), func(v []byte) []byte {
		n, known := tr.names[string(v)]
		if !known {
			n = fmt.Sprintf("ulid_%d", len(tr.names)+1)
			tr.names[string(v)] = n
		}
		return []byte(n)
	})
}
