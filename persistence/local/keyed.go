package local

// group is one key of a keyed queue: at most one of its messages is in flight.
// A key stays taken while its message is leased, held, or was given back with
// a delay, because a later one must not overtake it.
type group struct {
	owner   uint64 // sequence of the message in flight; 0: none
	blocked heap   // by place; nodes of messages that left are stale
}

// keyHash returns what stands for a key in memory and in hints, 0 for none: it
// never changes. Two keys with one hash wait for each other, which is harmless
// and rare. (FNV-1a, and the last step of MurmurHash3.)
func keyHash(key string) uint64 {
	if key == "" {
		return 0
	}
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return max(1, h^h>>33)
}

// acquire takes the key of an entry that is ready, or puts the entry behind
// the one that has it.
func (q *queue) acquire(c *chunk, i int) bool {
	key := c.keys[i]
	if key == 0 {
		return true
	}
	g := q.busy[key]
	if g == nil {
		g = &group{}
		q.busy[key] = g
	}
	seq := c.base + uint64(i)
	if g.owner == 0 || g.owner == seq {
		g.owner = seq
		return true
	}
	e := &c.entries[i]
	s := q.slotOf(c, i)
	if e.state() == waiting {
		q.noteTTL(c, i)
	}
	q.set(e, blocked)
	g.blocked.push(&q.slots, e.slot-1, s.place, s.rank)
	return false
}

// own gives the key of an entry to it, whoever had it: the journal says that it
// is in flight.
func (q *queue) own(c *chunk, i int) {
	if key := c.keys[i]; key != 0 {
		g := q.busy[key]
		if g == nil {
			g = &group{}
			q.busy[key] = g
		}
		g.owner = c.base + uint64(i)
	}
}

// release gives the key of an entry free, and makes the next one ready.
func (q *queue) release(c *chunk, i int) {
	key := c.keys[i]
	g := q.busy[key]
	if g == nil || g.owner != 0 && g.owner != c.base+uint64(i) {
		return
	}
	g.owner = 0
	if g.blocked.top(&q.slots) == nil {
		delete(q.busy, key)
		return
	}
	next := g.blocked.take(&q.slots)
	q.comeBack(q.chunks.find(q.slots.all[next].seq))
}
