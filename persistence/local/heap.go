package local

// slot is what is known of a message that does more than wait: one that is
// leased, was given back, is delayed, held or dead. Slots live in one array
// without pointers, and a message keeps its slot until it is gone.
type slot struct {
	seq     uint64
	place   uint64 // where it belongs among the others; 0: not known before it is due
	rank    int64  // when a delayed publish was due: its order within the place
	until   int64  // end of the lease or of the delay, or since when it is dead
	expires int64  // of the message itself; 0: never, or to be read
	id      [16]byte
	attempt uint32
	version uint32 // of the newest entry in a heap; older ones are stale
}

// slots gives out slots by number.
type slots struct {
	all  []slot
	free []uint32
	used int
}

// get returns the number of an empty slot for seq. The version goes on from
// the slot's last user, so that what is left of that one in a heap is stale.
func (ss *slots) get(seq uint64) uint32 {
	ss.used++
	var i uint32
	if n := len(ss.free); n > 0 {
		i = ss.free[n-1]
		ss.free = ss.free[:n-1]
	} else {
		i = uint32(len(ss.all))
		ss.all = append(ss.all, slot{})
	}
	ss.all[i] = slot{seq: seq, version: ss.all[i].version + 1}
	return i
}

// put takes slot i back.
func (ss *slots) put(i uint32) {
	ss.all[i].seq = 0
	ss.all[i].version++
	ss.free = append(ss.free, i)
	ss.used--
}

// node is an element of a heap: a slot as it was in one version.
type node struct {
	key     uint64 // what the heap is ordered by, and
	rank    int64  // among equal keys, and
	seq     uint64 // among equal ranks
	slot    uint32
	version uint32
}

// heap orders slots by a time or by place. Nothing is ever searched and taken
// out of it: a node whose slot has a newer version is stale, is skipped when it
// comes up, and all of them are swept out when they outnumber the living.
type heap struct {
	nodes []node
	live  int // how many of them are not stale
}

// before orders nodes.
func (n *node) before(m *node) bool {
	if n.key != m.key {
		return n.key < m.key
	}
	if n.rank != m.rank {
		return n.rank < m.rank
	}
	return n.seq < m.seq
}

// push adds slot i, which is in no heap, under key.
func (h *heap) push(ss *slots, i uint32, key uint64, rank int64) {
	s := &ss.all[i]
	s.version++
	h.live++
	h.insert(node{key: key, rank: rank, seq: s.seq, slot: i, version: s.version})
	if len(h.nodes) > 2*h.live+64 {
		h.sweep(ss)
	}
}

func (h *heap) insert(n node) {
	h.nodes = append(h.nodes, n)
	h.up(len(h.nodes) - 1)
}

// leave makes the node of slot i stale.
func (h *heap) leave(ss *slots, i uint32) {
	ss.all[i].version++
	if h.live--; h.live == 0 {
		h.nodes = h.nodes[:0]
		if cap(h.nodes) > 4096 {
			h.nodes = nil
		}
	}
}

// top returns the first living node, or nil.
func (h *heap) top(ss *slots) *node {
	for len(h.nodes) > 0 {
		if n := &h.nodes[0]; ss.all[n.slot].version == n.version {
			return n
		}
		h.pop()
	}
	return nil
}

// topBefore returns the sequence of the first living node that is before limit.
// What is in front of it was brought by one unit, and is put out of the way.
func (h *heap) topBefore(ss *slots, limit uint64) (seq uint64, ok bool) {
	var aside []node
	n := h.top(ss)
	for ; n != nil && n.seq >= limit; n = h.top(ss) {
		aside = append(aside, *n)
		h.pop()
	}
	if n != nil {
		seq, ok = n.seq, true
	}
	for _, n := range aside {
		h.insert(n)
	}
	return seq, ok
}

// pop removes the first node, living or not; it leaves live alone.
func (h *heap) pop() {
	last := len(h.nodes) - 1
	h.nodes[0] = h.nodes[last]
	h.nodes = h.nodes[:last]
	h.down(0)
}

// take removes the first node, which top returned.
func (h *heap) take(ss *slots) uint32 {
	i := h.nodes[0].slot
	h.pop()
	h.leave(ss, i)
	return i
}

// sweep keeps the living nodes only.
func (h *heap) sweep(ss *slots) {
	kept := h.nodes[:0]
	for _, n := range h.nodes {
		if ss.all[n.slot].version == n.version {
			kept = append(kept, n)
		}
	}
	h.nodes = kept
	for i := len(kept)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *heap) up(i int) {
	n := h.nodes[i]
	for i > 0 {
		p := (i - 1) / 2
		if !n.before(&h.nodes[p]) {
			break
		}
		h.nodes[i] = h.nodes[p]
		i = p
	}
	h.nodes[i] = n
}

func (h *heap) down(i int) {
	if i >= len(h.nodes) {
		return
	}
	n := h.nodes[i]
	for {
		c := 2*i + 1
		if c >= len(h.nodes) {
			break
		}
		if c+1 < len(h.nodes) && h.nodes[c+1].before(&h.nodes[c]) {
			c++
		}
		if !h.nodes[c].before(&n) {
			break
		}
		h.nodes[i] = h.nodes[c]
		i = c
	}
	h.nodes[i] = n
}
