package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strings"
	"time"

	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// A checkpoint is what the journal before a position need not tell again.
//
//	header   "MILLCKPT", version u32, zero u32, replay position u64,
//	         store id 16 bytes, zero u32, crc u32
//	section  size u32, crc u32, kind u8, body
//
// Numbers are little-endian in the frame and varints in bodies. The crc of a
// section begins with that of the header. There may be any number of sections
// of a kind, in the order of their numbers; the last one is secEnd, and nothing
// follows it. One kind of state has one kind of section: a new one is added
// with a number of its own, before secEnd.
const (
	ckptVersion = 1
	ckptHeader  = 48
	ckptSection = 9

	ckptFlush = 256 << 10 // bytes of sections that are written at once
)

// The kinds of sections. They are on disk: append only, and secEnd stays last.
const (
	secMeta     byte = iota + 1 // epoch, clock, next target, revision of keys
	secSegments                 // those before the replay position in which something lives
	secDefine                   // target, definition
	secQueue                    // a queue's counters and which of its messages are there
	secSlots                    // what else is known of those that do more than wait
	secStreams                  // bounds of partitions, and where the journal has what
	secKeys                     // space, keys with their values
	secDedup                    // keys of the window
	secSubs                     // where a subscription stands, and what it has in flight
	secEnd      byte = 0xff     // where the log must reach, number of sections before
)

var ckptMagic = []byte("MILLCKPT")

// ckptName is the file of the checkpoint at a position.
func ckptName(p journal.Position) string { return fmt.Sprintf("ckpt-%016x", uint64(p)) }

// ckptPosition is the inverse of ckptName.
func ckptPosition(name string) (journal.Position, bool) {
	var p uint64
	hex, ok := strings.CutPrefix(name, "ckpt-")
	if n, err := fmt.Sscanf(hex, "%x", &p); !ok || err != nil || n != 1 || ckptName(journal.Position(p)) != name {
		return 0, false
	}
	return journal.Position(p), true
}

// ckptWriter writes the file of a checkpoint.
type ckptWriter struct {
	f        journal.File
	seed     uint32
	buf      []byte
	at       int64
	start    int // of the open section in buf
	sections uint64
	pause    time.Duration // the longest that somebody had to wait
	err      error
}

func newCkptWriter(f journal.File, from journal.Position, store [16]byte) *ckptWriter {
	b := make([]byte, ckptHeader, ckptFlush+4096)
	le := binary.LittleEndian
	copy(b, ckptMagic)
	le.PutUint32(b[8:], ckptVersion)
	le.PutUint64(b[16:], uint64(from))
	copy(b[24:], store[:])
	seed := crc32.Checksum(b[:44], castagnoli)
	le.PutUint32(b[44:], seed)
	return &ckptWriter{f: f, seed: seed, buf: b}
}

// begin starts a section and returns where its body is to be appended. A section
// that is never ended does not exist.
func (w *ckptWriter) begin(kind byte) []byte {
	w.start = len(w.buf)
	return append(w.buf, 0, 0, 0, 0, 0, 0, 0, 0, kind)
}

// end finishes the section, whose body was appended to what begin returned.
func (w *ckptWriter) end(b []byte) {
	w.buf = b
	sealSection(w.seed, w.buf[w.start:])
	w.sections++
	if len(w.buf) >= ckptFlush {
		w.flush()
	}
}

func sealSection(seed uint32, b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(len(b)))
	le.PutUint32(b[4:], crc32.Update(seed^uint32(len(b)), castagnoli, b[8:]))
}

func (w *ckptWriter) flush() {
	if w.err == nil {
		w.err = w.f.WriteAt(w.at, w.buf)
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
}

// close ends the file, makes it durable and returns its size.
func (w *ckptWriter) close(reach journal.Position) (int64, error) {
	w.end(fields.AppendUints(w.begin(secEnd), uint64(reach), w.sections))
	w.flush()
	if w.err == nil {
		w.err = w.f.SyncData()
	}
	return w.at, w.err
}

// ckptFile is a checkpoint that is read.
type ckptFile struct {
	name  string
	size  int64
	from  journal.Position // replay begins there
	reach journal.Position // the log was durable up to there
	store [16]byte
}

// readCheckpoint reads a checkpoint and calls fn for each section but the last.
// Bodies are valid only during the call. What is not as it was written is a
// *journal.DamageError, what a newer program wrote a *journal.VersionError.
func readCheckpoint(fsys journal.FS, name string, fn func(kind byte, body []byte) error) (c ckptFile, err error) {
	c.name = name
	f, err := fsys.Open(name)
	if err != nil {
		return c, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if c.size, err = f.Size(); err != nil {
		return c, err
	}
	r := &ckptReader{f: f, name: name, size: c.size}
	if err := r.header(&c); err != nil {
		return c, err
	}
	for n := uint64(0); ; n++ {
		kind, body, err := r.section()
		if err != nil {
			return c, err
		}
		fs := fields.Reader{Rest: body}
		switch {
		case kind != secEnd:
			if err := fn(kind, body); err != nil {
				return c, fmt.Errorf("read %s: section %d: %w", name, n, err)
			}
		default:
			c.reach = journal.Position(fs.Uint())
			if fs.Uint() != n || fs.Bad || len(fs.Rest) > 0 || r.at != c.size {
				return c, r.damage("it does not end as it should")
			}
			return c, nil
		}
	}
}

// ckptReader reads a file section by section.
type ckptReader struct {
	f    journal.File
	name string
	size int64
	at   int64 // of the next section
	buf  []byte
	base int64 // of buf in the file
	seed uint32
}

func (r *ckptReader) damage(reason string) error {
	return &journal.DamageError{File: r.name, Offset: r.at, Reason: reason}
}

// bytes returns n bytes at r.at.
func (r *ckptReader) bytes(n int64) ([]byte, error) {
	if r.at+n > r.size {
		return nil, r.damage("the file is cut off")
	}
	if r.at+n > r.base+int64(len(r.buf)) {
		want := min(max(n, 1<<20), r.size-r.at)
		if int64(cap(r.buf)) < want {
			r.buf = make([]byte, want)
		}
		r.buf, r.base = r.buf[:want], r.at
		if k, err := r.f.ReadAt(r.buf, r.at); err != nil && (!errors.Is(err, io.EOF) || int64(k) < want) {
			if errors.Is(err, io.EOF) {
				return nil, r.damage("the file is cut off")
			}
			return nil, fmt.Errorf("read %s: %w", r.name, err)
		}
	}
	return r.buf[r.at-r.base:][:n:n], nil
}

func (r *ckptReader) header(c *ckptFile) error {
	b, err := r.bytes(ckptHeader)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	r.seed = crc32.Checksum(b[:44], castagnoli)
	if string(b[:8]) != string(ckptMagic) || le.Uint32(b[44:]) != r.seed {
		return r.damage("not the header of a checkpoint")
	}
	if v := le.Uint32(b[8:]); v > ckptVersion {
		return &journal.VersionError{File: r.name, Version: v}
	}
	c.from = journal.Position(le.Uint64(b[16:]))
	copy(c.store[:], b[24:])
	if ckptName(c.from) != filepath.Base(r.name) {
		return r.damage("the header belongs to another checkpoint")
	}
	r.at = ckptHeader
	return nil
}

func (r *ckptReader) section() (kind byte, body []byte, err error) {
	b, err := r.bytes(ckptSection)
	if err != nil {
		return 0, nil, err
	}
	size := int64(binary.LittleEndian.Uint32(b))
	if size < ckptSection {
		return 0, nil, r.damage("no section begins here")
	}
	if b, err = r.bytes(size); err != nil {
		return 0, nil, err
	}
	if crc32.Update(r.seed^uint32(size), castagnoli, b[8:]) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, nil, r.damage("the checksum of the section does not match")
	}
	r.at += size
	return b[8], b[ckptSection:], nil
}
