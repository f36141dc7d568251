package router_test

import (
	"errors"
	"strings"
	"testing"

	"millrace/router"
)

func TestWhatATopicMayBe(t *testing.T) {
	for _, c := range []struct{ why, topic, reason string }{
		{"one level", "a", ""},
		{"several levels", "a/b/c", ""},
		{"a lone slash is two empty levels", "/", ""},
		{"an empty first level", "/a", ""},
		{"an empty last level", "a/", ""},
		{"an empty level inside", "a//b", ""},
		{"spaces count", " a / b ", ""},
		{"other scripts", "температура/室内", ""},
		{"a byte order mark is a character", "\ufeffa", ""},
		{"control characters but NUL", "a\x01\x1f\x7f", ""},
		{"a dollar inside", "a/$b", ""},
		{"a reserved name is well-formed", "$SYS/a", ""},
		{"1,024 bytes", strings.Repeat("a", 1024), ""},
		{"201 levels", strings.Repeat("/", 200), ""},
		{"nothing", "", "it is empty"},
		{"1,025 bytes", strings.Repeat("a", 1025), "it has 1025 bytes, the limit is 1024"},
		{"202 levels", strings.Repeat("/", 201), "it has 202 levels, the limit is 201"},
		{"a plus as a level", "a/+", `"+" and "#" are for filters only`},
		{"a plus inside a level", "a+b", `"+" and "#" are for filters only`},
		{"a hash", "a/#", `"+" and "#" are for filters only`},
		{"NUL", "a\x00b", "it holds the character U+0000"},
		{"a broken sequence", "a\xff", "it is not well-formed UTF-8"},
		{"an overlong sequence", "a\xc0\xaf", "it is not well-formed UTF-8"},
		{"a surrogate", "a\xed\xa0\x80", "it is not well-formed UTF-8"},
	} {
		wantReason(t, c.why, router.ValidTopic(c.topic), c.reason)
	}
}

func TestWhatAFilterMayBe(t *testing.T) {
	const ownLevel = `"+" and "#" must be a level of their own`
	for _, c := range []struct{ why, filter, reason string }{
		{"no wildcard", "a/b", ""},
		{"everything", "#", ""},
		{"a hash at the end", "a/#", ""},
		{"a hash after an empty level", "/#", ""},
		{"a plus alone", "+", ""},
		{"a plus anywhere", "+/a/+/b/+", ""},
		{"plus and hash", "+/#", ""},
		{"empty levels", "//", ""},
		{"201 levels of plus", strings.Repeat("+/", 200) + "+", ""},
		{"shared", "$share/g/a/+/#", ""},
		{"201 levels behind a share", "$share/g/" + strings.Repeat("+/", 200) + "+", ""},
		{"nothing", "", "it is empty"},
		{"202 levels", strings.Repeat("+/", 201) + "+", "it has 202 levels, the limit is 201"},
		{"202 levels behind a share", "$share/g/" + strings.Repeat("/", 201), "it has 202 levels, the limit is 201"},
		{"1,025 bytes", strings.Repeat("a", 1025), "it has 1025 bytes, the limit is 1024"},
		{"a hash before the end", "a/#/b", `"#" must be the last level`},
		{"a hash before an empty level", "#/", `"#" must be the last level`},
		{"a hash behind text", "a#", ownLevel},
		{"a hash before text", "#a", ownLevel},
		{"a plus behind text", "a/b+", ownLevel},
		{"a plus before text", "+a/b", ownLevel},
		{"two pluses in a level", "++", ownLevel},
		{"plus and hash in a level", "a/+#", ownLevel},
		{"a bad filter behind a share", "$share/g/a#", ownLevel},
		{"NUL", "a\x00", "it holds the character U+0000"},
		{"a surrogate", "\xed\xbf\xbf/#", "it is not well-formed UTF-8"},
	} {
		wantReason(t, c.why, router.ValidFilter(c.filter), c.reason)
	}
}

func TestLimitsCanBeSet(t *testing.T) {
	l := router.Limits{MaxBytes: 7, MaxLevels: 2}
	wantReason(t, "topic at the limits", l.ValidTopic("abc/def"), "")
	wantReason(t, "filter at the limits", l.ValidFilter("+/abcde"), "")
	wantReason(t, "long topic", l.ValidTopic("abcd/efg"), "it has 8 bytes, the limit is 7")
	wantReason(t, "deep filter", l.ValidFilter("+/+/#"), "it has 3 levels, the limit is 2")
}

func TestASyntaxErrorShowsTheInputShortAndEscaped(t *testing.T) {
	for _, c := range []struct{ input, want string }{
		{"a/#/b", `filter "a/#/b" is not valid: "#" must be the last level`},
		{"\u202e\x1b[2J\n#", `filter "\u202e\x1b[2J\n#" is not valid: "+" and "#" must be a level of their own`},
		{strings.Repeat("ü", 600), `filter "` + strings.Repeat("ü", 32) + `"… is not valid: it has 1200 bytes, the limit is 1024`},
		{strings.Repeat("a", 63) + "ü#", `filter "` + strings.Repeat("a", 63) + `"… is not valid: "+" and "#" must be a level of their own`},
		{strings.Repeat("\x80", 99), `filter "` + strings.Repeat(`\x80`, 60) + `"… is not valid: it is not well-formed UTF-8`},
	} {
		err := router.ValidFilter(c.input)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
		if !strings.Contains(c.want, "…") {
			continue
		}
		if syntax := new(router.SyntaxError); !errors.As(err, &syntax) || syntax.Input != c.input {
			t.Errorf("the error does not keep the whole input of %d bytes", len(c.input))
		}
	}
}

func TestOnlyBrokenStringsAreMalformedPackets(t *testing.T) {
	for input, want := range map[string]bool{"\xff": true, "\x00": true, "": false, "a#": false} {
		for _, err := range []error{router.ValidTopic(input), router.ValidFilter(input)} {
			if syntax := new(router.SyntaxError); !errors.As(err, &syntax) || syntax.Malformed != want {
				t.Errorf("%q: got %#v, want Malformed %v", input, err, want)
			}
		}
	}
}

// wantReason checks that err is a SyntaxError for the reason, or nil for "".
func wantReason(t *testing.T, why string, err error, reason string) {
	t.Helper()
	got := ""
	if err != nil {
		syntax := new(router.SyntaxError)
		if !errors.As(err, &syntax) {
			t.Fatalf("%s: got a %T, want a SyntaxError", why, err)
		}
		got = syntax.Reason
	}
	if got != reason {
		t.Errorf("%s: got reason %q, want %q", why, got, reason)
	}
}
