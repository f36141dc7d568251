package local

import (
	"context"
	"encoding/binary"
	"testing"

	"millrace/persistence/journal"
)

// SampleHint is the body of a hint.
func SampleHint() []byte {
	h := &hint{segment: 1}
	for i := range uint32(4) {
		h.add(&placed{offset: 4096 + 100*i, size: 90, time: int64(1000 + i), overhead: 20, moved: i == 2, expires: int64(i % 2 * 5000), key: uint64(i), routes: []seqOf{{1, uint64(i + 1)}, {2, uint64(7 + i/3)}}})
	}
	return h.body
}

// ReadHint reads the body of a hint and writes it again.
func ReadHint(body []byte) ([]byte, bool) {
	h := &hint{}
	err := eachPlaced(body, func(p *placed) { h.add(p) })
	return h.body, err == nil
}

var sampleSegment = journal.Segment{Number: 1, Generation: 7, End: 5000}

// SampleHintFile is the file of a hint.
func SampleHintFile() []byte { return (&hint{body: SampleHint()}).encode(sampleSegment) }

// ReadHintFile reads the file of a hint.
func ReadHintFile(b []byte) {
	if body, _, err := decodeHint(b, sampleSegment.Number, sampleSegment.Generation); err == nil {
		_ = eachPlaced(body, func(*placed) {}) // it may well be none
	}
}

// Sections returns a section of each kind of a checkpoint.
func Sections(fs journal.FS, name string) map[byte][]byte {
	list := map[byte][]byte{}
	_, err := readCheckpoint(fs, name, func(kind byte, body []byte) error {
		list[kind] = append([]byte(nil), body...)
		return nil
	})
	if err != nil {
		panic(err)
	}
	return list
}

// WithSection is the file of a checkpoint with another body of one kind.
func WithSection(fs journal.FS, name string, kind byte, body []byte) []byte {
	var file buffer
	var w *ckptWriter
	c, err := readCheckpoint(fs, name, func(byte, []byte) error { return nil })
	if err != nil {
		panic(err)
	}
	w = newCkptWriter(&file, c.from, c.store)
	_, err = readCheckpoint(fs, name, func(k byte, old []byte) error {
		if k == kind {
			old = body
		}
		w.end(append(w.begin(k), old...))
		return nil
	})
	if err == nil {
		_, err = w.close(c.reach)
	}
	if err != nil {
		panic(err)
	}
	return file.b
}

// buffer is a file in memory that is only written.
type buffer struct {
	journal.File
	b []byte
}

func (f *buffer) WriteAt(off int64, bufs ...[]byte) error {
	f.b = f.b[:off]
	for _, b := range bufs {
		f.b = append(f.b, b...)
	}
	return nil
}

func (f *buffer) SyncData() error { return nil }

// RecMove is the type of a move record.
const RecMove = recMove

// RecordsOf returns the type and body of every record in a log.
func RecordsOf(tb testing.TB, o journal.Options) (types []byte, bodies [][]byte) {
	tb.Helper()
	j, err := journal.Open(o, func(group []journal.Record) error {
		for i := range group {
			types, bodies = append(types, group[i].Type), append(bodies, append([]byte(nil), group[i].Body...))
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := j.Close(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return types, bodies
}

// SampleMove is the body of a move of the first message of the first queue.
func (s *Store) SampleMove() []byte {
	q := s.targets[1].q
	e := &q.chunks.list[0].entries[0]
	_, body, err := s.journal.Read(journal.Position(e.pos), e.size)
	if err != nil {
		panic(err)
	}
	return append(binary.AppendUvarint(nil, e.pos), body...)
}

// SealStreamFile sets the checksums of what looks like entries of a file of a
// stream, behind its header.
func SealStreamFile(b []byte) {
	le := binary.LittleEndian
	f := streamFile{seed: le.Uint32(b[fileHeader-4:])}
	for at := fileHeader; at+fileEntry <= len(b); {
		size, whole := int(le.Uint32(b[at:])&^entryLost), fileEntry
		if size < fileEntry || size > len(b)-at {
			return
		}
		if le.Uint32(b[at:])&entryLost == 0 {
			whole = size
		}
		le.PutUint32(b[at+4:], f.checksum(b[at:at+whole]))
		at += size
	}
}

// AppendRecord appends a record to a log.
func AppendRecord(tb testing.TB, o journal.Options, typ byte, body []byte) {
	tb.Helper()
	j, err := journal.Open(o, func([]journal.Record) error { return nil })
	if err != nil {
		tb.Fatal(err)
	}
	if err := j.Lock(); err != nil {
		tb.Fatal(err)
	}
	if err := j.Reserve(journal.RecordHeader + len(body)); err == nil {
		j.End(append(j.Start(typ), body...), false)
	}
	j.Unlock(journal.Lazy, nil)
	if err := j.Close(context.Background()); err != nil {
		tb.Fatal(err)
	}
}
