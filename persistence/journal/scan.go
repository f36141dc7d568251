package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

const scanChunk = 1 << 20

// scanner reads the records of one segment from its file, in order.
type scanner struct {
	file File
	seg  *segment
	end  int64 // nothing is read behind it

	buf  []byte // what has been read
	base int64  // offset in the file of buf[0]
}

// bytes returns n bytes of the file at off, or fewer at the end. It keeps what
// was read from keep on, so that a group stays in one piece.
func (s *scanner) bytes(keep, off int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.end-off))
	if n <= 0 {
		return nil, nil
	}
	if have := s.base + int64(len(s.buf)); off+int64(n) > have {
		kept := copy(s.buf, s.buf[min(keep-s.base, int64(len(s.buf))):])
		s.base = keep
		want := int(min(max(off+int64(n)-keep, scanChunk), s.end-keep))
		if cap(s.buf) < want {
			s.buf = append(make([]byte, 0, max(want, 2*cap(s.buf))), s.buf[:kept]...)
		}
		s.buf = s.buf[:want]
		got, err := s.file.ReadAt(s.buf[kept:], keep+int64(kept))
		s.buf = s.buf[:kept+got]
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read segment %08x: %w", s.seg.number, err)
		}
	}
	at := off - s.base
	return s.buf[min(at, int64(len(s.buf))):min(at+int64(n), int64(len(s.buf)))], nil
}

// outcome is how far a scan came.
type outcome struct {
	good int64 // end of the last whole group
	bad  int64 // the record that could not be read; good or later
}

// groups calls fn for each whole group from offset from to the first bytes that
// are no valid record or the end.
func (s *scanner) groups(from int64, fn func([]Record) error) (outcome, error) {
	s.buf, s.base = s.buf[:0], from
	o := outcome{good: from, bad: from}
	var group []Record
	for {
		h, ok, err := s.record(o)
		if err != nil || !ok {
			return o, err
		}
		own := h.typ >= ReservedTypes
		if own && len(group) > 0 {
			return o, nil // never inside a group
		}
		pos := position(s.seg.number, uint32(o.bad))
		o.bad += int64(h.size)
		if own {
			o.good = o.bad
			continue
		}
		group = append(group, Record{Pos: pos, Size: h.size, Type: h.typ})
		if h.flags&flagMore != 0 {
			continue
		}
		if err := s.deliver(group, fn); err != nil {
			return o, err
		}
		group = group[:0]
		o.good = o.bad
	}
}

// record checks the record at o.bad.
func (s *scanner) record(o outcome) (header, bool, error) {
	b, err := s.bytes(o.good, o.bad, RecordHeader)
	if err != nil || len(b) < RecordHeader {
		return header{}, false, err
	}
	h, ok := parseHeader(b)
	if !ok || int64(h.size) > s.end-o.bad {
		return header{}, false, nil
	}
	b, err = s.bytes(o.good, o.bad, int(h.size))
	if err != nil || !valid(s.seg.seed, b) {
		return header{}, false, err
	}
	return h, true, nil
}

// deliver hands out a group, all of which is in the buffer.
func (s *scanner) deliver(group []Record, fn func([]Record) error) error {
	if fn == nil {
		return nil
	}
	for i := range group {
		r := &group[i]
		at := int64(r.Pos.Offset()) - s.base
		r.Body = s.buf[at+RecordHeader : at+int64(r.Size) : at+int64(r.Size)]
	}
	return fn(group)
}

// nextSynced finds the first valid synced record at or behind off.
func (s *scanner) nextSynced(off int64) (at int64, durable Position, ok bool, err error) {
	s.buf, s.base = s.buf[:0], off
	for {
		b, err := s.bytes(off, off, scanChunk)
		if err != nil || len(b) < syncedSize {
			return 0, 0, false, err
		}
		if i, durable, ok := findSynced(s.seg.seed, b); ok {
			return off + int64(i), durable, true, nil
		}
		off += int64(len(b)) - syncedSize + 1
	}
}

// Scan calls fn for each whole group of a segment that is no longer appended
// to, in log order. Records and bodies are valid only during the call.
func (j *Journal) Scan(number uint32, fn func(group []Record) error) error {
	if err := j.poisoned(); err != nil {
		return err
	}
	s, err := j.acquire(number)
	if err != nil {
		return err
	}
	defer j.unref(s)
	j.tableMu.Lock()
	end := s.end
	j.tableMu.Unlock()
	if end == 0 || Position(j.durable.Load()) < position(number, end) {
		return fmt.Errorf("scan segment %08x: it is still written to", number)
	}
	sc := &scanner{file: s.file, seg: s, end: int64(end)}
	o, err := sc.groups(pageSize, fn)
	if err != nil {
		return err
	}
	if o.good != int64(end) {
		return &DamageError{
			File:   filepath.Join(j.o.Dir, segmentName(number)),
			Offset: o.bad, Reason: "not a valid record",
		}
	}
	return nil
}
