package auth

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// The grammar of topic filters, as MQTT 5.0 section 4.7 has it.

const (
	maxFilterBytes  = 1024
	maxFilterLevels = 201
)

// match reports whether filter matches topic.
func match(filter, topic string) bool {
	if wildcardFirst(filter) && strings.HasPrefix(topic, "$") {
		return false
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !tmore {
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		filter, topic = frest, trest
	}
}

// covers reports whether filter a matches every topic that filter b matches.
func covers(a, b string) bool {
	if wildcardFirst(a) && strings.HasPrefix(b, "$") {
		return false
	}
	if a == "+/#" && b == "#" {
		return true
	}
	for {
		x, xrest, xmore := strings.Cut(a, "/")
		if x == "#" {
			return true
		}
		y, yrest, ymore := strings.Cut(b, "/")
		if y == "#" || x != "+" && x != y {
			return false
		}
		if !ymore {
			return !xmore || xrest == "#"
		}
		if !xmore {
			return false
		}
		a, b = xrest, yrest
	}
}

// overlaps reports whether some topic is matched by both filters.
func overlaps(a, b string) bool {
	if wildcardFirst(a) && strings.HasPrefix(b, "$") || wildcardFirst(b) && strings.HasPrefix(a, "$") {
		return false
	}
	for {
		x, xrest, xmore := strings.Cut(a, "/")
		y, yrest, ymore := strings.Cut(b, "/")
		if x == "#" || y == "#" {
			return true
		}
		if x != "+" && y != "+" && x != y {
			return false
		}
		switch {
		case !xmore && !ymore:
			return true
		case !xmore:
			return yrest == "#"
		case !ymore:
			return xrest == "#"
		}
		a, b = xrest, yrest
	}
}

// validFilter says in one sentence what is wrong with filter.
func validFilter(filter string) error {
	switch {
	case filter == "":
		return errors.New("a topic filter must not be empty")
	case len(filter) > maxFilterBytes:
		return errors.New("a topic filter has at most 1024 bytes")
	case !utf8.ValidString(filter) || strings.ContainsRune(filter, 0):
		return errors.New("a topic filter must be UTF-8 without NUL")
	case strings.Count(filter, "/") >= maxFilterLevels:
		return errors.New("a topic filter has at most 201 levels")
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return errors.New("# must be the last level")
		case level != "#" && level != "+" && strings.ContainsAny(level, "#+"):
			return errors.New("# and + must fill a whole level")
		}
	}
	return nil
}

func wildcardFirst(filter string) bool {
	return filter != "" && (filter[0] == '+' || filter[0] == '#')
}
