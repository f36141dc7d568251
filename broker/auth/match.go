package auth

import "millrace/router"

const maxFilterBytes = 1024

func match(filter, topic string) bool { return router.Match(filter, topic) }
func covers(a, b string) bool         { return router.Covers(a, b) }
func overlaps(a, b string) bool       { return router.Overlaps(a, b) }
func validFilter(filter string) error { return router.ValidFilter(filter) }

// space returns the first level of a topic or filter if the broker keeps it for
// itself, in its usual spelling, else "".
func space(name string) string {
	switch router.SpaceOf(name) {
	case router.SpaceSys:
		return "$SYS"
	case router.SpaceEvents:
		return "$events"
	case router.SpaceQueue:
		return "$queue"
	case router.SpaceStream:
		return "$stream"
	case router.SpaceShare:
		return "$share"
	case router.SpaceDelayed:
		return "$delayed"
	default:
		return ""
	}
}
