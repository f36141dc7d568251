package local

import (
	"millrace/broker"
	"millrace/broker/fields"
)

// captureStreams writes for each partition its bounds, how far its files go,
// and where the journal has the rest. Replaying records over it that are told
// in it already changes nothing.
//
//	streams    (target, partition, first, shown, clock,
//	           copied, base of the last file, its length, time of its last message,
//	           n, n × run), again and again
//	run        base, n, time, length, messages (packed)
func captureStreams(w *ckptWriter, all []target) {
	for _, t := range all {
		if t.st == nil || t.st.volatile {
			continue
		}
		for _, p := range t.st.partitions() {
			w.end(p.appendState(w.begin(secStreams)))
		}
	}
}

// appendState appends one partition as far as it is committed.
func (p *partition) appendState(b []byte) []byte {
	p.mu.RLock()
	defer p.mu.RUnlock()
	b = fields.AppendUints(b, uint64(p.st.id), uint64(p.number), p.first, p.shown, uint64(p.clock))
	b = fields.AppendUints(b, p.copied, p.newest, uint64(p.newestSize), uint64(p.copiedLast))
	n := 0
	for n < len(p.chunks) && p.chunks[n].base < p.shown {
		n++
	}
	b = fields.AppendUints(b, uint64(n))
	var scratch [recordsMax]record
	for _, c := range p.chunks[:n] {
		pack, count := c.packed, uint64(c.n)
		if c.end() > p.shown || pack == nil {
			count = min(count, p.shown-c.base)
			pack = packed(c.records(scratch[:])[:count])
		}
		b = fields.AppendUints(b, c.base, count, uint64(c.time), uint64(len(pack)))
		b = append(b, pack...)
	}
	return b
}

// restoreStreams reads partitions. Their files are opened later.
func (s *Store) restoreStreams(f *fields.Reader) error {
	for len(f.Rest) > 0 && !f.Bad {
		st := s.targets[broker.Target(f.Uint())].st
		number := uint32(f.Uint())
		if st == nil || st.volatile {
			return errRecord
		}
		p := st.partition(number)
		if p == nil {
			return errRecord
		}
		if err := p.restore(f); err != nil {
			return err
		}
	}
	if f.Bad {
		return errRecord
	}
	return nil
}

// restore reads what appendState wrote behind the number.
func (p *partition) restore(f *fields.Reader) error {
	p.first, p.shown, p.clock = f.Uint(), f.Uint(), int64(f.Uint())
	p.copied, p.newest, p.newestSize, p.copiedLast = f.Uint(), f.Uint(), int64(f.Uint()), int64(f.Uint())
	p.end = p.shown
	at := p.copied
	for n := f.Uint(); n > 0 && !f.Bad; n-- {
		c := &records{base: f.Uint()}
		count := f.Uint()
		c.time, c.sealed = int64(f.Uint()), true
		c.packed = append([]byte(nil), f.Bytes()...)
		if count > recordsMax || count == 0 || f.Bad || c.base < at || c.base+count > p.end {
			return errRecord
		}
		c.n = int(count)
		list := c.records(make([]record, 0, recordsMax))
		if len(list) != c.n {
			return errRecord
		}
		for _, r := range list {
			c.bytes += int64(r.size)
		}
		at = c.end()
		c.last = c.time + int64(list[c.n-1].time)
		p.chunks = append(p.chunks, c)
		p.weigh(c.bytes)
	}
	return nil
}
