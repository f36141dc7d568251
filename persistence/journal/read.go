package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
)

const maxOpenFiles = 128

// ErrNoSegment is returned for positions in segments that are not in the log.
var ErrNoSegment = errors.New("journal: no such segment")

// Read returns the record at pos, whose whole size the caller remembers. The
// body is a slice of a commit window, not to be changed, or a fresh one read
// from disk. A record that is not there, or not as it was written, is a
// *DamageError.
func (j *Journal) Read(pos Position, size uint32) (typ byte, body []byte, err error) {
	if err := j.poisoned(); err != nil {
		return 0, nil, err
	}
	if rec, ok := j.fromWindow(pos, size); ok {
		if h, ok := parseHeader(rec); ok && h.size == size {
			return h.typ, rec[RecordHeader:], nil
		}
		return 0, nil, j.damage(pos.Segment(), int64(pos.Offset()), "no record of that size starts here")
	}
	s, err := j.acquire(pos.Segment())
	if err != nil {
		return 0, nil, err
	}
	defer j.unref(s)
	if size < RecordHeader || pos.Offset() < pageSize || int64(pos.Offset())+int64(size) > s.size {
		return 0, nil, j.damage(s.number, int64(pos.Offset()), "no record can lie here")
	}
	rec := make([]byte, size)
	if _, err := s.file.ReadAt(rec, int64(pos.Offset())); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, j.damage(s.number, int64(pos.Offset()), "the file ends within the record")
		}
		return 0, nil, fmt.Errorf("read segment %08x: %w", s.number, err)
	}
	if !valid(s.seed, rec) {
		return 0, nil, j.damage(s.number, int64(pos.Offset()), "the record's checksum does not match")
	}
	return rec[8], rec[RecordHeader:len(rec):len(rec)], nil
}

func (j *Journal) damage(number uint32, offset int64, reason string) error {
	return &DamageError{File: filepath.Join(j.o.Dir, segmentName(number)), Offset: offset, Reason: reason}
}

// fromWindow finds the record in memory.
func (j *Journal) fromWindow(pos Position, size uint32) ([]byte, bool) {
	j.cacheMu.RLock()
	defer j.cacheMu.RUnlock()
	w := j.windowAt(pos)
	if w == nil || size < RecordHeader {
		return nil, false
	}
	at := int64(pos.Offset()) - int64(w.start)
	if w.seg.number != pos.Segment() || at+int64(size) > w.filled.Load() {
		return nil, false
	}
	return w.buf[at : at+int64(size) : at+int64(size)], true
}

// windowAt returns the last window that begins at pos or before, or nil.
// cacheMu is held.
func (j *Journal) windowAt(pos Position) *window {
	i := sort.Search(len(j.cache), func(i int) bool { return j.cache[i].begin() > pos })
	if i == 0 {
		return nil
	}
	return j.cache[i-1]
}

// begin is the position of the first record in the window.
func (w *window) begin() Position { return position(w.seg.number, w.start+uint32(w.head)) }

// remember adds the newest window to the cache.
func (j *Journal) remember(w *window) {
	j.cacheMu.Lock()
	j.cache = append(j.cache, w)
	j.cacheBytes += len(w.buf)
	j.cacheMu.Unlock()
	j.trim()
}

// trim forgets the oldest windows while there are too many bytes of them. One
// that is not written yet stays, for nothing else holds its records.
func (j *Journal) trim() {
	j.cacheMu.Lock()
	defer j.cacheMu.Unlock()
	n := 0
	for j.cacheBytes > j.o.CacheSize && n < len(j.cache)-1 {
		w := j.cache[n]
		if w.written.Load() < w.filled.Load() {
			break
		}
		j.cacheBytes -= len(w.buf)
		n++
	}
	if n > 0 {
		j.cache = slices.Delete(j.cache, 0, n)
	}
}

// acquire returns an active segment with its file open until unref.
func (j *Journal) acquire(number uint32) (*segment, error) {
	j.tableMu.Lock()
	defer j.tableMu.Unlock()
	s := j.table[number]
	if s == nil {
		return nil, fmt.Errorf("%w: %08x", ErrNoSegment, number)
	}
	if s.file == nil {
		f, err := j.o.FS.Open(filepath.Join(j.o.Dir, segmentName(number)))
		if err != nil {
			return nil, fmt.Errorf("open segment: %w", err)
		}
		s.file = f
		j.opened++
	}
	s.refs++
	return s, nil
}

func (j *Journal) ref(s *segment) {
	j.tableMu.Lock()
	s.refs++
	j.tableMu.Unlock()
}

// unref lets go of a segment. Without users its file stays open, for the next
// reader, unless too many are or it left the log.
func (j *Journal) unref(s *segment) {
	j.tableMu.Lock()
	defer j.tableMu.Unlock()
	s.refs--
	if s.refs == 0 && s.file != nil && (s.gone || j.opened > maxOpenFiles) {
		_ = s.file.Close() // opened for reading, or synced before it was let go
		s.file = nil
		j.opened--
	}
}
