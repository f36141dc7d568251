package local

import (
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// recTrim says that a partition begins at an offset. Nothing before it is shown
// any more once the record is durable, so that the first offset never goes back.
//
//	trim   target, partition, first offset
const recTrim byte = 0x20

// tick ends waits whose time is over, and cuts off what is too old or too much.
func (p *partition) tick(s *Store) {
	var l waitQueue
	now := s.milli()
	p.mu.Lock()
	p.wake = 0
	for len(p.waits.until) > 0 && p.waits.until[0].until <= now {
		wt := p.waits.until[0]
		p.waits.remove(wt)
		l.push(wt)
	}
	to := p.outdated(now)
	p.schedule()
	doomed := p.doomed
	p.doomed = nil
	p.mu.Unlock()
	s.handOut(&l)
	s.removeFiles(doomed)
	if to > 0 {
		s.trim(p, to)
	}
	if limit := p.st.maxBytes.Load(); limit > 0 && p.st.bytes.Load() > limit {
		s.trimTo(p.st, limit-limit/64)
	}
}

// outdated returns the offset before which everything is too old; 0 if nothing
// is. It is the end of a run.
func (p *partition) outdated(now int64) uint64 {
	keep := p.st.retention.Load()
	if keep <= 0 || p.cutting > 0 || p.dropped || now < p.rest {
		return 0
	}
	var to uint64
	for i := range len(p.files) + len(p.chunks) {
		h := p.head(i)
		if h.last+keep > now || h.end > p.shown {
			break
		}
		if h.chunk != nil {
			h.chunk.sealed = true
		}
		to = h.end
	}
	if to > 0 {
		p.rest = now + min(1000, keep/16) // a busy stream is not cut with every run
		p.cutting = to
	}
	return to
}

// schedule sets the timer if it must look earlier than it will.
func (p *partition) schedule() {
	if !p.st.s.bound.Load() || p.dropped {
		return
	}
	var at int64
	if len(p.waits.until) > 0 {
		at = p.waits.until[0].until
	}
	if keep := p.st.retention.Load(); keep > 0 && p.cutting == 0 && len(p.files)+len(p.chunks) > 0 {
		if h := p.head(0); h.end <= p.shown {
			if t := max(h.last+keep, p.rest); at == 0 || t < at {
				at = t
			}
		}
	}
	if at != 0 && (p.wake == 0 || at < p.wake) {
		p.wake = at
		p.st.s.timers.set(p, at)
	}
}

// trimTo cuts the oldest runs of a stream off until it holds no more than
// limit. The last run of a partition stays.
func (s *Store) trimTo(st *stream, limit int64) {
	parts := st.partitions()
	heads := make([]head, len(parts))
	for i, p := range parts {
		if !p.headAt(0, &heads[i]) {
			return // it looks again when what is under way is done
		}
	}
	cuts := make([]uint64, len(parts))
	for left := st.bytes.Load(); left > limit; {
		oldest := -1
		for i := range heads {
			if heads[i].there && (oldest < 0 || heads[i].time < heads[oldest].time) {
				oldest = i
			}
		}
		if oldest < 0 {
			break
		}
		h := &heads[oldest]
		cuts[oldest] = h.end
		left -= h.bytes
		parts[oldest].headAt(h.index+1, h)
	}
	for i, p := range parts {
		if cuts[i] > 0 {
			p.mu.Lock()
			p.cutting = cuts[i]
			p.mu.Unlock()
			s.trim(p, cuts[i])
		}
	}
}

// head is a run, or a file, that could be cut off.
type head struct {
	there             bool
	index             int
	chunk             *records // nil of a file
	end               uint64
	time, last, bytes int64
}

// head describes the file or run at a place. A lock is held.
func (p *partition) head(i int) head {
	h := head{there: true, index: i}
	n := len(p.files)
	if i < n {
		f := p.files[i]
		h.time, h.bytes, h.end, h.last = f.time, f.length(), p.copied, p.copiedLast
		if i+1 < n {
			h.end, h.last = p.files[i+1].base, p.files[i+1].time
		}
		return h
	}
	c := p.chunks[i-n]
	h.chunk, h.end, h.time, h.last, h.bytes = c, c.end(), c.time, c.last, c.bytes
	return h
}

// headAt describes what could go next, and reports whether nothing is going.
func (p *partition) headAt(i int, h *head) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	*h = head{index: i}
	if i < len(p.files)+len(p.chunks)-1 {
		if next := p.head(i); next.end <= p.shown {
			*h = next
		}
	}
	return p.cutting == 0
}

// trim records that p begins at an offset, and cuts off what is before it when
// that is durable. If there is no room for the record it is tried again later.
func (s *Store) trim(p *partition, to uint64) {
	t := &trimmed{p: p, to: to}
	if p.st.volatile {
		t.apply()
		return
	}
	if s.wal.Lock() != nil {
		return // the store ends
	}
	if s.reserve(journal.RecordHeader+maxSmall, false) != nil {
		s.wal.Unlock(journal.Lazy, nil)
		p.mu.Lock()
		p.cutting = 0
		p.rest = s.milli() + time.Second.Milliseconds()
		p.schedule()
		p.mu.Unlock()
		return
	}
	s.wal.End(fields.AppendUints(s.wal.Start(recTrim), uint64(p.st.id), uint64(p.number), to), false)
	s.outstanding.Add(1)
	s.wal.Unlock(journal.Durable, t)
}

// trimmed is the completion of a trim.
type trimmed struct {
	p  *partition
	to uint64
}

// Done cuts off what the record says.
func (t *trimmed) Done(err error) {
	s := t.p.st.s
	if err != nil {
		s.failed(err)
	} else {
		t.apply()
	}
	s.completed()
}

func (t *trimmed) apply() {
	p := t.p
	p.mu.Lock()
	p.cut(t.to)
	p.cutting = 0
	p.schedule()
	p.mu.Unlock()
	p.cutSubscriptions(t.to)
	if limit := p.st.maxBytes.Load(); limit > 0 && p.st.bytes.Load() > limit {
		p.st.s.timers.set(p, 1)
	}
}

// cut forgets what is before an offset. The lock is held, or nobody else runs.
func (p *partition) cut(to uint64) {
	if to <= p.first || p.dropped {
		return
	}
	bytes := p.cutFiles(to)
	n := 0
	for n < len(p.chunks) && p.chunks[n].end() <= to {
		bytes += p.chunks[n].bytes
		n++
	}
	clear(p.chunks[:n])
	p.chunks = p.chunks[n:]
	if len(p.chunks) > 0 && p.chunks[0].base < to {
		bytes += p.chunks[0].behead(to)
	}
	p.first = to
	if p.end < to { // what was there is given up
		p.end = to
	}
	p.shown = max(p.shown, to)
	p.weigh(-bytes)
}

// cutFiles takes out the files of which nothing is left, and returns their size.
func (p *partition) cutFiles(to uint64) (bytes int64) {
	n, most := 0, len(p.files)
	if p.copying {
		most-- // it is seen to when that has ended
	}
	for n < most && p.head(n).end <= to {
		bytes += p.files[n].length()
		n++
	}
	if n == 0 {
		return 0
	}
	p.doomed = append(p.doomed, p.files[:n]...)
	p.files = append([]*streamFile(nil), p.files[n:]...)
	if p.st.s.bound.Load() {
		p.st.s.timers.set(p, 1)
	}
	return bytes
}

// behead takes what is before an offset off a run, and returns its size.
func (c *records) behead(to uint64) (bytes int64) {
	list := c.records(make([]record, 0, recordsMax))
	n := int(to - c.base)
	for _, r := range list[:n] {
		bytes += int64(r.size)
	}
	c.list, c.packed = append([]record(nil), list[n:]...), nil
	if c.bodies != nil {
		c.bodies = append([][]byte(nil), c.bodies[n:]...)
	}
	c.base, c.n, c.bytes = to, c.n-n, c.bytes-bytes
	c.sealed = true
	return bytes
}

// replayTrim cuts off what a record says.
func (s *Store) replayTrim(f *fields.Reader) {
	st := s.targets[broker.Target(f.Uint())].st
	n, to := uint32(f.Uint()), f.Uint()
	if f.Bad || st == nil {
		return
	}
	if p := st.partition(n); p != nil {
		p.cut(to)
		p.cutSubscriptions(to)
	}
}
