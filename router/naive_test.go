package router_test

import (
	"strings"

	"pgregory.net/rapid"
)

// naiveMatch is MQTT 5.0 section 4.7 written down level by level, as slowly
// and plainly as possible: what every fast path here is compared with.
func naiveMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return len(t) >= i
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

// words of the names under test: few, so that random names meet, and more than
// a level holds without hashing; with an empty one and two that begin with "$".
var words = []string{"", "a", "b", "c", "$x", "$SYS", "temperature", "1", "2", "3", "4", "5"}

// genTopic draws valid topics of up to five levels.
func genTopic() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.SampledFrom(words), 1, 5).Draw(t, "levels")
		if s := strings.Join(levels, "/"); s != "" {
			return s
		}
		return "a"
	})
}

// genFilter draws valid filters of up to six levels.
func genFilter() *rapid.Generator[string] {
	level := rapid.SampledFrom(append([]string{"+", "+"}, words...))
	return rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(level, 0, 5).Draw(t, "levels")
		if rapid.Bool().Draw(t, "below") {
			levels = append(levels, "#")
		}
		if s := strings.Join(levels, "/"); s != "" {
			return s
		}
		return "+"
	})
}

// namesUpTo lists every name of up to n levels made of the given levels, with
// "#" as a last level if below is set.
func namesUpTo(n int, levels []string, below bool) []string {
	var all []string
	prefixes := []string{""}
	for i := range n {
		var longer []string
		for _, p := range prefixes {
			if i > 0 {
				p += "/"
			}
			for _, level := range levels {
				longer = append(longer, p+level)
			}
			if below {
				all = append(all, p+"#")
			}
		}
		for _, s := range longer {
			if s != "" {
				all = append(all, s)
			}
		}
		prefixes = longer
	}
	return all
}
