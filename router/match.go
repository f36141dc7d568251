package router

import "strings"

// Match reports whether the filter matches the topic (MQTT 5.0 section 4.7).
// It allocates nothing. A shared filter is given without its "$share/GROUP/".
func Match(filter, topic string) bool {
	if wild(filter) && dollar(topic) {
		return false
	}
	for filter != "#" {
		want, filterRest, filterMore := strings.Cut(filter, "/")
		have, topicRest, topicMore := strings.Cut(topic, "/")
		switch {
		case want != "+" && want != have:
			return false
		case !topicMore:
			return !filterMore || filterRest == "#" // "a/#" matches "a"
		case !filterMore:
			return false
		}
		filter, topic = filterRest, topicRest
	}
	return true
}

// Overlaps reports whether some topic is matched by both filters: whether a
// rule about one can touch a subscription to the other. It is symmetric, and
// exact but for "", which counts as a topic: "+" and "/#" overlap there only.
func Overlaps(a, b string) bool {
	if wild(a) && dollar(b) || wild(b) && dollar(a) {
		return false
	}
	for a != "#" && b != "#" {
		x, aRest, aMore := strings.Cut(a, "/")
		y, bRest, bMore := strings.Cut(b, "/")
		switch {
		case x != y && x != "+" && y != "+":
			return false
		case !aMore:
			return !bMore || bRest == "#"
		case !bMore:
			return aRest == "#"
		}
		a, b = aRest, bRest
	}
	return true
}

// Covers reports whether filter a matches every topic that filter b matches:
// whether permission for a is permission for all of b. A topic is the filter
// that matches only itself, so Covers(f, topic) equals Match(f, topic). Like
// Overlaps it is exact but for "", and errs there to the side of refusing.
func Covers(a, b string) bool {
	if wild(a) && dollar(b) {
		return false
	}
	if b == "#" {
		b = "+/#" // the same topics, since every topic has a first level
	}
	for a != "#" {
		x, aRest, aMore := strings.Cut(a, "/")
		y, bRest, bMore := strings.Cut(b, "/")
		switch {
		case y == "#": // matches the level above too, where a asks for more
			return false
		case x != "+" && x != y:
			return false
		case !bMore:
			return !aMore || aRest == "#"
		case !aMore:
			return false
		}
		a, b = aRest, bRest
	}
	return true
}
