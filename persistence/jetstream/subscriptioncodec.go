package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"

	"millrace/broker"
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
		v = append(appendNumbers(v, r.from-end, r.n), byte(r.state), byte(r.why))
		v = appendNumbers(v, uint64(r.attempt), uint64(r.until))
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
	f := numbers{v: v}
	if format := f.byte(); format != recordFormat {
		return fmt.Errorf("format %d, and this program knows %d", format, recordFormat)
	}
	w.moves = f.byte()
	f.out(&w.out)
	w.upto = f.next()
	end := uint64(0)
	for len(f.v) > 0 && !f.bad {
		r := run{from: end + f.next(), n: f.next()}
		r.state, r.why = state(f.byte()), broker.Reason(f.byte())
		r.attempt, r.until = uint32(f.next()), int64(f.next())
		if end = r.from + r.n; r.n == 0 || end > w.upto || r.state >= states || r.why >= broker.Reasons {
			f.bad = true
		}
		w.runs = append(w.runs, r)
	}
	if f.bad || w.upto > windowSize {
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
	f := numbers{v: v}
	if format := f.byte(); format != recordFormat {
		return fmt.Errorf("format %d, and this program knows %d", format, recordFormat)
	}
	f.out(&h.out)
	for len(f.v) > 0 && !f.bad {
		ln := headLane{moves: f.byte(), mark: f.next()}
		f.bad = f.bad || ln.mark > ref.MaxOffset
		h.lanes = append(h.lanes, ln)
	}
	if f.bad {
		return errRecord
	}
	return nil
}

func appendNumbers(v []byte, list ...uint64) []byte {
	for _, n := range list {
		v = binary.AppendUvarint(v, n)
	}
	return v
}

func appendOut(v []byte, out *[broker.Reasons]uint64) []byte {
	return appendNumbers(binary.AppendUvarint(v, uint64(len(out))), out[:]...)
}

// numbers reads a record.
type numbers struct {
	v   []byte
	bad bool // it ended too early, or is nonsense
}

func (f *numbers) next() uint64 {
	n, size := binary.Uvarint(f.v)
	if size <= 0 {
		f.bad, f.v = true, nil
		return 0
	}
	f.v = f.v[size:]
	return n
}

func (f *numbers) byte() byte {
	if len(f.v) == 0 {
		f.bad = true
		return 0
	}
	c := f.v[0]
	f.v = f.v[1:]
	return c
}

// out reads the counters; a record of before a reason was added has fewer.
func (f *numbers) out(out *[broker.Reasons]uint64) {
	n := f.next()
	if n > uint64(len(out)) {
		f.bad = true
		return
	}
	for i := range n {
		out[i] = f.next()
	}
}
