package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
)

const (
	pageSize      = 4096
	formatVersion = 1

	// The second sector of the header page belongs to the activation, so that a
	// page torn between sectors leaves either part whole.
	activationAt = 512

	activationSize = 32
)

var (
	segmentMagic    = []byte("MILLSEG\x00")
	activationMagic = []byte("ACTIVE\x00\x00")
)

type storeID [16]byte

// segment is one file of the log, named after its number. It exists in two
// states: prepared (whole, durable, empty) and active (it holds records).
type segment struct {
	number     uint32
	size       int64 // of the file
	store      storeID
	generation uint64 // fresh for each use of a file
	seed       uint32 // of every checksum in it

	reserve bool // it was the reserve

	active     bool
	prevNumber uint32 // the segment before it in the log; 0 = none
	prevEnd    uint32 // where that one's records ended

	// Guarded by Journal.tableMu.
	end  uint32 // where its records end; 0 while it is appended to or unknown
	file File   // nil while closed
	refs int    // readers, and one while it is appended to
	gone bool   // removed from the log; closed by the last reader
}

func segmentName(number uint32) string { return fmt.Sprintf("%08x.seg", number) }

func newSegment(number uint32, size int64, store storeID) *segment {
	var g [8]byte
	_, _ = rand.Read(g[:]) // never fails, see crypto/rand
	s := &segment{number: number, size: size, store: store, generation: binary.LittleEndian.Uint64(g[:])}
	s.seed = seedOf(store, number, s.generation)
	return s
}

func seedOf(store storeID, number uint32, generation uint64) uint32 {
	var b [28]byte
	copy(b[:], store[:])
	binary.LittleEndian.PutUint32(b[16:], number)
	binary.LittleEndian.PutUint64(b[20:], generation)
	return crc32.Checksum(b[:], castagnoli)
}

// header returns page 0 of the segment's file.
func (s *segment) header() []byte {
	b := make([]byte, pageSize)
	copy(b, segmentMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], s.number)
	copy(b[16:], s.store[:])
	le.PutUint64(b[32:], s.generation)
	le.PutUint64(b[40:], uint64(s.size))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	if s.active {
		a := b[activationAt : activationAt+activationSize]
		copy(a, activationMagic)
		le.PutUint64(a[8:], s.generation)
		le.PutUint32(a[16:], s.prevNumber)
		le.PutUint32(a[20:], s.prevEnd)
		le.PutUint32(a[28:], crc32.Checksum(a[:28], castagnoli))
	}
	return b
}

// VersionError says that a file was written by a newer program.
type VersionError struct {
	File    string
	Version uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program knows up to %d", e.File, e.Version, formatVersion)
}

// DamageError says that the log is not what was once durable in it.
type DamageError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged at offset %d: %s", e.File, e.Offset, e.Reason)
}

// readHeader reads and checks page 0 of f. A file gets its .seg name only after
// this page is durable, so anything wrong in it is damage, not a torn write.
func readHeader(f File, name string) (*segment, error) {
	damaged := func(at int64, reason string) (*segment, error) {
		return nil, &DamageError{File: name, Offset: at, Reason: reason}
	}
	b := make([]byte, pageSize)
	if n, err := f.ReadAt(b, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return damaged(int64(n), "the header page is cut off")
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	le := binary.LittleEndian
	if !bytes.Equal(b[:8], segmentMagic) || le.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return damaged(0, "not a valid segment header")
	}
	if v := le.Uint32(b[8:]); v > formatVersion {
		return nil, &VersionError{File: name, Version: v}
	}
	s := &segment{number: le.Uint32(b[12:]), generation: le.Uint64(b[32:]), size: int64(le.Uint64(b[40:]))}
	copy(s.store[:], b[16:])
	s.seed = seedOf(s.store, s.number, s.generation)
	if filepath.Base(name) != segmentName(s.number) {
		return damaged(12, fmt.Sprintf("the header belongs to segment %08x", s.number))
	}
	a := b[activationAt : activationAt+activationSize]
	if bytes.Equal(a, make([]byte, activationSize)) {
		return s, nil
	}
	if !bytes.Equal(a[:8], activationMagic) || le.Uint64(a[8:]) != s.generation ||
		le.Uint32(a[28:]) != crc32.Checksum(a[:28], castagnoli) {
		return damaged(activationAt, "not a valid activation")
	}
	s.active, s.prevNumber, s.prevEnd = true, le.Uint32(a[16:]), le.Uint32(a[20:])
	return s, nil
}
