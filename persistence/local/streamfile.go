package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"

	"millrace/broker"
	"millrace/persistence/journal"
)

// A file of a partition holds messages that were copied out of the journal, in
// order of offset. Its name is the first offset in hexadecimal.
//
//	header   "MILLSTRM", version u32, partition u32, target u64, base u64,
//	         previous u64, store id 16 bytes, previous length u32, crc u32
//	message  size u32, crc u32, offset u64, time u64, message
//
// Numbers are little-endian. Previous is the offset where the file before it
// ends, and another one than base says that what lies between was given up; the
// previous length says how much of that file counts. The crc of a message begins
// with that of the header, so that no bytes of another file pass for its own.
// What lies behind the length that the next file, or for the last one the
// newest copied record, names is the rest of a copy that did not end.
//
// An entry whose size has the bit entryLost takes the place of messages that
// were given up: offset is that of the message behind them, and the crc does not
// cover what is there besides.
const (
	fileVersion = 1
	fileHeader  = 64
	fileEntry   = 24
	entryLost   = 1 << 31

	fileBlock = 256 << 10 // read at once
	leastRead = 512       // the least that is, more than an entry
	markEvery = 16 << 10  // bytes between two marks of the index
	maxOpen   = 128       // files that stay open
)

var (
	fileMagic  = []byte("MILLSTRM")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// files is where the files of all streams are.
type files struct {
	fs     journal.FS
	dir    string // of all streams
	max    int64  // bytes of one file, about
	runMax int64  // and of a run of the index
	opened atomic.Int64
	copy   sync.Mutex // held by the one who copies
}

// mark is a place in the sparse index of a file.
type mark struct {
	offset uint64
	time   int64
	at     int64
}

// streamFile is one file of a partition.
type streamFile struct {
	files      *files
	name       string
	target     broker.Target
	partition  uint32
	base, prev uint64
	prevSize   uint32
	time       int64 // of its first message
	lost       bool  // it was given up, and has none
	seed       uint32

	mu    sync.Mutex
	size  int64 // what is before it may be read
	file  journal.File
	refs  int
	gone  bool   // closed by the last reader
	marks []mark // nil until it is needed
}

func fileName(base uint64) string { return fmt.Sprintf("%016x.log", base) }

// dirOf is where the files of a partition are.
func (f *files) dirOf(id broker.Target, partition uint32) string {
	return filepath.Join(f.dir, fmt.Sprintf("%016x", uint64(id)), fmt.Sprintf("%04x", partition))
}

// header returns the first bytes of the file.
func (f *streamFile) header(store [16]byte) []byte {
	b := make([]byte, fileHeader)
	le := binary.LittleEndian
	copy(b, fileMagic)
	if f.lost {
		copy(b, lostMagic)
	}
	le.PutUint32(b[8:], fileVersion)
	le.PutUint32(b[12:], f.partition)
	le.PutUint64(b[16:], uint64(f.target))
	le.PutUint64(b[24:], f.base)
	le.PutUint64(b[32:], f.prev)
	copy(b[40:], store[:])
	le.PutUint32(b[56:], f.prevSize)
	f.seed = crc32.Checksum(b[:60], castagnoli)
	le.PutUint32(b[60:], f.seed)
	return b
}

// readHeader checks the header, and learns from it.
func (f *streamFile) readHeader(store [16]byte) error {
	file, err := f.acquire()
	if err != nil {
		return err
	}
	defer f.release()
	b := make([]byte, fileHeader)
	if n, err := file.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return f.damage(int64(n), "the file is cut off")
	} else if err != nil {
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	f.lost = f.size == fileHeader && bytes.Equal(b[:8], lostMagic)
	le := binary.LittleEndian
	if v := le.Uint32(b[8:]); bytes.Equal(b[:8], fileMagic) && v > fileVersion {
		return &journal.VersionError{File: f.name, Version: v}
	}
	f.prev, f.prevSize = le.Uint64(b[32:]), le.Uint32(b[56:])
	if !bytes.Equal(b, f.header(store)) {
		return f.damage(0, "not the header of this file")
	}
	return nil
}

// readFirst learns the time of the first message.
func (f *streamFile) readFirst() error {
	if f.lost {
		return nil
	}
	first := false
	err := f.scan(fileHeader, ahead{block: leastRead}, func(r *fileRecord) bool {
		f.time, first = r.time, true
		return false
	})
	if err == nil && !first {
		err = f.damage(f.size, "the file is cut off")
	}
	return err
}

func (f *streamFile) damage(at int64, reason string) error {
	return &journal.DamageError{File: f.name, Offset: at, Reason: reason}
}

// acquire returns the file, open until release.
func (f *streamFile) acquire() (journal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		file, err := f.files.fs.Open(f.name)
		if err != nil {
			return nil, fmt.Errorf("open a file of a stream: %w", err)
		}
		f.file = file
		f.files.opened.Add(1)
	}
	f.refs++
	return f.file, nil
}

// release lets go of the file, which stays open unless too many are.
func (f *streamFile) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refs--; f.refs == 0 && (f.gone || f.files.opened.Load() > maxOpen) {
		f.shut()
	}
}

// shut closes the file and forgets its index; mu is held.
func (f *streamFile) shut() {
	if f.file != nil {
		_ = f.file.Close() // it was read, or synced
		f.file = nil
		f.files.opened.Add(-1)
	}
	f.marks = nil
}

// close closes the file now, or when its last reader is done.
func (f *streamFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone = true; f.refs == 0 {
		f.shut()
	}
}

func (f *streamFile) length() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// fileRecord is one message of a file, or a place where some were given up.
type fileRecord struct {
	at     int64
	size   int64
	offset uint64 // or that of the message behind those given up
	time   int64
	body   []byte
	lost   bool
}

// next is the offset that comes behind it.
func (r *fileRecord) next() uint64 {
	if r.lost {
		return r.offset
	}
	return r.offset + 1
}

// appendEntry appends a message as it stands in the file.
func (f *streamFile) appendEntry(b []byte, offset uint64, time int64, body []byte) []byte {
	return f.appendSized(b, uint32(fileEntry+len(body)), offset, time, body)
}

func (f *streamFile) appendSized(b []byte, size uint32, offset uint64, time int64, body []byte) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, offset)
	b = le.AppendUint64(b, uint64(time))
	b = append(b, body...)
	le.PutUint32(b[start+4:], f.checksum(b[start:]))
	return b
}

func (f *streamFile) checksum(entry []byte) uint32 {
	return crc32.Update(f.seed^binary.LittleEndian.Uint32(entry), castagnoli, entry[8:])
}

// parse reads the entry that b begins with, at a place of the file of which
// left bytes follow. It is not whole if there are fewer than whole bytes in b.
func (f *streamFile) parse(b []byte, at, left int64, r *fileRecord) (whole int64, err error) {
	le := binary.LittleEndian
	size := le.Uint32(b)
	*r = fileRecord{at: at, size: int64(size &^ entryLost), lost: size&entryLost != 0}
	if r.size < fileEntry || r.size > left {
		return 0, f.damage(at, "no message begins here")
	}
	if whole = r.size; r.lost {
		whole = fileEntry
	}
	if whole > int64(len(b)) {
		return whole, nil
	}
	e := b[:whole:whole]
	if f.checksum(e) != le.Uint32(e[4:]) {
		return 0, f.damage(at, "the checksum of the message does not match")
	}
	r.offset, r.time, r.body = le.Uint64(e[8:]), int64(le.Uint64(e[16:])), e[fileEntry:]
	return whole, nil
}

// ahead says how a file is read.
type ahead struct {
	block int            // bytes at once
	about int64          // bytes that will be wanted in all; 0 = to the end
	mem   *broker.Buffer // where they are read into
}

// scan calls fn for what is there from place at on, until it returns false or
// the end. Bodies are good as long as the memory is.
func (f *streamFile) scan(at int64, a ahead, fn func(r *fileRecord) bool) error {
	file, err := f.acquire()
	if err != nil {
		return err
	}
	defer f.release()
	end := f.length()
	about := end
	if a.about > 0 {
		about = at + a.about
	}
	var r fileRecord
	for at < end {
		block := int64(markEvery)
		if at < about {
			block = max(min(int64(a.block), about-at), leastRead)
		}
		b := a.mem.Take(int(min(block, end-at)))
		if _, err := file.ReadAt(b, at); err != nil {
			if errors.Is(err, io.EOF) {
				return f.damage(at, "the file is cut off")
			}
			return fmt.Errorf("read %s: %w", f.name, err)
		}
		pos := 0
		for pos+fileEntry <= len(b) {
			whole, err := f.parse(b[pos:], at+int64(pos), end-at-int64(pos), &r)
			if err != nil {
				return err
			}
			if whole > int64(len(b)-pos) {
				break
			}
			if !fn(&r) {
				return nil
			}
			pos += int(r.size)
		}
		if pos == 0 { // a message larger than the block, or the rest of nothing
			if len(b) < fileEntry {
				return f.damage(at, "no message begins here")
			}
			a.block, about = int(r.size), at+r.size
			continue
		}
		at += int64(pos)
		a.block = max(a.block, markEvery)
	}
	return nil
}

// index returns the marks of the file, and reads it if they are not known.
func (f *streamFile) index() ([]mark, error) {
	f.mu.Lock()
	marks := f.marks
	f.mu.Unlock()
	if marks != nil {
		return marks, nil
	}
	err := f.scan(fileHeader, ahead{block: 1 << 20}, func(r *fileRecord) bool {
		if !r.lost {
			marks = appendMark(marks, r)
		}
		return true
	})
	if err != nil && len(marks) == 0 {
		return nil, err // else what lies before the damage can be read
	}
	f.mu.Lock()
	if f.marks == nil {
		f.marks = marks
	}
	marks = f.marks
	f.mu.Unlock()
	return marks, nil
}

// appendMark marks a message if enough lies between it and the last mark.
func appendMark(marks []mark, r *fileRecord) []mark {
	if n := len(marks); n > 0 && r.at-marks[n-1].at < markEvery {
		return marks
	}
	return append(marks, mark{offset: r.offset, time: r.time, at: r.at})
}

// seek returns the place and offset of the last mark for which before holds,
// or of the first message.
func seek(marks []mark, before func(m *mark) bool) (at int64, offset uint64) {
	i := sort.Search(len(marks), func(i int) bool { return !before(&marks[i]) })
	i = max(i-1, 0)
	return marks[i].at, marks[i].offset
}

// average is how many bytes a message takes, about.
func (f *streamFile) average(marks []mark) int64 {
	last := &marks[len(marks)-1]
	if n := int64(last.offset - f.base); n > 0 {
		return max(last.at/n, fileEntry)
	}
	return f.length() // one message, or few
}

// readFile appends what is wanted from offset from on. It returns the next
// offset, and whether the file has no more.
func (p *partition) readFile(f *streamFile, from uint64, w want, dst []broker.Delivery) (_ []broker.Delivery, next uint64, ended bool, err error) {
	marks, err := f.index()
	if err == nil && len(marks) == 0 {
		err = f.damage(fileHeader, "the file holds no message")
	}
	if err != nil {
		return dst, from, false, err
	}
	at, skipped := seek(marks, func(m *mark) bool { return m.offset <= from })
	// No more than is needed is read: what lies before the message, and limit of them.
	need := (int64(from-min(from, skipped)) + int64(w.limit)) * f.average(marks)
	next, ended = from, true
	total, n := 0, 0
	bad := error(nil)
	err = f.scan(at, ahead{fileBlock, need + need/8, w.mem}, func(r *fileRecord) bool {
		if r.lost || r.offset < from {
			next = max(next, r.next())
			return true
		}
		total += int(r.size)
		if n == w.limit || w.maxBytes > 0 && total > w.maxBytes && n > 0 {
			ended = false
			return false
		}
		dst = append(dst, broker.Delivery{})
		d := &dst[len(dst)-1]
		d.Ref = broker.Ref{Target: p.st.id, Seq: r.offset, Epoch: p.st.s.epoch}
		d.Queued, d.Partition = r.time, p.number
		if bad = broker.DecodeMessage(r.body, &d.Message); bad != nil {
			dst = dst[:len(dst)-1]
			return false
		}
		n++
		next = r.offset + 1
		return true
	})
	return dst, next, ended, errors.Join(err, bad)
}
