package journal

import (
	"errors"
	"fmt"
	"io"
)

// Spot is where a record lies, and its whole size.
type Spot struct {
	Pos  Position
	Size uint32
}

const (
	blockSize = 256 << 10 // of one read from a file for many records
	blockGap  = 4096      // foreign bytes between two records that are read along
)

// ReadEach is Read for many records: fn is called for each in turn with its
// index in spots. Neighbours in a file are read with one call, so that a run of
// them costs what its bytes cost. They are read into what memory returns for a
// length, nil for fresh memory: as long as that is, bodies may be kept.
// The first record that cannot be read ends the call: its index is the number
// of times fn was called.
func (j *Journal) ReadEach(spots []Spot, memory func(n int) []byte, fn func(i int, typ byte, body []byte) error) error {
	if err := j.poisoned(); err != nil {
		return err
	}
	var w *window
	for i := 0; i < len(spots); {
		s := spots[i]
		if w == nil || !w.holds(s) {
			w = j.windowOf(s)
		}
		if w == nil {
			n, err := j.readBlock(spots[i:], i, memory, fn)
			if err != nil {
				return err
			}
			i += n
			continue
		}
		at := int(s.Pos.Offset()) - int(w.start)
		rec := w.buf[at : at+int(s.Size) : at+int(s.Size)]
		h, ok := parseHeader(rec)
		if !ok || h.size != s.Size {
			return j.damage(s.Pos.Segment(), int64(s.Pos.Offset()), "no record of that size starts here")
		}
		if err := fn(i, h.typ, rec[RecordHeader:]); err != nil {
			return err
		}
		i++
	}
	return nil
}

// holds reports whether the record is in w, and published.
func (w *window) holds(s Spot) bool {
	at := int64(s.Pos.Offset()) - int64(w.start)
	return w.seg.number == s.Pos.Segment() && at >= int64(w.head) && s.Size >= RecordHeader && at+int64(s.Size) <= w.filled.Load()
}

// windowOf returns the window that holds the record, or nil.
func (j *Journal) windowOf(s Spot) *window {
	j.cacheMu.RLock()
	defer j.cacheMu.RUnlock()
	if w := j.windowAt(s.Pos); w != nil && w.holds(s) {
		return w
	}
	return nil
}

// readBlock reads the first of spots and those that lie close behind it, and
// returns how many. base is the index of the first.
func (j *Journal) readBlock(spots []Spot, base int, memory func(n int) []byte, fn func(i int, typ byte, body []byte) error) (int, error) {
	first, cached := spots[0], j.firstCached()
	number, begin := first.Pos.Segment(), int64(first.Pos.Offset())
	end := begin + int64(first.Size)
	n := 1
	for ; n < len(spots); n++ {
		s := spots[n]
		at := int64(s.Pos.Offset())
		if s.Pos.Segment() != number || s.Pos >= cached || at < end || at > end+blockGap || at+int64(s.Size) > begin+blockSize {
			break
		}
		end = at + int64(s.Size)
	}
	seg, err := j.acquire(number)
	if err != nil {
		return 0, err
	}
	defer j.unref(seg)
	if begin < pageSize || end > seg.size {
		return 0, j.damage(number, begin, "no record can lie here")
	}
	if memory == nil {
		memory = fresh
	}
	block := memory(int(end - begin))
	_, err = seg.file.ReadAt(block, begin)
	if err != nil && n > 1 { // those before what cannot be read are good
		n, block = 1, block[:first.Size]
		_, err = seg.file.ReadAt(block, begin)
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			return 0, j.damage(number, begin, "the file ends within the record")
		}
		return 0, fmt.Errorf("read segment %08x: %w", number, err)
	}
	for i, s := range spots[:n] {
		at := int64(s.Pos.Offset()) - begin
		rec := block[at : at+int64(s.Size) : at+int64(s.Size)]
		if !valid(seg.seed, rec) {
			return 0, j.damage(number, int64(s.Pos.Offset()), "the record's checksum does not match")
		}
		if err := fn(base+i, rec[8], rec[RecordHeader:]); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func fresh(n int) []byte { return make([]byte, n) }

// firstCached is a position before which everything is written.
func (j *Journal) firstCached() Position {
	j.cacheMu.RLock()
	defer j.cacheMu.RUnlock()
	if len(j.cache) == 0 {
		return 1<<64 - 1
	}
	return j.cache[0].begin()
}
