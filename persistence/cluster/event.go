package cluster

import (
	"encoding/json"

	"millrace/broker"
	"millrace/broker/fields"
)

// eventKind says what changed.
type eventKind byte

const (
	recorded eventKind = iota + 1
	defined
	dropped
	joined
	left
)

// event is one change that all nodes hear of.
type event struct {
	number uint64
	kind   eventKind
	space  broker.Space // of recorded
	entry  broker.Entry
	def    broker.Definition // of defined and dropped
	node   broker.Node       // of joined and left
}

func (e *event) append(b []byte) []byte {
	b = append(b, byte(e.kind))
	switch e.kind {
	case recorded:
		return appendEntry(append(b, byte(e.space)), &e.entry)
	case defined, dropped:
		return appendJSON(b, e.def)
	default:
		return appendJSON(b, e.node)
	}
}

// appendJSON appends v, which always can be.
func appendJSON(b []byte, v any) []byte {
	text, _ := json.Marshal(v)
	return append(b, text...)
}

func readEvent(number uint64, b []byte) (e event, err error) {
	r := fields.Reader{Rest: b}
	e.number, e.kind = number, eventKind(r.Byte())
	switch e.kind {
	case recorded:
		e.space = broker.Space(r.Byte())
		e.entry = readEntry(&r)
	case defined, dropped:
		return e, json.Unmarshal(r.Rest, &e.def)
	case joined, left:
		return e, json.Unmarshal(r.Rest, &e.node)
	default:
		return e, errCodec
	}
	if r.Bad {
		return e, errCodec
	}
	return e, nil
}

// hear tells the broker of a change. Calls come one after the other.
func (s *Store) hear(e *event) {
	if e.kind == left {
		s.asks.left(e.node.Name)
	}
	s.calling.Lock()
	defer s.calling.Unlock()
	h := s.followed.Load()
	if h == nil {
		return
	}
	if h.known != nil {
		if h.known.older(e) {
			return
		}
		h.known.note(e)
	}
	switch e.kind {
	case recorded:
		h.Recorded(e.space, e.entry)
	case defined:
		h.Defined(e.def)
	case dropped:
		h.Gone(e.def)
	case joined:
		h.Joined(e.node)
	case left:
		h.Left(e.node)
	}
}
