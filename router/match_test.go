package router_test

import (
	"testing"

	"millrace/router"
)

func TestWhatAFilterMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/b", "a/B", false},
		{"a/b", "a", false},
		{"a", "a/b", false},
		{"a/+", "a/b", true},
		{"a/+", "a/", true},
		{"a/+", "a", false},
		{"a/+", "a/b/c", false},
		{"+/+", "/a", true},
		{"/+", "/a", true},
		{"+", "/a", false},
		{"+", "a", true},
		{"a/#", "a", true},
		{"a/#", "a/", true},
		{"a/#", "a/b/c", true},
		{"a/#", "ab", false},
		{"a/+/#", "a", false},
		{"a/+/#", "a/b", true},
		{"+/#", "a", true},
		{"#", "a/b/c", true},
		{"#", "/", true},
		{"/#", "/", true},
		{"/#", "a", false},
		{"a//b", "a//b", true},
		{"a//b", "a/b", false},
		{"a/+/b", "a//b", true},
		{"#", "$SYS/a", false},
		{"+/a", "$SYS/a", false},
		{"+", "$x", false},
		{"$SYS/#", "$SYS/a", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/+", "$SYS/a", true},
		{"$sys/#", "$SYS/a", false},
		{"$x/a", "$x/a", true},
		{"a/+", "a/$x", true},
		{"a/#", "a/$x", true},
	} {
		if got := router.Match(c.filter, c.topic); got != c.want {
			t.Errorf("Match(%q, %q): got %v, want %v", c.filter, c.topic, got, c.want)
		}
		if got := naiveMatch(c.filter, c.topic); got != c.want {
			t.Errorf("the naive matcher is wrong about %q and %q", c.filter, c.topic)
		}
	}
}

func TestFiltersThatOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a/+", "+/b", true},
		{"a/b", "a/c", false},
		{"a/#", "a", true},
		{"a/+", "a", false},
		{"a/b/#", "a/+", true},
		{"secret/#", "#", true},
		{"secret/#", "+/x", true},
		{"$SYS/#", "#", false},
		{"$SYS/#", "+/a", false},
		{"$SYS/#", "$SYS/+", true},
	} {
		if got := router.Overlaps(c.a, c.b); got != c.want {
			t.Errorf("Overlaps(%q, %q): got %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestFiltersThatCoverOthers(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"#", "a/+/#", true},
		{"#", "$SYS/a", false},
		{"a/#", "a", true},
		{"a/#", "a/+/b", true},
		{"a/+", "a/#", false},
		{"a/+/#", "a/#", false},
		{"+/#", "#", true},
		{"+/+/#", "#", false},
		{"+", "a", true},
		{"a", "+", false},
		{"$SYS/#", "$SYS/broker/+", true},
	} {
		if got := router.Covers(c.a, c.b); got != c.want {
			t.Errorf("Covers(%q, %q): got %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// Every filter of up to three levels over a small alphabet, against every topic
// of up to four: the last word is one that no filter names, as if the alphabet
// had no end. The empty string is among the topics, see Overlaps.
func TestOverlapAndCoverAgreeWithTheTopicsMatched(t *testing.T) {
	filters := namesUpTo(3, []string{"a", "", "$x", "+"}, true)
	topics := append(namesUpTo(4, []string{"a", "", "$x", "z"}, false), "")
	matched := make([][]bool, len(filters))
	for i, f := range filters {
		matched[i] = make([]bool, len(topics))
		for j, topic := range topics {
			matched[i][j] = naiveMatch(f, topic)
			if got := router.Match(f, topic); got != matched[i][j] {
				t.Fatalf("Match(%q, %q): got %v", f, topic, got)
			}
		}
	}
	for i, a := range filters {
		for j, b := range filters {
			overlaps, covers := false, true
			for k := range topics {
				overlaps = overlaps || matched[i][k] && matched[j][k]
				covers = covers && (matched[i][k] || !matched[j][k])
			}
			if got := router.Overlaps(a, b); got != overlaps {
				t.Errorf("Overlaps(%q, %q): got %v, want %v", a, b, got, overlaps)
			}
			if got := router.Covers(a, b); got != covers {
				t.Errorf("Covers(%q, %q): got %v, want %v", a, b, got, covers)
			}
		}
	}
}

func TestComparingAllocatesNothing(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() {
		router.Match("a/+/c/#", "a/b/c/d/e")
		router.Overlaps("a/+/c/#", "+/b/c/d")
		router.Covers("a/+/c/#", "a/b/c/d")
		router.Reserved("$share/g/t")
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}
