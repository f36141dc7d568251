package local

// place tells an entry that a checkpoint knows where its message is. What is
// gone, or known already, is left alone, but for a message that was moved.
func (q *queue) place(seq, pos uint64, p *placed) {
	c, i := q.chunks.find(seq)
	if c == nil || c.entries[i].state() == gone {
		return
	}
	e := &c.entries[i]
	if e.pos != 0 {
		if p.moved {
			q.moved(c, i, pos, p.size)
		}
		return
	}
	e.pos, e.size = pos, p.size
	e.queued = uint32(min(max(p.time-c.time, 0), chunkTime))
	e.meta |= min(p.overhead, maxOverhead) << overheadShift
	st := e.state()
	q.bytes[st] += int64(e.size)
	q.weigh(int64(e.size))
	q.payload[st] += e.payload()
	if p.expires != 0 {
		e.meta |= metaExpires
		q.expiries.add(p.expires, seq, false)
	}
	if c.keys != nil {
		c.keys[i] = p.key
	}
	c.spans(pos)
	q.s.live.add(pos, int64(e.size))
}

// moved says that the message of an entry lies at pos from now on, in a record
// of another size. Its payload stays what it was.
func (q *queue) moved(c *chunk, i int, pos uint64, size uint32) {
	e := &c.entries[i]
	st, payload := e.state(), e.payload()
	q.s.live.add(e.pos, -int64(e.size))
	q.s.live.add(pos, int64(size))
	q.bytes[st] += int64(size) - int64(e.size)
	q.weigh(int64(size) - int64(e.size))
	q.payload[st] -= payload
	overhead := uint32(min(max(int64(size)-payload, 0), maxOverhead))
	e.pos, e.size = pos, size
	e.meta = e.meta&^(maxOverhead<<overheadShift) | overhead<<overheadShift
	q.payload[st] += e.payload()
	c.spans(pos)
}
