package router

import "strings"

// Space is the part of the name space that the first level of a topic or
// filter selects. Everything is [SpaceOpen] but seven first levels that the
// broker keeps for itself.
type Space uint8

// The spaces, with the first level that selects each.
const (
	SpaceOpen    Space = iota // any other, also an unknown one that begins with "$"
	SpaceSys                  // $SYS: what the broker tells about itself
	SpaceEvents               // $events: what happened to clients and queues
	SpaceQueue                // $queue, and $q for clients that strip "$queue/": a queue by name
	SpaceStream               // $stream: a stream by name
	SpaceShare                // $share: a filter whose messages a group shares
	SpaceDelayed              // $delayed/SECONDS/TOPIC: publish later
)

// reserved lists the first levels that select a space other than SpaceOpen.
var reserved = [...]struct {
	level string
	space Space
}{
	{"$SYS", SpaceSys},
	{"$events", SpaceEvents},
	{"$queue", SpaceQueue},
	{"$q", SpaceQueue},
	{"$stream", SpaceStream},
	{"$share", SpaceShare},
	{"$delayed", SpaceDelayed},
}

// SpaceOf tells the space of a topic or filter. Case does not matter: clients
// and brokers disagree about "$SHARE", so a rule for "$share" that let another
// spelling through would be a way around it. Only the whole level counts:
// "$SYSTEM/a" is open.
func SpaceOf(name string) Space {
	if !dollar(name) {
		return SpaceOpen
	}
	first, _, _ := strings.Cut(name, "/")
	for _, r := range reserved {
		if strings.EqualFold(first, r.level) {
			return r.space
		}
	}
	return SpaceOpen
}

// Reserved reports whether the broker keeps the first level of a topic or
// filter for itself, in any case. Clients publish to no reserved name but
// $delayed, and none is matched into a queue but $events by a filter that
// names it. Other names that begin with "$" are ordinary topics that "#" and
// "+" do not match at the first level.
func Reserved(name string) bool { return SpaceOf(name) != SpaceOpen }

// Shared splits a shared filter, "$share/GROUP/FILTER" with "$share" in any
// case (MQTT 5.0 section 4.8.2); ok tells whether filter is one, well-formed
// or not. The error is a [*SyntaxError] if the group is missing, empty or
// holds a wildcard, or if nothing follows it. It also refuses a share within a
// share, which would hide the inner filter from rules that look behind one.
// The rest is not looked at otherwise: [ValidFilter] does both.
func Shared(filter string) (group, rest string, ok bool, err error) {
	if SpaceOf(filter) != SpaceShare {
		return "", "", false, nil
	}
	_, tail, _ := strings.Cut(filter, "/")
	group, rest, _ = strings.Cut(tail, "/")
	reason := ""
	switch {
	case group == "":
		reason = "the group after $share must not be empty"
	case strings.ContainsAny(group, "+#"):
		reason = `the group after $share must not hold "+" or "#"`
	case rest == "":
		reason = "a filter must follow the group after $share"
	case SpaceOf(rest) == SpaceShare:
		reason = "$share must not follow the group after $share"
	}
	if reason != "" {
		return "", "", true, invalid("filter", filter, reason)
	}
	return group, rest, true, nil
}

// dollar reports whether name begins with "$", so that no wildcard at the
// first level matches it (MQTT 5.0 section 4.7.2).
func dollar(name string) bool { return name != "" && name[0] == '$' }

// wild reports whether the first level of a filter is a wildcard.
func wild(filter string) bool { return filter != "" && (filter[0] == '+' || filter[0] == '#') }
