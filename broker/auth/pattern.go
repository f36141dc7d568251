package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// reach widens a pattern beyond what its text matches.
type reach uint8

const (
	literal    reach = iota // what the text matches
	ordinary                // every topic but $SYS and $events
	everything              // every topic
)

// pattern is the filter of a rule or scope.
type pattern struct {
	kind  ResourceKind
	text  string // topic filter, or glob of a queue or stream
	reach reach
}

// parsePattern reads a filter of rules and scopes: a topic filter, queue:GLOB
// or stream:GLOB. The reason of a refusal is meant for people.
func parsePattern(s string) (pattern, string) {
	if name, ok := strings.CutPrefix(s, "queue:"); ok {
		return pattern{kind: Queue, text: name}, badGlob(name)
	}
	if name, ok := strings.CutPrefix(s, "stream:"); ok {
		return pattern{kind: Stream, text: name}, badGlob(name)
	}
	if err := validFilter(s); err != nil {
		return pattern{}, err.Error()
	}
	switch space(s) {
	case "$share":
		return pattern{}, "write the filter without $share/GROUP/, it holds for shared subscriptions too"
	case "$queue", "$q":
		return pattern{}, "write queue:NAME"
	case "$stream":
		return pattern{}, "write stream:NAME"
	case "$delayed":
		return pattern{}, "write the topic without $delayed/SECONDS/, it holds for delayed messages too"
	}
	if s == "#" {
		return pattern{kind: Topic, text: s, reach: ordinary}, ""
	}
	return pattern{kind: Topic, text: s}, ""
}

func badGlob(name string) (reason string) {
	switch {
	case name == "" || len(name) > maxFilterBytes:
		return "a name must have 1 to 1024 bytes"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "a name must be UTF-8 without control characters"
	}
	return ""
}

// expand puts the principal's client id and name where the pattern has %c and
// %u. It reports false where a value cannot stand there as a literal, so that
// nobody gains rights by the choice of an id.
func (pt pattern) expand(p *Principal) (pattern, bool) {
	if !strings.Contains(pt.text, "%") {
		return pt, true
	}
	text := pt.text
	if strings.Contains(text, "%c") && !pt.plain(p.ClientID) || strings.Contains(text, "%u") && !pt.plain(p.Name) {
		return pattern{}, false
	}
	text = strings.NewReplacer("%c", p.ClientID, "%u", p.Name).Replace(text)
	if strings.HasPrefix(text, "$") && !strings.HasPrefix(pt.text, "$") {
		return pattern{}, false
	}
	pt.text = text
	return pt, true
}

// plain reports whether value has no meaning of its own inside the pattern.
func (pt pattern) plain(value string) bool {
	special := "+#/"
	if pt.kind != Topic {
		special = "+#/*"
	}
	return value != "" && utf8.ValidString(value) &&
		!strings.ContainsAny(value, special) && !strings.ContainsFunc(value, unicode.IsControl)
}

// relation says how much of a question a pattern answers.
type relation uint8

const (
	apart   relation = iota // nothing in common
	partial                 // some of the topics asked for
	whole                   // all of them
)

// relate compares the pattern with the name of a resource of its own kind. A
// topic may be a filter, and then be matched in part.
func (pt *pattern) relate(name string) relation {
	switch {
	case pt.reach == everything:
		return whole
	case pt.reach == ordinary:
		return holds(!internal(name))
	case pt.kind != Topic:
		return holds(glob(pt.text, name))
	case strings.IndexByte(name, '+') < 0 && strings.IndexByte(name, '#') < 0:
		return holds(match(pt.text, name))
	case covers(pt.text, name):
		return whole
	case overlaps(pt.text, name):
		return partial
	default:
		return apart
	}
}

func holds(ok bool) relation {
	if ok {
		return whole
	}
	return apart
}

// internal reports whether a topic is the broker's own to publish.
func internal(topic string) bool {
	s := space(topic)
	return s == "$SYS" || s == "$events"
}

// glob reports whether name matches g, where * stands for any characters. It
// takes time in proportion to the lengths' product at worst, and no memory.
func glob(g, name string) bool {
	i, j, star, mark := 0, 0, -1, 0
	for j < len(name) {
		switch {
		case i < len(g) && g[i] == '*':
			star, mark = i, j
			i++
		case i < len(g) && g[i] == name[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(g[i:], "*") == ""
}

// intersect returns the filter of the topics that both filters match; two
// filters have at most one such.
func intersect(a, b string) (string, bool) {
	if !overlaps(a, b) {
		return "", false
	}
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	var out []string
	for i := 0; i < len(as) && i < len(bs); i++ {
		switch {
		case as[i] == "#":
			return strings.Join(append(out, bs[i:]...), "/"), true
		case bs[i] == "#":
			return strings.Join(append(out, as[i:]...), "/"), true
		case as[i] == "+":
			out = append(out, bs[i])
		default:
			out = append(out, as[i])
		}
	}
	return strings.Join(out, "/"), true
}
