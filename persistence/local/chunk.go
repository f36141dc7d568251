package local

import "millrace/persistence/journal"

// A chunk holds up to chunkMax messages of one queue, whose sequences follow
// each other. The first ones are small, because an MQTT session is a queue too.
const (
	chunkMin = 16
	chunkMax = 1024
	// chunkSpare is the largest chunk that a queue keeps for its next use.
	chunkSpare = 256
	// chunkTime is how many milliseconds the u32 of an entry spans.
	chunkTime = 1<<32 - 1
)

// entry is one message of a queue: 24 bytes and no pointer, so that the
// collector never looks into a deep backlog. (An array of structs and not a
// struct of arrays: one cache line per message, and one allocation per chunk.)
type entry struct {
	pos    uint64 // of its record in the journal; in a volatile queue the tag of its route
	size   uint32 // of its record, or of the encoded message
	queued uint32 // milliseconds after chunk.time
	slot   uint32 // index+1 of what else is known of it; 0 while it only waits
	meta   uint32 // state, flags, reason and overhead
}

// state is where an entry stands.
type state uint32

const (
	gone     state = iota
	waiting        // ready, and never handed out: the cursor will come to it
	returned       // ready again, or a delayed one that is due: in queue.ready
	delayed
	leased
	held // for the broker, which was told or will be
	dead
	blocked // ready, but its key is in flight: in group.blocked
	states
)

// Bits of entry.meta above the state.
const (
	metaState   = 7
	metaHanded  = 1 << 3 // handed out in this start of the process
	metaExpires = 1 << 4 // the message has an expiry of its own
	metaDelayed = 1 << 5 // published with a delay: its place comes from slot.rank
	reasonShift = 8
	reasonMask  = 0xff << reasonShift

	// What of size is not payload. The few messages whose headers take more
	// count as if the rest of them were payload.
	overheadShift = 16
	maxOverhead   = 1<<16 - 1
)

func (e *entry) state() state        { return state(e.meta & metaState) }
func (e *entry) has(bit uint32) bool { return e.meta&bit != 0 }

// payload is how many bytes of the message its producer thinks of.
func (e *entry) payload() int64 { return int64(e.size - e.meta>>overheadShift) }

// chunk is a run of entries.
type chunk struct {
	base    uint64 // sequence of entries[0]
	time    int64  // Unix milliseconds that entry.queued counts from
	live    int    // entries that are not gone
	lo, hi  uint32 // the segments of the journal between which they lie
	entries []entry
	bodies  [][]byte // of a volatile queue: the encoded messages
	keys    []uint64 // of a keyed queue: hashes of the keys
	topics  []uint32 // as queue.topics counts them; nil: none is known
}

// end is the sequence after the last entry.
func (c *chunk) end() uint64 { return c.base + uint64(len(c.entries)) }

// spans notes that a message of the chunk lies at pos.
func (c *chunk) spans(pos uint64) {
	segment := journal.Position(pos).Segment()
	if c.hi == 0 {
		c.lo = segment
	}
	c.lo, c.hi = min(c.lo, segment), max(c.hi, segment)
}

// full reports whether no further entry fits.
func (c *chunk) full() bool { return len(c.entries) == cap(c.entries) }

// chunks are the chunks of a queue in order of base. Those without a living
// entry are taken out, so there may be gaps.
type chunks struct {
	list  []*chunk
	spare *chunk
	hint  int // index of the chunk found last
}

// find returns the chunk that holds seq and the index in it, or nil.
func (cs *chunks) find(seq uint64) (*chunk, int) {
	if c := cs.from(seq); c != nil && seq >= c.base && seq < c.end() {
		return c, int(seq - c.base)
	}
	return nil, 0
}

// from returns the chunk that holds seq, or else the first one after it, or nil.
func (cs *chunks) from(seq uint64) *chunk {
	if cs.hint < len(cs.list) {
		if c := cs.list[cs.hint]; seq >= c.base && seq < c.end() {
			return c
		}
	}
	lo, hi := 0, len(cs.list)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); cs.list[mid].end() <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(cs.list) {
		return nil
	}
	cs.hint = lo
	return cs.list[lo]
}

// tail returns the chunk that takes the entry seq, queued at now.
func (cs *chunks) tail(seq uint64, now int64, volatile, keyed bool) *chunk {
	size := chunkMin
	if n := len(cs.list); n > 0 {
		last := cs.list[n-1]
		if !last.full() && last.end() == seq && now-last.time < chunkTime {
			return last
		}
		if size = min(chunkMax, 2*cap(last.entries)); last.live == 0 {
			size = max(chunkMin, cap(last.entries)/2)
			cs.drop(last)
		}
	}
	c := cs.spare
	cs.spare = nil
	if c == nil || cap(c.entries) < size {
		c = &chunk{entries: make([]entry, 0, size)}
		if volatile {
			c.bodies = make([][]byte, size)
		}
		if keyed {
			c.keys = make([]uint64, size)
		}
	}
	c.base, c.time, c.lo, c.hi = seq, now, 0, 0
	cs.list = append(cs.list, c)
	return c
}

// drop takes out a chunk without living entries, and keeps it for the next use
// if it is small.
func (cs *chunks) drop(c *chunk) {
	i := 0
	for cs.list[i] != c {
		i++
	}
	copy(cs.list[i:], cs.list[i+1:])
	cs.list[len(cs.list)-1] = nil
	cs.list = cs.list[:len(cs.list)-1]
	if cap(c.entries) <= chunkSpare {
		c.entries, c.live = c.entries[:0], 0
		cs.spare = c
	}
}
