package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// RecordHeader is what each record needs beside its body; callers of Reserve
// count it once per record.
const RecordHeader = 10

// ReservedTypes is the first record type that callers may not use.
const ReservedTypes = 0xf0

const (
	typeSynced byte = 0xf1 // body: position known durable when it was appended
	typeLost   byte = 0xf2 // body: whatever an operator decided to give up

	flagMore byte = 1 // the atomic group goes on with the next record

	syncedSize = RecordHeader + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Position names a record: the segment's number in the high 32 bits, the offset
// of the record's first header byte in the low 32. Positions ascend in log order.
type Position uint64

func position(segment, offset uint32) Position {
	return Position(uint64(segment)<<32 | uint64(offset))
}

// Segment is the number of the segment that holds the record.
func (p Position) Segment() uint32 { return uint32(p >> 32) }

// Offset is the place of the record within its segment's file.
func (p Position) Offset() uint32 { return uint32(p) }

// String is the number of the segment, as its file is named, and the offset.
func (p Position) String() string { return fmt.Sprintf("%08x:%d", p.Segment(), p.Offset()) }

// Record is one record as recovery and Scan hand it out.
type Record struct {
	Pos  Position
	Size uint32 // of the whole record, header included
	Type byte
	Body []byte
}

// checksum covers type, flags and body of the whole record b, and its length by
// way of the starting value. The seed differs for every use of every file.
func checksum(seed uint32, b []byte) uint32 {
	return crc32.Update(seed^binary.LittleEndian.Uint32(b), castagnoli, b[8:])
}

// sealRecord fills in the header of the whole record b, whose body is in place.
func sealRecord(seed uint32, b []byte, typ, flags byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	b[8], b[9] = typ, flags
	binary.LittleEndian.PutUint32(b[4:], checksum(seed, b))
}

// header is a record's header as found in the file, not yet trusted.
type header struct {
	size  uint32
	typ   byte
	flags byte
}

// parseHeader reads the header at the start of b, which holds RecordHeader
// bytes at least. It is false for what no record can start with, such as zeros.
func parseHeader(b []byte) (header, bool) {
	h := header{size: binary.LittleEndian.Uint32(b), typ: b[8], flags: b[9]}
	return h, h.size >= RecordHeader && h.flags&^flagMore == 0
}

// valid reports whether b is exactly one whole record of this seed.
func valid(seed uint32, b []byte) bool {
	if len(b) < RecordHeader {
		return false
	}
	h, ok := parseHeader(b)
	return ok && int64(h.size) == int64(len(b)) && binary.LittleEndian.Uint32(b[4:]) == checksum(seed, b)
}

func putSynced(seed uint32, b []byte, durable Position) {
	binary.LittleEndian.PutUint64(b[RecordHeader:], uint64(durable))
	sealRecord(seed, b[:syncedSize], typeSynced, 0)
}

// findSynced returns the first valid synced record in b at any offset, and what
// it says was durable. Its fixed length makes a plain search for four bytes do
// nearly all the work.
func findSynced(seed uint32, b []byte) (at int, durable Position, ok bool) {
	var mark [4]byte
	binary.LittleEndian.PutUint32(mark[:], syncedSize)
	for {
		i := bytes.Index(b[at:], mark[:])
		if i < 0 || at+i+syncedSize > len(b) {
			return 0, 0, false
		}
		at += i
		if r := b[at : at+syncedSize]; r[8] == typeSynced && r[9] == 0 && valid(seed, r) {
			return at, Position(binary.LittleEndian.Uint64(r[RecordHeader:])), true
		}
		at++
	}
}
