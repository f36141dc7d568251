package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/ref"
)

// errRecord is a record that cannot be read.
var errRecord = errors.New("it is damaged")

// window is the value of the key of a window.
type window struct {
	moves uint8
	out   [broker.Reasons]uint64
	upto  uint64 // of the window: what follows was not taken
	runs  []run
}

// run are neighbours that are pending in the same way.
type run struct {
	from, n uint64 // in the window
	pending
}

// window writes what is pending in a window.
func (b *subscription) window(ln *lane, n uint64) []byte {
	base := n * windowSize
	v := appendOut([]byte{recordFormat, ln.moves}, &b.out)
	v = binary.AppendUvarint(v, min(ln.next-min(base, ln.next), windowSize))
	end := uint64(0)
	var r run
	flush := func() {
		if r.n == 0 {
			return
		}
		v = append(fields.AppendUints(v, r.from-end, r.n), byte(r.state), byte(r.why))
		v = fields.AppendUints(v, uint64(r.attempt), uint64(r.until))
		end = r.from + r.n
	}
	ln.open.Ascend(base, func(o uint64, e *pending) bool {
		if o >= base+windowSize {
			return false
		}
		if e.state == leaving {
			return true
		}
		p := pending{state: e.state, why: e.why, attempt: e.attempt, until: e.until}
		if at := o - base; r.n > 0 && r.from+r.n == at && r.pending == p {
			r.n++
		} else {
			flush()
			r = run{at, 1, p}
		}
		return true
	})
	flush()
	return v
}

// parse reads what window wrote.
func (w *window) parse(v []byte) error {
	f := fields.Reader{Rest: v}
	if format := f.Byte(); format != recordFormat {
		return fmt.Errorf("format %d, and this program knows %d", format, recordFormat)
	}
	w.moves = f.Byte()
	readOut(&f, &w.out)
	w.upto = f.Uint()
	end := uint64(0)
	for len(f.Rest) > 0 && !f.Bad {
		r := run{from: end + f.Uint(), n: f.Uint()}
		r.state, r.why = state(f.Byte()), broker.Reason(f.Byte())
		r.attempt, r.until = uint32(f.Uint()), int64(f.Uint())
		if end = r.from + r.n; r.n == 0 || end > w.upto || r.state >= states || r.why >= broker.Reasons {
			f.Bad = true
		}
		w.runs = append(w.runs, r)
	}
	if f.Bad || w.upto > windowSize {
		return errRecord
	}
	return nil
}

// append writes the head.
func (h *head) append() []byte {
	v := appendOut([]byte{recordFormat}, &h.out)
	for _, ln := range h.lanes {
		v = binary.AppendUvarint(append(v, ln.moves), ln.mark)
	}
	return v
}

// parse reads what append wrote.
func (h *head) parse(v []byte) error {
	f := fields.Reader{Rest: v}
	if format := f.Byte(); format != recordFormat {
		return fmt.Errorf("format %d, and this program knows %d", format, recordFormat)
	}
	readOut(&f, &h.out)
	for len(f.Rest) > 0 && !f.Bad {
		ln := headLane{moves: f.Byte(), mark: f.Uint()}
		f.Bad = f.Bad || ln.mark > ref.MaxOffset
		h.lanes = append(h.lanes, ln)
	}
	if f.Bad {
		return errRecord
	}
	return nil
}

func appendOut(v []byte, out *[broker.Reasons]uint64) []byte {
	return fields.AppendUints(binary.AppendUvarint(v, uint64(len(out))), out[:]...)
}

// readOut reads the counters; a record of before a reason was added has fewer.
func readOut(f *fields.Reader, out *[broker.Reasons]uint64) {
	n := f.Uint()
	if n > uint64(len(out)) {
		f.Bad = true
		return
	}
	for i := range n {
		out[i] = f.Uint()
	}
}
