package resttest

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
)

var update = flag.Bool("update", false, "rewrite the golden transcripts")

// Transcripts are the archives testdata/*.txtar of a dialect: requests, each
// followed by its response, "failure WHAT" followed by how that error is
// answered, and steps as "wait 31s". A request's header "As: KEY" stands for
// the credentials of one of the Keys, and {{5 x}} for xxxxx. What differs from
// run to run is replaced by names, which later requests may use.
type Transcripts struct {
	Document *Document
	// Open opens the dialect for one transcript.
	Open func(t *testing.T) Session
	// RenderError is the dialect's; Failures are errors besides the usual ones.
	RenderError func(http.ResponseWriter, *httpx.Request, error)
	Failures    map[string]error
	// Hide replaces what differs from run to run in the text of a response.
	Hide func(n *Names, text []byte) []byte
}

// Session is a dialect for one transcript.
type Session struct {
	Send   func(*http.Request) *httptest.ResponseRecorder
	SendAs func(*http.Request) *httptest.ResponseRecorder // requests with "As"; nil = Send
	Steps  map[string]func(t *testing.T, arg string, data []byte)
}

// Run plays every transcript and compares it with what it was.
func (s *Transcripts) Run(t *testing.T) {
	t.Helper()
	for _, path := range transcriptFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			Must(t, err)
			var got []byte
			synctest.Test(t, func(t *testing.T) {
				p := &player{Transcripts: s, Session: s.Open(t), names: newNames()}
				got = p.play(t, parseArchive(want)).format()
			})
			if *update {
				Must(t, os.WriteFile(path, got, 0o600))
				return
			}
			if diff := cmp.Diff(alike(want), alike(got)); diff != "" {
				t.Errorf("run with -update and read the diff (-want +got):\n%s", diff)
			}
		})
	}
}

// ofJetStream is what a NATS server makes different: it counts what it adds to the
// messages of a stream, takes a few milliseconds, and numbers those of all sessions
// together.
var ofJetStream = regexp.MustCompile(`("size_bytes": |"dead-letter-time": |"start": |"position": )("[^"]*"|\d+)`)

// alike is a transcript without what the store makes different.
func alike(text []byte) string {
	if overJetStream {
		text = ofJetStream.ReplaceAll(text, []byte("${1}OURS"))
	}
	return string(text)
}

// CheckShown wants every route of the document and each of the texts in some transcript.
func (s *Transcripts) CheckShown(t *testing.T, texts ...string) {
	t.Helper()
	var all []byte
	for _, path := range transcriptFiles(t) {
		text, err := os.ReadFile(path)
		Must(t, err)
		all = append(all, text...)
	}
	for _, text := range texts {
		if !bytes.Contains(all, []byte(text)) {
			t.Errorf("%q is in no transcript", text)
		}
	}
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]+) (/[^?\n]*)`).FindAllSubmatch(all, -1) {
		for _, route := range s.Document.RoutesOf(string(m[1]), string(m[2])) {
			shown[route] = true
		}
	}
	for _, route := range s.Document.Routes {
		if !shown[route] {
			t.Errorf("%s is in no transcript", route)
		}
	}
}

func transcriptFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	Must(t, err)
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	return files
}

// player plays one transcript.
type player struct {
	*Transcripts
	Session
	names *Names
}

func (p *player) play(t *testing.T, script *archive) *archive {
	t.Helper()
	out := &archive{comment: script.comment}
	for _, f := range script.files {
		what, arg, _ := strings.Cut(f.name, " ")
		if what == "response" {
			continue
		}
		out.files = append(out.files, f)
		switch what {
		case "request":
			out.files = append(out.files, file{"response " + arg, p.exchange(t, string(f.data))})
		case "failure":
			out.files = append(out.files, file{"response " + arg, p.fail(t, arg)})
		case "wait":
			d, err := time.ParseDuration(arg)
			Must(t, err)
			time.Sleep(d + late)
		default:
			step, known := p.Steps[what]
			if !known {
				t.Fatalf("unknown step %q", f.name)
			}
			step(t, arg, f.data)
		}
	}
	return out
}

// failures are errors that a broker in good health does not give.
var failures = map[string]error{
	"internal":       &broker.Error{Kind: broker.Internal, Message: "not for clients"},
	"unknown":        &broker.Error{Kind: broker.Unknown, Message: "the outcome is not known: it may have happened"},
	"unavailable":    &broker.Error{Kind: broker.Unavailable, Message: "the broker is shutting down; nothing was stored, try again"},
	"store full":     &broker.Error{Kind: broker.Full, Message: "the store is full; nothing was stored", Err: broker.ErrFull},
	"damaged":        &broker.Error{Kind: broker.Damaged, Message: "queue \"jobs\" takes no messages, because acknowledged ones are missing; nothing was stored", Err: broker.ErrDamaged},
	"too many waits": &broker.Error{Kind: broker.Full, Message: "10000 receives wait already"},
	"canceled":       context.Canceled,
}

// fail shows the answer to an error.
func (p *player) fail(t *testing.T, what string) []byte {
	t.Helper()
	err, known := p.Failures[what]
	if !known {
		if err, known = failures[what]; !known {
			t.Fatalf("unknown failure %q", what)
		}
	}
	m := httpx.NewMux(&httpx.Shared{Log: zerolog.Nop()}, httpx.Dialect{
		Routes:      []httpx.Route{{Method: "GET", Path: "/", Handler: func(http.ResponseWriter, *httpx.Request) error { return err }}},
		RenderError: p.RenderError,
	})
	r, w := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), httptest.NewRecorder()
	r.Header.Set("X-Request-Id", "golden")
	m.ServeHTTP(w, r)
	p.Document.Check(t, "GET", "/", w)
	return p.show(w)
}

var repeat = regexp.MustCompile(`\{\{(\d+) ([^}]+)\}\}`)

// exchange sends a request as it is written and returns the response alike.
func (p *player) exchange(t *testing.T, text string) []byte {
	t.Helper()
	text = repeat.ReplaceAllStringFunc(p.names.restore(text), func(s string) string {
		m := repeat.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[1])
		return strings.Repeat(m[2], n)
	})
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	method, target, _ := strings.Cut(lines[0], " ")
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(strings.TrimSuffix(body, "\n")))
	r.Header.Set("X-Request-Id", "golden")
	send := p.Send
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ": ")
		if k != "As" {
			r.Header.Add(k, v)
			continue
		}
		if p.SendAs != nil {
			send = p.SendAs
		}
		if _, known := Keys[v]; known {
			r.Header.Add("Authorization", "Bearer "+v+"."+Secret)
		}
	}
	w := send(r)
	p.Document.Check(t, method, r.URL.EscapedPath(), w)
	return p.show(w)
}

// show writes a response: its JSON indented, other bodies as they are.
func (p *player) show(w *httptest.ResponseRecorder) []byte {
	var body bytes.Buffer
	h := w.Header()
	if json.Indent(&body, w.Body.Bytes(), "", "  ") == nil {
		h.Del("Content-Length") // depends on what is replaced below
	} else {
		body.Reset()
		body.Write(w.Body.Bytes())
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %s\n", w.Code, http.StatusText(w.Code))
	for _, k := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[k] {
			fmt.Fprintf(&b, "%s: %s\n", k, v)
		}
	}
	b.WriteString("\n")
	if w.Body.Len() > 0 {
		b.Write(body.Bytes())
		b.WriteString("\n")
	}
	return p.Hide(p.names, b.Bytes())
}
