package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"unicode"

	"millrace/cmd/millrace/wire"
)

// TestUserTextInALogIsOneFieldOfOneLine gives names that pretend to be lines of
// their own, turn the text around, move the cursor, or have no end.
func TestUserTextInALogIsOneFieldOfOneLine(t *testing.T) { // D31
	const secret = "sixteen-characters"
	d := openDoors(t, "- {id: app, secret: "+secret+"}\n")
	names := []string{"\r\n{\"level\":\"fatal\"}", "\x1b[2Jgone", "left\u202eright\u2066\u2028", "c1\u009b31m", "\xff\xfe", "nul\x00", "tag\U000e0041", strings.Repeat("long\u00fc", 50)}
	for n, name := range names {
		for _, l := range []wire.Login{{ClientID: name}, {ClientID: "x", User: name, Password: secret}, {ClientID: fmt.Sprint("c", n), User: "app", Password: secret}} {
			c, err := wire.Dial(t.Context(), d.s.ports["mqtt"], l)
			if err != nil {
				continue // refused, and logged
			}
			_, _ = c.Write(wire.AppendPublish(nil, "$SYS/"+name, 1, 1, nil))
			_, _ = c.Read1()
			_ = c.Close()
		}
		text, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/queues", "/streams"} {
			d.call("Bearer "+testKey, "POST", path, `{"name":`+string(text)+`,"topic_filter":"t/#"}`, false)
		}
		d.call("", "GET", "/queues/"+url.PathEscape(name), "", false)
		if n < 2 { // each costs a hash
			d.call("Bearer "+testKey, "POST", "/users", `{"username":`+string(text)+`,"password":"a password of its own"}`, false)
		}
	}
	d.s.stop()
	log, err := os.ReadFile(d.s.log)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for line := range bytes.SplitSeq(bytes.TrimSpace(log), []byte("\n")) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil || fields["msg"] == nil || fields["level"] == "fatal" {
			t.Errorf("no line of ours: %q", line)
		}
		for _, r := range string(line) {
			if !unicode.IsPrint(r) {
				t.Errorf("%U stands in %q", r, line)
				break
			}
		}
		for field, value := range fields {
			text, ok := value.(string)
			if !ok {
				continue
			}
			if most := map[bool]int{false: 256, true: 4096}[field == "err"]; len(text) > most {
				t.Errorf("%s has %d bytes: %q", field, len(text), text)
			}
			for _, name := range names {
				if strings.Contains(text, name[:2]) || strings.HasPrefix(text, "long") {
					kinds[field]++
				}
			}
		}
	}
	for _, field := range []string{"client", "stream"} {
		if kinds[field] == 0 {
			t.Errorf("no name stands in a field %s, only in %v", field, kinds)
		}
	}
}
