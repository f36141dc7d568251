package broker

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// ID names a message: a ULID, 48 bits of Unix milliseconds and 80 of
// randomness, growing with every call in one process. Each dialect shows a
// projection of it.
type ID = ulid.ULID

// ParseID reads the 26 characters that ID.String writes.
func ParseID(s string) (ID, error) {
	id, err := ulid.ParseStrict(s)
	if err != nil {
		return ID{}, errorf(NotFound, MessageSubject, "message %q does not exist: not a message id", s)
	}
	return id, nil
}

// idSource makes IDs that grow strictly, also within a millisecond and when
// the clock steps back.
type idSource struct {
	mu   sync.Mutex
	last int64  // milliseconds of the newest ID
	hi   uint16 // its 80 random bits
	lo   uint64
}

// next returns a new ID for the time now.
func (s *idSource) next(now time.Time) (id ID) {
	ms := now.UnixMilli()
	s.mu.Lock()
	if ms > s.last {
		s.last = ms
		var r [10]byte
		_, _ = rand.Read(r[:]) // never fails: crypto/rand aborts the process instead
		// The top bit stays clear, so that counting up never overflows.
		s.hi, s.lo = binary.BigEndian.Uint16(r[:2])&0x7fff, binary.BigEndian.Uint64(r[2:])
	} else if s.lo++; s.lo == 0 {
		s.hi++
	}
	ms, hi, lo := s.last, s.hi, s.lo
	s.mu.Unlock()
	_ = id.SetTime(uint64(ms)) // fails after the year 10889
	binary.BigEndian.PutUint16(id[6:8], hi)
	binary.BigEndian.PutUint64(id[8:16], lo)
	return id
}
