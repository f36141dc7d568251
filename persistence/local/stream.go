package local

import (
	"sort"
	"sync"

	"millrace/broker"
)

// stream is one stream: partitions that only grow.
type stream struct {
	id       broker.Target
	volatile bool

	mu    sync.RWMutex
	def   broker.Def
	parts []*partition // replaced, never changed, under the append lock and mu
}

// partition is the index of one partition: where each offset is. Offsets begin
// at 0 and have no gaps. What is not committed cannot be read.
type partition struct {
	mu     sync.RWMutex
	chunks []*records
	end    uint64 // offset of the next message; also under the append lock
	shown  uint64 // offsets before it are committed
	clock  int64
	bytes  int64 // of what is shown
}

// record is one message of a partition: 16 bytes and no pointer.
type record struct {
	pos  uint64
	size uint32
	time uint32 // milliseconds after records.time
}

// records is a run of recordsMax messages, or the last and shorter one.
type records struct {
	time   int64
	list   []record
	bodies [][]byte // of a volatile stream
}

const recordsMax = 1024

// next is the offset of the next message. The append lock is held.
func (p *partition) next() uint64 { return p.end }

// add appends a message and returns its offset.
func (p *partition) add(pos uint64, size uint32, now int64, body []byte) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	now = max(now, p.clock)
	p.clock = now
	i := int(p.end % recordsMax)
	if i == 0 {
		p.chunks = append(p.chunks, &records{time: now, list: make([]record, 0, 16)})
	}
	r := p.chunks[len(p.chunks)-1]
	r.list = append(r.list, record{pos: pos, size: size, time: uint32(min(now-r.time, chunkTime))})
	if body != nil {
		r.bodies = append(r.bodies, body)
	}
	p.end++
	return p.end - 1
}

// show makes what is before upto readable.
func (p *partition) show(upto uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; p.shown < upto; p.shown++ {
		r, i := p.at(p.shown)
		p.bytes += int64(r.list[i].size)
	}
}

// at returns where offset o is.
func (p *partition) at(o uint64) (*records, int) {
	return p.chunks[o/recordsMax], int(o % recordsMax)
}

// since returns the first offset that is not before time.
func (p *partition) since(time int64) uint64 {
	return uint64(sort.Search(int(p.shown), func(o int) bool {
		r, i := p.at(uint64(o))
		return r.time+int64(r.list[i].time) >= time
	}))
}

// look returns up to limit messages from pos on.
func (p *partition) look(pos broker.Pos, limit int) []pick {
	p.mu.RLock()
	defer p.mu.RUnlock()
	from := pos.Seq
	switch {
	case pos.End:
		from = p.shown
	case !pos.Time.IsZero():
		from = p.since(pos.Time.UnixMilli())
	}
	var picks []pick
	for o := from; o < p.shown && len(picks) < limit; o++ {
		r, i := p.at(o)
		if r.list[i].size == 0 {
			continue // lost, and given up
		}
		k := pick{seq: o, pos: r.list[i].pos, size: r.list[i].size, queued: r.time + int64(r.list[i].time)}
		if r.bodies != nil {
			k.body = r.bodies[i]
		}
		picks = append(picks, k)
	}
	return picks
}

// read is Store.Read of a stream.
func (s *Store) readStream(st *stream, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	st.mu.RLock()
	parts := st.parts
	st.mu.RUnlock()
	if int(p.Partition) >= len(parts) {
		return dst, broker.ErrNotFound
	}
	var l loader
	for picks := parts[p.Partition].look(p, limit); len(picks) > 0; {
		n := min(len(picks), loadMax)
		l.begin(s, st.volatile, picks[:n])
		for i, k := range picks[:n] {
			d := broker.Delivery{
				Ref:       broker.Ref{Target: st.id, Seq: k.seq, Epoch: s.epoch},
				Queued:    k.queued,
				Partition: p.Partition,
			}
			if err := l.message(picks, i, &d.Message); err != nil {
				return dst, err
			}
			dst = append(dst, d)
		}
		picks = picks[n:]
	}
	return dst, nil
}

// info counts the stream.
func (st *stream) info() broker.Info {
	st.mu.RLock()
	defer st.mu.RUnlock()
	var in broker.Info
	for _, p := range st.parts {
		p.mu.RLock()
		in.Partitions = append(in.Partitions, broker.PartitionInfo{Next: p.shown, Bytes: p.bytes})
		in.In += p.shown
		in.Bytes += p.bytes
		if p.shown > 0 {
			if t := broker.Time(p.chunks[0].time); in.Oldest.IsZero() || t.Before(in.Oldest) {
				in.Oldest = t
			}
		}
		p.mu.RUnlock()
	}
	return in
}
