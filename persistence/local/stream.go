package local

import (
	"encoding/binary"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"millrace/broker"
)

// stream is one stream: partitions that only grow.
type stream struct {
	s        *Store
	id       broker.Target
	volatile bool

	mu    sync.RWMutex
	def   broker.Def
	parts []*partition // replaced, never changed, under the append lock and mu

	subs atomic.Pointer[[]*queue] // replaced, never changed, under the append lock

	retention atomic.Int64 // milliseconds, of def
	maxBytes  atomic.Int64 // of def
	bytes     atomic.Int64 // of all that is shown
}

// partition is the index of one partition: where each offset is. Offsets begin
// at 0 and have no gaps. What is not committed cannot be read.
type partition struct {
	st     *stream
	number uint32

	mu      sync.RWMutex
	dropped bool
	chunks  []*records // in order; what lies between them was given up
	spare   []record   // of a chunk that was packed
	first   uint64     // the oldest offset that can be read
	end     uint64     // offset of the next message; also under the append lock
	shown   uint64     // offsets before it are committed
	clock   int64
	bytes   int64 // of what is shown

	files      []*streamFile // what was copied out of the journal; replaced, never changed
	copied     uint64        // what is before it is in files
	copiedLast int64         // when the last message there came
	doomed     []*streamFile // to be removed
	copying    bool          // the last file is being written to
	broken     bool          // the last file is not written to any more
	newest     uint64        // base of the last file that is recorded, and its
	newestSize int64         // length: until the files are opened

	waits   waitList
	wake    int64  // when the timers will look here; 0: they will not
	cutting uint64 // what is before it goes when the record of that is durable
	rest    int64  // no look for old entries before that time
}

// record is one message of a partition: 16 bytes and no pointer.
type record struct {
	pos  uint64
	size uint32
	time uint32 // milliseconds after records.time
}

// records is a run of messages. Once all are shown and no more follow, it is
// packed: about 4 bytes a message.
type records struct {
	base   uint64
	n      int
	time   int64 // of the first message
	last   int64 // and of the last
	bytes  int64
	sealed bool
	list   []record // nil once it is packed
	packed []byte
	bodies [][]byte // of a volatile stream, which is never packed
}

// Limits of a run. What is cut off goes by whole runs.
const (
	recordsMax   = 256
	recordsBytes = 1 << 20 // or a sixteenth of a segment
)

func (c *records) end() uint64 { return c.base + uint64(c.n) }

// newStream returns an empty stream.
func (s *Store) newStream(id broker.Target, d broker.Def, volatile bool) *stream {
	st := &stream{s: s, id: id, volatile: volatile}
	st.define(d)
	return st
}

// define sets the definition, and adds partitions.
func (st *stream) define(d broker.Def) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.def = d
	st.retention.Store(d.Retention.Milliseconds())
	st.maxBytes.Store(d.MaxBytes)
	parts := slices.Clone(st.parts)
	for n := uint32(len(parts)); n < d.Partitions; n++ {
		parts = append(parts, &partition{st: st, number: n})
	}
	st.parts = parts
}

// alter gives the stream a new definition, which holds for what is there too.
func (st *stream) alter(d broker.Def) {
	st.define(d)
	st.wake()
}

// wake has the timers look at every partition.
func (st *stream) wake() {
	if !st.s.bound.Load() {
		return
	}
	for _, p := range st.partitions() {
		st.s.timers.set(p, 1)
	}
}

func (st *stream) partitions() []*partition {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.parts
}

// partition returns one partition, or nil.
func (st *stream) partition(n uint32) *partition {
	if parts := st.partitions(); n < uint32(len(parts)) {
		return parts[n]
	}
	return nil
}

// drop forgets all that the stream holds.
func (st *stream) drop() {
	for _, p := range st.partitions() {
		p.mu.Lock()
		p.dropped = true
		p.doomed = append(p.doomed, p.files...)
		p.chunks, p.spare, p.files, p.wake = nil, nil, nil, 0
		if len(p.doomed) > 0 && st.s.bound.Load() {
			st.s.timers.set(p, 1)
		} else {
			st.s.timers.set(p, 0)
		}
		p.mu.Unlock()
	}
	st.s.holds.Add(-st.bytes.Swap(0))
}

// weigh counts n bytes more in the partition, its stream and the store, and returns
// how many the stream has. The lock is held, or nobody else runs.
func (p *partition) weigh(n int64) int64 {
	p.bytes += n
	p.st.s.holds.Add(n)
	return p.st.bytes.Add(n)
}

// span is how long a run grows at most, in milliseconds: old entries go late
// by no more than that.
func (st *stream) span() int64 {
	const most = int64(time.Hour / time.Millisecond)
	if keep := st.retention.Load(); keep > 0 {
		return min(max(keep/8, 1), most)
	}
	return most
}

// next is the offset of the next message. The append lock is held.
func (p *partition) next() uint64 { return p.end }

// add appends a message and returns its offset.
func (p *partition) add(pos uint64, size uint32, now int64, body []byte) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	now = max(now, p.clock)
	p.clock = now
	c := p.tail(now, int64(size))
	c.list = append(c.list, record{pos: pos, size: size, time: uint32(now - c.time)})
	if body != nil {
		c.bodies = append(c.bodies, body)
	}
	c.n++
	c.last = now
	c.bytes += int64(size)
	p.end++
	return p.end - 1
}

// tail returns the run that takes the next message.
func (p *partition) tail(now, size int64) *records {
	list := []record(nil)
	if n := len(p.chunks); n > 0 {
		c := p.chunks[n-1]
		if !c.sealed && c.end() == p.end && c.n < recordsMax && c.bytes+size <= p.st.s.files.runMax && now-c.time <= p.st.span() {
			return c
		}
		c.sealed = true
		if c.end() <= p.shown {
			p.pack(c)
		}
		if c.n == recordsMax {
			list, p.spare = p.spare, nil
		}
	}
	if list == nil {
		list = make([]record, 0, 16)
	}
	c := &records{base: p.end, time: now, last: now, list: list}
	p.chunks = append(p.chunks, c)
	return c
}

// replay adds the message at offset seq, which is read from the journal. One
// that is known already is left alone.
func (p *partition) replay(seq, pos uint64, size uint32, now int64) {
	if seq < p.end {
		return
	}
	p.end = seq // what lies between was given up with AcceptLoss
	p.show(p.add(pos, size, now, nil) + 1)
}

// show makes what is before upto readable, and reports whether there is
// something to serve or to cut off.
func (p *partition) show(upto uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var bytes int64
	for p.shown < upto {
		c := p.from(p.shown)
		if c == nil {
			p.shown = upto
			break
		}
		p.shown = max(p.shown, c.base)
		end := min(upto, c.end())
		for ; p.shown < end; p.shown++ {
			bytes += int64(c.list[p.shown-c.base].size)
		}
		if c.sealed && end == c.end() {
			p.pack(c)
		}
	}
	total := p.weigh(bytes)
	if keep := p.st.retention.Load(); keep > 0 && p.wake == 0 {
		p.schedule()
	}
	limit := p.st.maxBytes.Load()
	return p.waits.first != nil || limit > 0 && total > limit
}

// from returns the run that holds offset o, or the first one behind it, or nil.
func (p *partition) from(o uint64) *records {
	n := len(p.chunks)
	if n > 0 && o >= p.chunks[n-1].base { // the usual case
		if c := p.chunks[n-1]; o < c.end() {
			return c
		}
		return nil
	}
	i := p.index(o)
	if i == n {
		return nil
	}
	return p.chunks[i]
}

// index is the place in chunks of what from returns.
func (p *partition) index(o uint64) int {
	return sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].end() > o })
}

// packed writes messages down in short: for each what lies between it and the
// one before, its size, and the time since then.
func packed(list []record) []byte {
	b := make([]byte, 0, 5*len(list)+16)
	var end uint64
	var at uint32
	for _, r := range list {
		b = binary.AppendVarint(b, int64(r.pos-end))
		b = binary.AppendUvarint(b, uint64(r.size))
		b = binary.AppendUvarint(b, uint64(r.time-at))
		end, at = r.pos+uint64(r.size), r.time
	}
	return b
}

// pack makes the run short.
func (p *partition) pack(c *records) {
	if c.list == nil || p.st.volatile {
		return
	}
	c.packed = slices.Clone(packed(c.list))
	if cap(c.list) >= recordsMax {
		p.spare = c.list[:0]
	}
	c.list = nil
}

// records returns the messages of the run, which may lie in scratch.
func (c *records) records(scratch []record) []record {
	if c.list != nil {
		return c.list
	}
	list := scratch[:0]
	var end uint64
	var at uint32
	for b := c.packed; len(b) > 0; {
		gap, n := binary.Varint(b)
		size, m := binary.Uvarint(b[max(n, 0):])
		dt, k := binary.Uvarint(b[max(n, 0)+max(m, 0):])
		if n <= 0 || m <= 0 || k <= 0 {
			return list // only of a state that is damaged: whoever restores it counts
		}
		b = b[n+m+k:]
		r := record{pos: end + uint64(gap), size: uint32(size), time: at + uint32(dt)}
		list = append(list, r)
		end, at = r.pos+size, r.time
	}
	return list
}

// since returns the first offset whose message is not older than time; shown
// if there is none. The lock is held.
func (p *partition) since(time int64) uint64 {
	i := sort.Search(len(p.chunks), func(i int) bool { return p.chunks[i].last >= time })
	if i == len(p.chunks) {
		return p.shown
	}
	c := p.chunks[i]
	var scratch [recordsMax]record
	list := c.records(scratch[:])
	j := sort.Search(len(list), func(j int) bool { return c.time+int64(list[j].time) >= time })
	return min(c.base+uint64(j), p.shown)
}

// bounds is what can be read. The lock is held.
func (p *partition) bounds() broker.PartitionInfo {
	return broker.PartitionInfo{First: p.first, Next: p.shown, Bytes: p.bytes}
}

// info counts the stream.
func (st *stream) info() broker.Info {
	var in broker.Info
	for _, p := range st.partitions() {
		p.mu.RLock()
		in.Partitions = append(in.Partitions, p.bounds())
		in.In += p.shown
		in.Out[broker.ReasonRetention] += p.first
		in.Bytes += p.bytes
		if at := p.oldest(); at != 0 {
			if t := broker.Time(at); in.Oldest.IsZero() || t.Before(in.Oldest) {
				in.Oldest = t
			}
		}
		p.mu.RUnlock()
	}
	return in
}

// oldest is when the first message came, about; 0 if there is none.
func (p *partition) oldest() int64 {
	switch {
	case p.shown == p.first:
		return 0
	case len(p.files) > 0:
		return p.files[0].time
	case len(p.chunks) > 0:
		return p.chunks[0].time
	}
	return 0
}
