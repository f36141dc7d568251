package local

import "millrace/broker"

// appendStreams appends what the journal need not tell again about streams: for
// each its bounds, how far its files go, and where the journal has the rest.
// Replaying older records over it changes nothing.
func (s *Store) appendStreams(b []byte) []byte {
	var list []*partition
	for _, t := range s.all() {
		if t.st != nil && !t.st.volatile {
			list = append(list, t.st.partitions()...)
		}
	}
	b = appendNums(b, uint64(len(list)))
	for _, p := range list {
		b = p.appendState(b)
	}
	return b
}

// appendState appends one partition as far as it is committed.
func (p *partition) appendState(b []byte) []byte {
	p.mu.RLock()
	defer p.mu.RUnlock()
	b = appendNums(b, uint64(p.st.id), uint64(p.number), p.first, p.shown, uint64(p.clock))
	b = appendNums(b, p.copied, p.newest, uint64(p.newestSize), uint64(p.copiedLast))
	n := 0
	for n < len(p.chunks) && p.chunks[n].base < p.shown {
		n++
	}
	b = appendNums(b, uint64(n))
	var scratch [recordsMax]record
	for _, c := range p.chunks[:n] {
		pack, count := c.packed, uint64(c.n)
		if c.end() > p.shown || pack == nil {
			count = min(count, p.shown-c.base)
			pack = packed(c.records(scratch[:])[:count])
		}
		b = appendNums(b, c.base, count, uint64(c.time), uint64(len(pack)))
		b = append(b, pack...)
	}
	return b
}

// restoreStreams reads what appendStreams wrote. The streams are defined, and
// nothing was replayed yet. It runs before the files are opened.
func (s *Store) restoreStreams(f *fields) {
	for n := f.num(); n > 0 && !f.bad; n-- {
		st := s.targets[broker.Target(f.num())].st
		number := uint32(f.num())
		p := &partition{st: &stream{}}
		if st != nil {
			if known := st.partition(number); known != nil {
				p = known
			}
		}
		p.restore(f)
	}
}

// restore reads what appendState wrote behind the number.
func (p *partition) restore(f *fields) {
	p.first, p.shown, p.clock = f.num(), f.num(), int64(f.num())
	p.copied, p.newest, p.newestSize, p.copiedLast = f.num(), f.num(), int64(f.num()), int64(f.num())
	p.end = p.shown
	for n := f.num(); n > 0 && !f.bad; n-- {
		c := &records{base: f.num(), n: int(f.num()), time: int64(f.num()), sealed: true}
		c.packed = append([]byte(nil), f.bytes()...)
		if c.n > recordsMax || c.n == 0 || f.bad {
			f.bad = true
			return
		}
		list := c.records(make([]record, 0, recordsMax))
		if len(list) != c.n {
			f.bad = true
			return
		}
		for _, r := range list {
			c.bytes += int64(r.size)
		}
		c.last = c.time + int64(list[c.n-1].time)
		p.chunks = append(p.chunks, c)
		p.bytes += c.bytes
	}
	p.st.bytes.Add(p.bytes)
}
