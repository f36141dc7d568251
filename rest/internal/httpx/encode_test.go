package httpx_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"millrace/rest/internal/httpx"
)

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\r\t\x00\x1f\x7f", "ü€😀", "\xff\xc3", strings.Repeat("x", 100) + "\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		text := httpx.AppendString(nil, s)
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%q: not JSON: %v", text, err)
		}
		var want string
		if text, err := json.Marshal(s); err != nil || json.Unmarshal(text, &want) != nil || back != want {
			t.Fatalf("got %q, encoding/json makes it %q", back, want)
		}
		if string(httpx.AppendString(nil, []byte(s))) != string(text) {
			t.Fatal("bytes and text differ")
		}
		if got, err := decode(string(text)); err != nil || got != back {
			t.Fatalf("our own decoder reads %q, %v", got, err)
		}
	})
}

func TestTimesAreRFC3339InUTCWithMilliseconds(t *testing.T) {
	for _, at := range []string{"1970-01-01T00:00:00.001Z", "2024-02-29T23:59:59.999Z", "2026-11-05T07:08:09.010Z", "9999-12-31T23:59:59.000Z"} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(httpx.AppendTime(nil, when.UnixMilli())); got != `"`+at+`"` {
			t.Errorf("got %s, want %q", got, at)
		}
	}
	if got := string(httpx.AppendTime(nil, 0)); got != "null" {
		t.Errorf("no time is %s", got)
	}
	if got := string(httpx.AppendTime(nil, 1<<60)); got != "null" {
		t.Errorf("a time beyond all calendars is %s", got)
	}
}
