package local

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"sync"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// A hint says where a segment has the messages of queues, in a fiftieth of its
// size, so that a start need not read the segment. It is made while the segment
// is written, and only an aid: it is not synced, and one that is missing or bad
// is made again from the segment.
//
//	header   "MILLHINT", version u32, segment u32, generation u64, end u32,
//	         length of the body u32, crc u32 of header and body
//	entry    gap, size, time, overhead, flags u8, [expiry], [key u64], routes
//
// The gap is from the end of the entry before, the time (zigzag) relative to
// its time. Without flag hintNext the routes follow: n, n × (target, sequence);
// with it they are those of the entry before, each sequence one higher.
const (
	hintVersion = 1
	hintHeader  = 36

	hintMoved   = 1 << 0 // by compaction: it holds whatever was said before
	hintExpires = 1 << 1
	hintKey     = 1 << 2
	hintNext    = 1 << 3
	hintFlags   = 1<<4 - 1
)

var hintMagic = []byte("MILLHINT")

// placed is one message of a segment, as far as queues need to know it.
type placed struct {
	offset, size uint32
	time         int64 // when it was published
	overhead     uint32
	moved        bool
	expires      int64
	key          uint64 // hash of the key, of use to keyed queues only
	routes       []seqOf
}

// seqOf is a place in a queue.
type seqOf struct {
	target broker.Target
	seq    uint64
}

// hint collects what a segment holds, in the encoding of the file.
type hint struct {
	segment uint32
	last    placed
	body    []byte
}

// add appends one message.
func (h *hint) add(p *placed) {
	b := fields.AppendUints(h.body, uint64(p.offset-(h.last.offset+h.last.size)), uint64(p.size))
	b = binary.AppendVarint(b, p.time-h.last.time)
	b = binary.AppendUvarint(b, uint64(p.overhead))
	var flags byte
	next := len(p.routes) == len(h.last.routes)
	for i := 0; next && i < len(p.routes); i++ {
		next = p.routes[i] == seqOf{h.last.routes[i].target, h.last.routes[i].seq + 1}
	}
	if next {
		flags |= hintNext
	}
	if p.moved {
		flags |= hintMoved
	}
	if p.expires != 0 {
		flags |= hintExpires
	}
	if p.key != 0 {
		flags |= hintKey
	}
	b = append(b, flags)
	if p.expires != 0 {
		b = binary.AppendUvarint(b, uint64(p.expires))
	}
	if p.key != 0 {
		b = binary.LittleEndian.AppendUint64(b, p.key)
	}
	if !next {
		b = binary.AppendUvarint(b, uint64(len(p.routes)))
		for _, r := range p.routes {
			b = fields.AppendUints(b, uint64(r.target), r.seq)
		}
	}
	h.body = b
	routes := h.last.routes[:0]
	routes = append(routes, p.routes...)
	h.last = *p
	h.last.routes = routes
}

// eachPlaced calls fn for every entry of a hint's body.
func eachPlaced(body []byte, fn func(p *placed)) error {
	f := fields.Reader{Rest: body}
	var p placed
	for len(f.Rest) > 0 {
		p.offset += p.size + uint32(f.Uint())
		p.size = uint32(f.Uint())
		p.time += f.Int()
		p.overhead = uint32(f.Uint())
		flags := f.Byte()
		p.moved, p.expires, p.key = flags&hintMoved != 0, 0, 0
		if flags&hintExpires != 0 {
			p.expires = int64(f.Uint())
		}
		if flags&hintKey != 0 {
			p.key = f.Fixed64()
		}
		if flags&hintNext != 0 {
			for i := range p.routes {
				p.routes[i].seq++
			}
		} else {
			n := f.Uint()
			if n > uint64(len(f.Rest)) {
				f.Bad = true
			}
			p.routes = p.routes[:0]
			for ; n > 0 && !f.Bad; n-- {
				p.routes = append(p.routes, seqOf{broker.Target(f.Uint()), f.Uint()})
			}
		}
		if f.Bad || flags&^hintFlags != 0 || p.size < journal.RecordHeader || p.overhead > p.size {
			return errRecord
		}
		fn(&p)
	}
	return nil
}

// encode returns the file of a hint.
func (h *hint) encode(seg journal.Segment) []byte {
	b := make([]byte, hintHeader, hintHeader+len(h.body))
	le := binary.LittleEndian
	copy(b, hintMagic)
	le.PutUint32(b[8:], hintVersion)
	le.PutUint32(b[12:], seg.Number)
	le.PutUint64(b[16:], seg.Generation)
	le.PutUint32(b[24:], seg.End)
	le.PutUint32(b[28:], uint32(len(h.body)))
	le.PutUint32(b[32:], crc32.Update(crc32.Checksum(b[:32], castagnoli), castagnoli, h.body))
	return append(b, h.body...)
}

var errHint = errors.New("not the hint of this segment")

// decodeHint checks the file of a hint and returns its body and where the
// records of the segment end.
func decodeHint(b []byte, number uint32, generation uint64) (body []byte, end uint32, err error) {
	le := binary.LittleEndian
	if len(b) < hintHeader || string(b[:8]) != string(hintMagic) || le.Uint32(b[8:]) != hintVersion ||
		le.Uint32(b[12:]) != number || le.Uint64(b[16:]) != generation ||
		uint64(le.Uint32(b[28:])) != uint64(len(b)-hintHeader) {
		return nil, 0, errHint
	}
	body = b[hintHeader:]
	if crc32.Update(crc32.Checksum(b[:32], castagnoli), castagnoli, body) != le.Uint32(b[32:]) {
		return nil, 0, errHint
	}
	return body, le.Uint32(b[24:]), nil
}

// hints are those that are not in files yet: of the segment that is written to,
// under the append lock, and of full ones.
type hints struct {
	fs  journal.FS
	dir string
	cur *hint

	mu   sync.Mutex
	full []*hint
}

func (hs *hints) name(segment uint32) string {
	return filepath.Join(hs.dir, fmt.Sprintf("%08x.hint", segment))
}

// add notes a message at pos. The append lock is held.
func (hs *hints) add(pos uint64, p *placed) {
	segment := journal.Position(pos).Segment()
	p.offset = journal.Position(pos).Offset()
	if hs.cur == nil || hs.cur.segment != segment {
		hs.close()
		hs.cur = &hint{segment: segment}
	}
	hs.cur.add(p)
}

// close ends the hint at hand. The append lock is held.
func (hs *hints) close() {
	if hs.cur == nil {
		return
	}
	hs.mu.Lock()
	hs.full = append(hs.full, hs.cur)
	hs.mu.Unlock()
	hs.cur = nil
}

// take returns the full hints up to a segment, which are the caller's from then
// on.
func (hs *hints) take(last uint32) []*hint {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	n := 0
	for n < len(hs.full) && hs.full[n].segment <= last {
		n++
	}
	list := hs.full[:n:n]
	hs.full = slices.Clone(hs.full[n:])
	return list
}

// writeHints writes what is known of sealed segments in which somebody still
// has a message. Those that were filled since they were listed are left for the
// next time. An error costs the next start a scan, and nothing else.
func (s *Store) writeHints(sealed []journal.Segment) {
	if len(sealed) == 0 {
		return
	}
	for _, h := range s.hints.take(sealed[len(sealed)-1].Number) {
		i, ok := slices.BinarySearchFunc(sealed, h.segment, func(seg journal.Segment, n uint32) int { return cmp.Compare(seg.Number, n) })
		if !ok || s.live.of(h.segment) == 0 {
			continue
		}
		seg := sealed[i]
		if err := s.hints.write(h, seg); err != nil {
			s.log.Warn().Err(err).Uint32("segment", seg.Number).Msg("hint could not be written")
		}
	}
}

func (hs *hints) write(h *hint, seg journal.Segment) error {
	f, err := hs.fs.Create(hs.name(seg.Number))
	if err != nil {
		return err
	}
	return errors.Join(f.WriteAt(0, h.encode(seg)), f.Close())
}

// read returns the body of a segment's hint, and where the segment ends.
func (hs *hints) read(seg journal.Segment) ([]byte, uint32, error) {
	f, err := hs.fs.Open(hs.name(seg.Number))
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Size()
	if err == nil && size > 1<<31 {
		err = errHint
	}
	var b []byte
	if err == nil {
		b = make([]byte, size)
		_, err = f.ReadAt(b, 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, 0, err
	}
	body, end, err := decodeHint(b, seg.Number, seg.Generation)
	if err == nil && seg.End != 0 && seg.End != end {
		err = errHint
	}
	return body, end, err
}

// sortSegments orders segment numbers.
func sortSegments(m map[uint32]bool) []uint32 {
	list := make([]uint32, 0, len(m))
	for n := range m {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}
