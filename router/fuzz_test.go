package router_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"millrace/router"
)

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"a/+/#", "#", "+", "/", "a#", "#/a", "$share/g/a", "$SHARE//a", "\xed\xa0\x80", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := router.ValidFilter(s)
		if syntax := new(router.SyntaxError); err != nil && (!errors.As(err, &syntax) || len(err.Error()) > 500) {
			t.Fatalf("%q: got %T of %d bytes", s, err, len(err.Error()))
		}
		if _, _, shared, _ := router.Shared(s); !shared && (err == nil) != naiveFilter(s) {
			t.Fatalf("ValidFilter(%q): got %v", s, err)
		}
		if topic := router.ValidTopic(s) == nil; topic != (naiveFilter(s) && !strings.ContainsAny(s, "+#")) {
			t.Fatalf("ValidTopic(%q): got %v", s, topic)
		}
		if err != nil {
			return
		}
		var tree router.Tree[int]
		if !tree.Insert(s, 1) || tree.Insert(s, 1) || !tree.Remove(s, 1) || tree.Remove(s, 1) || tree.Nodes() != 0 {
			t.Fatalf("%q does not come and go", s)
		}
		if !router.Covers(s, s) || !router.Overlaps(s, s) {
			t.Fatalf("%q does not cover itself", s)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/b", "+/b")
	f.Add("#", "$SYS/a", "$SYS/#")
	f.Add("/+", "/a", "+/+")
	f.Add("a//b", "a//b", "a/+/b")
	f.Add("+/#", "/", "#")
	f.Fuzz(func(t *testing.T, filter, topic, other string) {
		if router.ValidFilter(filter) != nil || router.ValidFilter(other) != nil || router.ValidTopic(topic) != nil {
			t.Skip()
		}
		want, wantOther := naiveMatch(filter, topic), naiveMatch(other, topic)
		if router.Match(filter, topic) != want || router.Covers(filter, topic) != want {
			t.Fatalf("Match(%q, %q): want %v", filter, topic, want)
		}
		if want && wantOther && !router.Overlaps(filter, other) {
			t.Fatalf("Overlaps(%q, %q): both match %q", filter, other, topic)
		}
		if router.Covers(filter, other) && wantOther && !want {
			t.Fatalf("Covers(%q, %q): only the second matches %q", filter, other, topic)
		}
		var tree router.Tree[int]
		tree.Insert(filter, 1)
		tree.Insert(other, 2)
		sum := 0
		for _, v := range tree.Match(topic, nil) {
			sum += v
		}
		if got := sum&1 == 1; got != want || sum&2 == 2 != wantOther || tree.HasMatch(topic) != (want || wantOther) {
			t.Fatalf("tree of %q and %q at %q: got %d", filter, other, topic, sum)
		}
		var names router.Names[int]
		names.Set(topic, 1)
		found := false
		for name := range names.Match(filter) {
			found = name == topic
		}
		if found != want {
			t.Fatalf("names of %q at %q: got %v", topic, filter, found)
		}
	})
}

// naiveFilter is the grammar of an unshared filter, written a second time.
func naiveFilter(s string) bool {
	levels := strings.Split(s, "/")
	for i, level := range levels {
		wild := level == "+" || level == "#" && i == len(levels)-1
		if strings.ContainsAny(level, "+#\x00") && !wild {
			return false
		}
	}
	return s != "" && len(s) <= 1024 && len(levels) <= 201 && utf8.ValidString(s)
}
