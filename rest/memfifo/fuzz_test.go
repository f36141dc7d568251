package memfifo_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// FuzzDefinitions sends bodies to the calls that read JSON: none may fail
// inside, and what was taken is shown.
func FuzzDefinitions(f *testing.F) {
	for _, s := range []string{
		`{"name":"q","driver":"memfifo"}`, `{"attributes":{"max-bytes":10,"topic-filter":"a/#","message-ttl":5}}`,
		`{"name":"kept","driver":"logfifo","attributes":{"topic-filter":null,"message-ttl":null}}`, `{"attributes":{}}`,
	} {
		f.Add(s)
	}
	d := open(f)
	d.queue(f, "kept", "logfifo", "")
	f.Fuzz(func(t *testing.T, body string) {
		for _, c := range [][2]string{{"POST", "/queues"}, {"PUT", "/queues/kept"}, {"PATCH", "/queues/kept"}, {"PATCH", "/queues/none"}} {
			w := d.do(t, c[0], c[1], body)
			document.Check(t, c[0], c[1], w)
			if w.Code >= 500 {
				t.Fatalf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
			}
			if w.Code != 200 {
				continue
			}
			var made struct{ Name string }
			must(t, json.Unmarshal(w.Body.Bytes(), &made))
			if shown := d.wants(t, 200, "GET", "/queues/"+made.Name, ""); shown != w.Body.String() {
				t.Fatalf("answered %s and shows %s", w.Body, shown)
			}
			if made.Name != "kept" {
				d.wants(t, 200, "DELETE", "/queues/"+made.Name, "")
			}
		}
	})
}

// FuzzMessages submits a message and reads it.
func FuzzMessages(f *testing.F) {
	f.Add("text/plain; charset=utf-8", "client", []byte("x"))
	f.Add("", "\xff", []byte{0})
	f.Add("a\r\nb", "a\x00b", []byte(nil))
	d := open(f)
	d.queue(f, "q", "memfifo", "")
	f.Fuzz(func(t *testing.T, contentType, client string, body []byte) {
		r := request(t, "POST", "/queues/q/messages", "")
		r.Header["Content-Type"], r.Header["Client-Id"] = []string{contentType}, []string{client}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
		w := d.send(r)
		if w.Code == 400 {
			d.empty(t, "q")
			return
		}
		got := d.do(t, "GET", "/queues/q/messages", "")
		if w.Code != 200 || got.Code != 200 || !bytes.Equal(got.Body.Bytes(), body) || got.Header().Get("Message-Id") != w.Header().Get("Message-Id") {
			t.Fatalf("sent %q: %d, read %q: %d", body, w.Code, got.Body, got.Code)
		}
		want := strings.TrimSpace(contentType)
		if want == "" || strings.ContainsFunc(want, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			want = "application/octet-stream"
		}
		if has := got.Header().Get("Content-Type"); has != want {
			t.Fatalf("sent as %q, read as %q", contentType, has)
		}
	})
}
