package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// recCopied says how far a partition was copied out of the journal. It is
// written after its files are synced.
//
//	copied  target, partition, offset, base of the last file, its length, time of the last message
const recCopied byte = 0x21

const (
	fileMax    = 64 << 20 // or the size of a segment
	copyBuffer = 1 << 20
)

var errUnsealed = errors.New("the segment is still written to")

// copyStreams copies what the journal up to and including a segment holds for
// streams into files, and returns when that is durable and recorded: no stream
// needs those segments any more. The segment must be sealed and durable. After
// an error it may be called again; nothing is lost, and nothing copied twice.
//
// It reads every message once and writes it once, in order of offset, and syncs
// each file once. Readers go on meanwhile.
func (s *Store) copyStreams(segment uint32) error {
	if s.journal == nil {
		return nil
	}
	if s.journal.State().Durable.Segment() <= segment {
		return fmt.Errorf("copy streams out of segment %08x: %w", segment, errUnsealed)
	}
	s.files.copy.Lock()
	defer s.files.copy.Unlock()
	var done []*copied
	defer func() {
		for _, c := range done {
			c.abandon()
		}
	}()
	for _, t := range s.all() {
		if t.st == nil || t.st.volatile {
			continue
		}
		for _, p := range t.st.partitions() {
			c, err := s.copyOut(p, segment)
			if err != nil {
				return fmt.Errorf("copy out of the journal: %w", err)
			}
			if c != nil {
				done = append(done, c)
			}
		}
	}
	const atOnce = 256
	for len(done) > 0 {
		n := min(atOnce, len(done))
		if told, err := s.recordCopied(done[:n]); err != nil {
			if told {
				for _, c := range done[:n] {
					c.end()
				}
				done = done[n:]
			}
			return err
		}
		for _, c := range done[:n] {
			c.apply()
		}
		done = done[n:]
	}
	return nil
}

// copied is what was copied of one partition.
type copied struct {
	p     *partition
	files []*streamFile // with the new ones
	known int           // how many of them are not
	first int           // the first that was written to
	sizes []int64       // of those from there on
	marks [][]mark
	to    uint64
	last  int64

	file journal.File // the last one, open
	buf  []byte
	at   int64 // where buf goes
}

// copyOut copies what one partition has in the journal up to a segment.
func (s *Store) copyOut(p *partition, segment uint32) (c *copied, err error) {
	f := founds.Get().(*found)
	defer founds.Put(f)
	var mem broker.Buffer
	for {
		f.entries, f.spots = f.entries[:0], f.spots[:0]
		prev := uint64(0)
		if c != nil {
			prev = c.to
		}
		if p.toCopy(prev, segment, f) == 0 {
			break
		}
		if c == nil {
			c = &copied{p: p}
			if err = c.begin(); err != nil {
				c.abandon()
				return nil, err
			}
		}
		mem.Reset()
		err = s.journal.ReadEach(f.spots, mem.Take, func(i int, typ byte, body []byte) error {
			m, err := messageIn(typ, body)
			if err != nil {
				return err
			}
			return c.add(f.entries[i].offset, f.entries[i].time, m)
		})
		if err != nil {
			c.abandon()
			return nil, err
		}
	}
	if c == nil {
		return nil, nil
	}
	if err := c.seal(); err != nil {
		c.abandon()
		return nil, err
	}
	c.buf = nil
	return c, nil
}

// toCopy notes what comes next, and returns how many.
func (p *partition) toCopy(from uint64, segment uint32, f *found) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.dropped {
		return 0
	}
	from = max(from, p.first, p.copied)
	var scratch [recordsMax]record
	for i := p.index(from); i < len(p.chunks) && len(f.entries) < readAtOnce; i++ {
		c := p.chunks[i]
		for at, r := range c.records(scratch[:]) {
			o := c.base + uint64(at)
			if o < from {
				continue
			}
			if o >= p.shown || journal.Position(r.pos).Segment() > segment {
				return len(f.entries)
			}
			f.entries = append(f.entries, entryAt{offset: o, time: c.time + int64(r.time)})
			f.spots = append(f.spots, journal.Spot{Pos: journal.Position(r.pos), Size: r.size})
		}
	}
	return len(f.entries)
}

// begin goes on in the last file.
func (c *copied) begin() error {
	p := c.p
	p.mu.Lock()
	p.copying = true // the last file stays
	c.files, c.to, c.last = append([]*streamFile(nil), p.files...), max(p.copied, p.first), p.copiedLast
	broken := p.broken
	p.mu.Unlock()
	c.known, c.first = len(c.files), len(c.files)
	if c.known == 0 || broken || c.files[c.known-1].lost {
		return nil
	}
	f := c.files[c.known-1]
	marks, err := f.index()
	if err != nil {
		return err
	}
	if c.file, err = f.acquire(); err != nil {
		return err
	}
	c.first--
	c.at = f.length()
	c.sizes, c.marks = []int64{c.at}, [][]mark{append([]mark(nil), marks...)}
	return nil
}

// add copies one message.
func (c *copied) add(offset uint64, time int64, body []byte) error {
	n := len(c.files)
	if c.file == nil || offset != c.to || c.at+int64(len(c.buf)) >= c.p.st.s.files.max || time-c.files[n-1].time > c.p.st.fileSpan() {
		if err := c.roll(offset, time); err != nil {
			return err
		}
		n = len(c.files)
	}
	f := c.files[n-1]
	r := fileRecord{at: c.at + int64(len(c.buf)), offset: offset, time: time}
	c.marks[len(c.marks)-1] = appendMark(c.marks[len(c.marks)-1], &r)
	c.buf = f.appendEntry(c.buf, offset, time, body)
	c.to, c.last = offset+1, time
	if len(c.buf) >= copyBuffer {
		return c.flush()
	}
	return nil
}

// fileSpan is how long one file grows at most, in milliseconds.
func (st *stream) fileSpan() int64 {
	const most = 24 * 60 * 60 * 1000
	if keep := st.retention.Load(); keep > 0 {
		return min(max(keep/8, 1), most)
	}
	return most
}

// roll begins a new file.
func (c *copied) roll(base uint64, time int64) error {
	if err := c.seal(); err != nil {
		return err
	}
	p := c.p
	s := p.st.s
	dir := s.files.dirOf(p.st.id, p.number)
	if len(c.files) == 0 {
		if err := s.files.makeDir(dir); err != nil {
			return err
		}
	}
	f := &streamFile{
		files: &s.files, name: filepath.Join(dir, fileName(base)), target: p.st.id, partition: p.number,
		base: base, prev: c.to, time: time, prevSize: c.lastSize(),
	}
	file, err := s.files.fs.Create(f.name)
	if err != nil {
		return err
	}
	s.files.opened.Add(1)
	f.file, f.refs = file, 1
	c.files, c.sizes, c.marks = append(c.files, f), append(c.sizes, 0), append(c.marks, nil)
	c.file, c.at = file, 0
	c.buf = append(c.buf[:0], f.header(s.journal.State().StoreID)...)
	return s.files.fs.SyncDir(dir)
}

// lastSize is how much of the last file counts.
func (c *copied) lastSize() uint32 {
	switch n := len(c.sizes); {
	case n > 0:
		return uint32(c.sizes[n-1])
	case c.known > 0: // it is broken: not one byte more
		return uint32(c.files[c.known-1].length())
	}
	return 0
}

func (c *copied) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	if err := c.file.WriteAt(c.at, c.buf); err != nil {
		return err
	}
	c.at += int64(len(c.buf))
	c.buf = c.buf[:0]
	return nil
}

// seal makes the last file durable as far as it goes, and lets go of it.
func (c *copied) seal() error {
	if c.file == nil {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.file.SyncData(); err != nil {
		return err
	}
	c.sizes[len(c.sizes)-1] = c.at
	c.file = nil
	c.files[len(c.files)-1].release()
	return nil
}

// abandon forgets the copy. What was written behind the end of a file counts
// for nothing, and that file is not written to again: what the kernel says once
// about a failed write, it does not say twice.
func (c *copied) abandon() {
	c.end()
	c.p.st.s.removeFiles(c.files[c.known:])
}

// end forgets the copy, and leaves the files where they are.
func (c *copied) end() {
	p := c.p
	if c.file != nil {
		c.file = nil
		c.files[len(c.files)-1].release()
	}
	p.mu.Lock()
	p.broken, p.copying = true, false
	p.mu.Unlock()
}

// recordCopied records what was copied. After an error of which told is true
// nobody knows whether the log has it: the next start may look for the files.
func (s *Store) recordCopied(list []*copied) (told bool, err error) {
	if err := s.wal.Lock(); err != nil {
		return false, unavailable(err)
	}
	if err := s.reserve(len(list)*(journal.RecordHeader+maxSmall), false); err != nil {
		s.wal.Unlock(journal.Lazy, nil)
		return false, err
	}
	for i, c := range list {
		f := c.files[len(c.files)-1]
		b := fields.AppendUints(s.wal.Start(recCopied), uint64(c.p.st.id), uint64(c.p.number), c.to, f.base)
		s.wal.End(fields.AppendUints(b, uint64(c.sizes[len(c.sizes)-1]), uint64(c.last)), i < len(list)-1)
	}
	return true, s.wait(context.Background())
}

// apply moves readers from the journal to the files.
func (c *copied) apply() {
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	var bytes int64
	for i, f := range c.files[c.first:] {
		bytes += f.extend(c.sizes[i], c.marks[i])
	}
	p.copying = false
	if p.dropped {
		p.doomed = append(p.doomed, c.files[c.known:]...)
		p.st.s.timers.set(p, 1)
		return
	}
	bytes -= p.forget(c.to)
	p.files = append(append([]*streamFile(nil), p.files...), c.files[c.known:]...)
	p.copied, p.copiedLast, p.broken = c.to, c.last, false
	p.newest, p.newestSize = c.files[len(c.files)-1].base, c.sizes[len(c.sizes)-1]
	bytes -= p.cutFiles(p.first)
	p.weigh(bytes)
	p.schedule()
}

// extend lets readers find what was written, and returns how much it is.
func (f *streamFile) extend(size int64, marks []mark) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := size - f.size
	if f.size = size; f.file != nil {
		f.marks = marks
	} else {
		f.marks = nil
	}
	return n
}

// forget forgets where the journal has what is before an offset, and returns
// how much that is.
func (p *partition) forget(to uint64) (bytes int64) {
	n := 0
	for ; n < len(p.chunks) && p.chunks[n].end() <= to; n++ {
		bytes += p.chunks[n].bytes
	}
	p.chunks = append([]*records(nil), p.chunks[n:]...)
	if len(p.chunks) > 0 && p.chunks[0].base < to {
		bytes += p.chunks[0].behead(to)
	}
	return bytes
}

// replayCopied is a copied record. The files are looked at when all is read.
func (s *Store) replayCopied(f *fields.Reader) {
	st := s.targets[broker.Target(f.Uint())].st
	n, to, base, length, last := uint32(f.Uint()), f.Uint(), f.Uint(), f.Uint(), f.Uint()
	if f.Bad || st == nil {
		return
	}
	if p := st.partition(n); p != nil {
		p.restoreCopied(to, base, int64(length), int64(last))
	}
}

// restoreCopied forgets where the journal has what is in files.
func (p *partition) restoreCopied(to, base uint64, length, last int64) {
	if to <= p.copied {
		return
	}
	p.copied, p.copiedLast, p.newest, p.newestSize = to, last, base, length
	p.weigh(-p.forget(to))
	p.end, p.shown, p.clock = max(p.end, to), max(p.shown, to), max(p.clock, last)
}

// makeDir makes a directory and those above it, durably.
func (f *files) makeDir(dir string) error {
	if _, err := f.fs.List(dir); err == nil {
		return nil
	}
	if err := f.fs.MkdirAll(dir); err != nil {
		return err
	}
	for d := filepath.Dir(dir); strings.HasPrefix(d, f.dir); d = filepath.Dir(d) {
		if err := f.fs.SyncDir(d); err != nil {
			return err
		}
	}
	return f.fs.SyncDir(filepath.Dir(f.dir))
}
