package rest

import (
	"errors"
	"time"
)

// A client of HTTP/2 may reset maxResets streams in resetPeriod. One that opens
// and resets them without end has work done for nothing (CVE-2023-44487).
const (
	maxResets   = 1000
	resetPeriod = time.Minute
)

var errResets = errors.New("more HTTP/2 streams were reset than a client may")

// frames follows the frames of an HTTP/2 connection and counts the resets, which
// net/http does not bound where its handlers are fast.
type frames struct {
	skip   int64 // bytes that are still to come of the preface or a frame
	header [frameHeader]byte
	have   int
	resets int
	since  time.Time // of the period that is counted
	now    func() time.Time
}

// RFC 9113 sections 3.4, 4.1 and 6.4.
const (
	prefaceBytes = 24
	frameHeader  = 9
	resetFrame   = 3
)

func newFrames(now func() time.Time) *frames { return &frames{skip: prefaceBytes, now: now} }

// take is an inspector's.
func (f *frames) take(b []byte) (int, error) {
	for i := 0; i < len(b); {
		if f.skip > 0 {
			n := min(f.skip, int64(len(b)-i))
			f.skip -= n
			i += int(n)
			continue
		}
		n := copy(f.header[f.have:], b[i:])
		i += n
		if f.have += n; f.have < frameHeader {
			break
		}
		f.have = 0
		f.skip = int64(f.header[0])<<16 | int64(f.header[1])<<8 | int64(f.header[2])
		if f.header[3] == resetFrame && !f.mayReset() {
			return i, errResets
		}
	}
	return len(b), nil
}

func (f *frames) mayReset() bool {
	if now := f.now(); now.Sub(f.since) >= resetPeriod {
		f.since, f.resets = now, 0
	}
	f.resets++
	return f.resets <= maxResets
}
