package router

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits bound what a topic or filter may cost. Zero values take the stated
// default.
type Limits struct {
	MaxBytes  int // bytes of the whole string; default 1,024
	MaxLevels int // levels of a topic, or of a filter without "$share/GROUP/"; default 201
}

// Defaults of [Limits]. 201 levels leave room for a prefix before 200 of the
// user's own, and bound the work of one search.
const (
	maxBytesDefault  = 1024
	maxLevelsDefault = 201
)

// shownBytes is how much of a refused name an error repeats: enough to find
// the culprit, too little to flood a log.
const shownBytes = 64

// SyntaxError says why a string is not a topic or not a filter.
type SyntaxError struct {
	What   string // "topic" or "filter"
	Input  string // the whole refused string
	Reason string // a clause for people: "it is empty"

	// Malformed tells that the string may not occur in an MQTT packet at all
	// (MQTT 5.0 section 1.5.4), whatever it was meant to be: the packet is
	// answered with 0x81, not with the code for a bad topic.
	Malformed bool
}

// Error quotes at most the first bytes of the input, with control characters
// and broken UTF-8 escaped.
func (e *SyntaxError) Error() string {
	return e.What + " " + quoted(e.Input) + " is not valid: " + e.Reason
}

// ValidTopic reports whether s is a topic name under the default limits, see
// [Limits.ValidTopic].
func ValidTopic(s string) error { return Limits{}.ValidTopic(s) }

// ValidFilter reports whether s is a topic filter under the default limits,
// see [Limits.ValidFilter].
func ValidFilter(s string) error { return Limits{}.ValidFilter(s) }

// ValidTopic returns nil if s can be published to as far as the grammar goes,
// else a [*SyntaxError]. Whether a client may publish there is another
// question: names that [Reserved] knows are well-formed topics.
func (l Limits) ValidTopic(s string) error {
	if err := l.validString("topic", s); err != nil {
		return err
	}
	if err := l.validDepth("topic", s, s); err != nil {
		return err
	}
	// MQTT 5.0 section 4.7.1: wildcards must not be used within a topic name.
	if strings.ContainsAny(s, "+#") {
		return invalid("topic", s, `"+" and "#" are for filters only`)
	}
	return nil
}

// ValidFilter returns nil if s can be subscribed to as far as the grammar
// goes, else a [*SyntaxError]. A shared filter is judged whole: its group, and
// the filter behind it, whose levels alone are counted because only they take
// part in matching.
func (l Limits) ValidFilter(s string) error {
	if err := l.validString("filter", s); err != nil {
		return err
	}
	_, rest, shared, err := Shared(s)
	if err != nil {
		return err
	}
	if !shared {
		rest = s
	}
	if err := l.validDepth("filter", s, rest); err != nil {
		return err
	}
	return validWildcards(s, rest)
}

// validString checks what holds for every name. MQTT 5.0 section 1.5.4: UTF-8
// without surrogates and without U+0000; section 4.7.3: at least one
// character. Other control characters are allowed there and here.
func (l Limits) validString(what, s string) error {
	limit := cmp.Or(l.MaxBytes, maxBytesDefault)
	switch {
	case s == "":
		return invalid(what, s, "it is empty")
	case !utf8.ValidString(s):
		return &SyntaxError{What: what, Input: s, Reason: "it is not well-formed UTF-8", Malformed: true}
	case strings.IndexByte(s, 0) >= 0:
		return &SyntaxError{What: what, Input: s, Reason: "it holds the character U+0000", Malformed: true}
	case len(s) > limit:
		return invalid(what, s, fmt.Sprintf("it has %d bytes, the limit is %d", len(s), limit))
	}
	return nil
}

// validDepth counts the levels of the part of s that takes part in matching.
func (l Limits) validDepth(what, s, part string) error {
	limit := cmp.Or(l.MaxLevels, maxLevelsDefault)
	if levels := strings.Count(part, "/") + 1; levels > limit {
		return invalid(what, s, fmt.Sprintf("it has %d levels, the limit is %d", levels, limit))
	}
	return nil
}

// validWildcards checks the filter part of s. MQTT 5.0 sections 4.7.1.2 and
// 4.7.1.3: a wildcard is a level of its own, "#" only the last one.
func validWildcards(s, part string) error {
	for more := true; more; {
		var level string
		level, part, more = strings.Cut(part, "/")
		switch {
		case level == "#" && more:
			return invalid("filter", s, `"#" must be the last level`)
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return invalid("filter", s, `"+" and "#" must be a level of their own`)
		}
	}
	return nil
}

func invalid(what, input, reason string) *SyntaxError {
	return &SyntaxError{What: what, Input: input, Reason: reason}
}

// quoted shortens s to shownBytes, at a character if it is UTF-8, and escapes
// whatever could forge or scramble a log line.
func quoted(s string) string {
	if len(s) <= shownBytes {
		return strconv.Quote(s)
	}
	end := shownBytes
	for end > shownBytes-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return strconv.Quote(s[:end]) + "…"
}
