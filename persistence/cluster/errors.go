package cluster

import (
	"errors"

	"millrace/broker"
	"millrace/broker/fields"
)

// kinds of error that go from node to node as what they are. A number is an
// index: append only.
var kinds = []error{
	nil, broker.ErrUnknown, broker.ErrFull, broker.ErrConflict, broker.ErrGone, broker.ErrStale,
	broker.ErrNotFound, broker.ErrClosed, broker.ErrNotSelective,
	broker.ErrDamaged,
}

// Numbers of errors that have parts.
const (
	otherError = 100 + iota
	rangeError
	brokerError
)

// remote is an error of another node.
type remote struct {
	kind error // nil for one of no kind
	text string
}

func (e *remote) Error() string { return e.text }
func (e *remote) Unwrap() error { return e.kind }

// appendError appends err, which may be nil.
func appendError(b []byte, err error) []byte {
	if err == nil {
		return append(b, 0)
	}
	if e, ok := errors.AsType[*broker.RangeError](err); ok {
		return fields.AppendUints(append(b, rangeError), e.First, e.Next)
	}
	if e, ok := errors.AsType[*broker.Error](err); ok {
		b = fields.AppendUints(append(b, brokerError), uint64(e.Kind))
		for _, s := range []string{string(e.Subject), e.Field, e.Message} {
			b = fields.AppendText(b, s)
		}
		return b
	}
	for i, kind := range kinds {
		if i > 0 && errors.Is(err, kind) {
			return fields.AppendText(append(b, byte(i)), err.Error())
		}
	}
	return fields.AppendText(append(b, otherError), err.Error())
}

// readError takes what appendError appended.
func readError(r *fields.Reader) error {
	switch n := r.Byte(); {
	case n == 0:
		return nil
	case n == rangeError:
		return &broker.RangeError{First: r.Uint(), Next: r.Uint()}
	case n == brokerError:
		return &broker.Error{Kind: broker.Kind(r.Uint()), Subject: broker.Subject(r.Text()), Field: r.Text(), Message: r.Text()}
	case int(n) < len(kinds):
		kind, text := kinds[n], r.Text()
		if text == kind.Error() {
			return kind
		}
		return &remote{kind, text}
	default:
		return &remote{nil, r.Text()}
	}
}
