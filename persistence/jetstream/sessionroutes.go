package jetstream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"millrace/broker"
	"millrace/broker/fields"
)

// errRoutes is a message of the log that this program cannot read.
var errRoutes = errors.New("who a message of the log is for is malformed")

// logFormat begins a message of the log. After it: how many routes, and for each
// by how much its target is above the one before, and its tag, as varints; then the message.
const logFormat = 1

// appendRoutes appends what stands before a message in the log.
func appendRoutes(b []byte, routes []broker.Route) []byte {
	slices.SortFunc(routes, func(x, y broker.Route) int { return cmp.Compare(x.Target, y.Target) })
	b = binary.AppendUvarint(append(b, logFormat), uint64(len(routes)))
	before := broker.Target(0)
	for _, r := range routes {
		b = binary.AppendUvarint(b, uint64(r.Target-before))
		b = binary.AppendUvarint(b, uint64(r.Tag))
		before = r.Target
	}
	return b
}

// parseRoutes is the reverse, and returns the message too, as it was appended.
func parseRoutes(b []byte) (routes []broker.Route, body []byte, err error) {
	f := fields.Reader{Rest: b}
	if f.Byte() != logFormat {
		return nil, nil, errRoutes
	}
	n := f.Uint()
	if n > uint64(len(f.Rest)) {
		return nil, nil, errRoutes
	}
	routes = make([]broker.Route, n)
	before := broker.Target(0)
	for i := range routes {
		before += broker.Target(f.Uint())
		routes[i] = broker.Route{Target: before, Tag: uint32(f.Uint())}
	}
	if f.Bad {
		return nil, nil, errRoutes
	}
	return routes, f.Rest, nil
}
