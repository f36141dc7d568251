package fastqueue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
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
	"millrace/broker/auth"
	"millrace/rest/fastqueue"
	"millrace/rest/internal/httpx"
)

var update = flag.Bool("update", false, "rewrite the golden transcripts")

// A transcript is an archive of requests, each followed by its response, and of
// steps: "wait 31s", "close the broker". Ids, receipts and times are replaced
// by names, which later requests may use; {{5 x}} is xxxxx.
type transcript struct {
	*door
	names map[string]string // of real values
	real  map[string]string // of names
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, file := range files {
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

func play(t *testing.T, script *archive) *archive {
	t.Helper()
	tr := &transcript{door: open(t), names: map[string]string{}, real: map[string]string{}}
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
		case "door":
			tr.makeElsewhere(t)
		case "close":
			tr.stop()
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

// makeElsewhere makes queues as other doors do: fed by a filter, and in memory.
func (tr *transcript) makeElsewhere(t *testing.T) {
	t.Helper()
	ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	for name, filter := range map[string]string{"fed": "x/#", "volatile": ""} {
		c := broker.NewQueueConfig(name, filter)
		if filter == "" {
			c.Driver = broker.Memory
		}
		_, err := tr.broker.CreateQueue(ctx, c)
		must(t, err)
	}
}

// fail shows the answer to an error that a broker in good health does not give.
func fail(t *testing.T, what string) *httptest.ResponseRecorder {
	t.Helper()
	err, known := map[string]error{
		"internal":       &broker.Error{Kind: broker.Internal, Message: "not for clients"},
		"unknown":        &broker.Error{Kind: broker.Unknown, Message: "the outcome is not known: it may have happened"},
		"store full":     &broker.Error{Kind: broker.Full, Message: "the store is full; nothing was stored", Err: broker.ErrFull},
		"too many waits": &broker.Error{Kind: broker.Full, Message: "10000 receives wait already"},
		"canceled":       context.Canceled,
	}[what]
	if !known {
		t.Fatalf("unknown failure %q", what)
	}
	m := httpx.NewMux(&httpx.Shared{Log: zerolog.Nop()}, httpx.Dialect{
		Routes:      []httpx.Route{{Method: "GET", Path: "/", Handler: func(http.ResponseWriter, *httpx.Request) error { return err }}},
		RenderError: fastqueue.RenderError,
	})
	r, w := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), httptest.NewRecorder()
	r.Header.Set("X-Request-Id", "golden")
	m.ServeHTTP(w, r)
	checkAgainstDocument(t, "GET", "/", w)
	return w
}

func TestTranscriptsShowEveryRouteAndEveryCode(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	must(t, err)
	var all []byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		all = append(all, text...)
	}
	for status := range fastqueue.Statuses() {
		if !bytes.Contains(all, fmt.Appendf(nil, "\n%d %s\n", status, http.StatusText(status))) {
			t.Errorf("status %d is in no transcript", status)
		}
	}
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]+) (/[^?\n]*)`).FindAllSubmatch(all, -1) {
		for route := range routesOf(string(m[1]), string(m[2])) {
			shown[route] = true
		}
	}
	for _, route := range fastqueue.RoutePaths() {
		if !shown[route] {
			t.Errorf("%s is in no transcript", route)
		}
	}
}

// routesOf yields the routes that a request may mean.
func routesOf(method, path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, route := range fastqueue.RoutePaths() {
			m, template, _ := strings.Cut(route, " ")
			if strings.EqualFold(m, method) && matches(template, path) && !yield(route) {
				return
			}
		}
	}
}

var (
	repeat = regexp.MustCompile(`\{\{(\d+) ([^}]+)\}\}`)
	name   = regexp.MustCompile(`\b(msg|receipt|token)_\d+\b`)
	values = regexp.MustCompile(`\b(?:eyJ[\w-]+\.[\w-]+\.[\w-]+|[0-7][0-9A-HJKMNP-TV-Z]{25}|[A-Za-z0-9_-]{87}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\b`)
)

// exchange sends a request as it is written and returns the response alike.
func (tr *transcript) exchange(t *testing.T, text string) []byte {
	t.Helper()
	text = name.ReplaceAllStringFunc(text, func(s string) string {
		if v, ok := tr.real[s]; ok {
			return v
		}
		return s
	})
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
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ": ")
		if k == "As" { // a key of the tests
			k, v = "Authorization", "Bearer "+v+"."+secret
		}
		r.Header.Add(k, v)
	}
	w := tr.send(r)
	checkAgainstDocument(t, method, r.URL.EscapedPath(), w)
	return tr.show(w)
}

func (tr *transcript) show(w *httptest.ResponseRecorder) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %s\n", w.Code, http.StatusText(w.Code))
	h := w.Header()
	h.Del("Content-Length") // depends on what is replaced below
	for _, k := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[k] {
			fmt.Fprintf(&b, "%s: %s\n", k, v)
		}
	}
	b.WriteString("\n")
	if w.Body.Len() > 0 {
		_ = json.Indent(&b, w.Body.Bytes(), "", "  ") // what is no JSON is left out, and missed
		b.WriteString("\n")
	}
	return values.ReplaceAllFunc(b.Bytes(), func(v []byte) []byte {
		switch s := string(v); {
		case len(s) == 24:
			return []byte("TIME")
		case len(s) == 87:
			return []byte(tr.nameOf("receipt", s))
		case strings.HasPrefix(s, "eyJ"):
			return []byte(tr.nameOf("token", s))
		default:
			return []byte(tr.nameOf("msg", s))
		}
	})
}

// nameOf returns the name of a value, a new one if it was not seen before.
func (tr *transcript) nameOf(kind, value string) string {
	n, known := tr.names[value]
	for i := 1; !known; i++ {
		n = kind + "_" + strconv.Itoa(i)
		if _, taken := tr.real[n]; !taken {
			tr.names[value], tr.real[n] = n, value
			break
		}
	}
	return n
}
