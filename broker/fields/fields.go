// Package fields reads what records consist of: varints, texts and bytes with
// their length before them, numbers of a fixed width. The broker's records and
// those of the stores are made of the same parts, and come from disk: nothing
// that stands in them is believed before it is known to fit.
package fields

import (
	"encoding/binary"
	"unsafe"
)

// Reader takes fields from Rest. After the first that does not fit it is Bad,
// and every further one is zero.
type Reader struct {
	Rest []byte // what was not taken yet
	Bad  bool
}

// Uint takes a varint.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.Rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

// Int takes a zigzag varint.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.Rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

// Fixed64 takes eight bytes, little-endian.
func (r *Reader) Fixed64() uint64 {
	if len(r.Rest) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.Rest)
	r.Rest = r.Rest[8:]
	return v
}

// Fixed32 takes four bytes, little-endian.
func (r *Reader) Fixed32() uint32 {
	if len(r.Rest) < 4 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint32(r.Rest)
	r.Rest = r.Rest[4:]
	return v
}

// Byte takes one.
func (r *Reader) Byte() byte {
	if len(r.Rest) == 0 {
		r.fail()
		return 0
	}
	v := r.Rest[0]
	r.Rest = r.Rest[1:]
	return v
}

// Take takes n bytes, without copying them.
func (r *Reader) Take(n int) []byte { return r.take(uint64(n)) }

func (r *Reader) take(n uint64) []byte {
	if n > uint64(len(r.Rest)) {
		r.fail()
		return nil
	}
	v := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return v
}

// Bytes takes a length and that many bytes, without copying them.
func (r *Reader) Bytes() []byte { return r.take(r.Uint()) }

// Text takes a copy of Bytes.
func (r *Reader) Text() string { return string(r.Bytes()) }

// Shared is Bytes as a string over the same memory, which must never change
// again. This is the one use of unsafe.
func (r *Reader) Shared() string {
	v := r.Bytes()
	if len(v) == 0 {
		return ""
	}
	return unsafe.String(&v[0], len(v)) //nolint:gosec // the bytes never change, see above
}

// Count takes the length of a list whose elements take at least size bytes
// each, so that no length makes anybody allocate more than the bytes that are
// there account for.
func (r *Reader) Count(size int) int {
	n := r.Uint()
	if n > uint64(len(r.Rest)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *Reader) fail() { r.Rest, r.Bad = nil, true }

// AppendText appends what Text and Shared take.
func AppendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendBytes appends what Bytes takes.
func AppendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// AppendUints appends varints.
func AppendUints(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}
