package journal

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// reserveName is a file as large as the first segment that is kept for the
	// day on which the disk is full. It becomes a segment then, so that what
	// makes room, such as acknowledgements, can still be written, and nothing else.
	reserveName = "reserve"

	spaceEvery  = 100 * time.Millisecond // between two looks at the disk, when asked
	maxLowDisk  = 2 << 30
	smallestFit = 16 // segments grow only while the disk has room for so many
)

// space is what is known of the room on the disk.
type space struct {
	asked   atomic.Int64 // when, Unix milliseconds
	low     atomic.Bool  // the disk had little room then
	full    atomic.Bool  // no segment could be prepared, or the reserve is in use
	reserve freeFile     // preparer only once open; no name: there is none
	failed  bool         // an error of measuring was logged
}

// Low reports whether the owner should append no more than it must: the disk has
// less than Options.LowDisk left, and since then not a tenth more, or no segment
// could be prepared. It looks at the disk ten times a second at most, and only
// when it is asked. now is the present time in Unix milliseconds.
func (j *Journal) Low(now int64) bool {
	last := j.space.asked.Load()
	if d := now - last; (d >= spaceEvery.Milliseconds() || d < 0) && j.space.asked.CompareAndSwap(last, now) {
		j.measure()
	}
	return j.space.full.Load() || j.space.low.Load()
}

// measure looks at the disk.
func (j *Journal) measure() {
	free, size, err := j.o.FS.Space(j.o.Dir)
	if err != nil {
		if !j.space.failed {
			j.space.failed = true
			j.o.Log.Warn().Err(err).Str("dir", j.o.Dir).Msg("free space of the disk cannot be measured: it is noticed only once it is full")
		}
		return
	}
	mark := j.lowMark(size)
	was := j.space.low.Load()
	if was {
		mark += mark / 10
	}
	if low := free < mark; low != was {
		j.space.low.Store(low)
		level := zerolog.InfoLevel
		if low {
			level = zerolog.WarnLevel
			poke(j.ask) // the preparer sheds
		}
		j.o.Log.WithLevel(level).Int64("free", free).Int64("mark", mark).Bool("low", low).Msg("free space of the disk")
	}
}

// lowMark is the free space under which the disk counts as low: by default the
// larger of two segments at their present size and the smaller of 5 % and 2 GiB.
func (j *Journal) lowMark(size int64) int64 {
	return cmp.Or(j.o.LowDisk, max(2*max(j.segSize.Load(), j.o.FirstSegmentSize), min(size/20, maxLowDisk)))
}

// larger is the size of the segment after one of size bytes: twice that, if
// the disk is large enough for it.
func (j *Journal) larger(size int64) int64 {
	if _, disk, err := j.o.FS.Space(j.o.Dir); err == nil && disk < smallestFit*2*size {
		return size
	}
	return min(2*size, j.o.SegmentSize)
}

// keepReserve makes the reserve if it is not there.
func (j *Journal) keepReserve() error {
	if j.space.reserve.name != "" {
		return nil
	}
	name := filepath.Join(j.o.Dir, reserveName)
	if old, ok := j.takeFree(j.o.FirstSegmentSize); ok {
		if err := j.o.FS.Rename(old.name, name); err != nil {
			return fmt.Errorf("keep a reserve: %w", err)
		}
		j.space.reserve = freeFile{name, old.size}
		return j.o.FS.SyncDir(j.o.Dir)
	}
	f, err := j.o.FS.Create(name + ".new")
	if err != nil {
		return fmt.Errorf("keep a reserve: %w", err)
	}
	done, err := j.zeroFill(f, j.o.FirstSegmentSize)
	if err = errors.Join(err, f.Close()); err == nil && done {
		err = j.o.FS.Rename(name+".new", name)
	}
	if err == nil && done {
		j.space.reserve = freeFile{name, j.o.FirstSegmentSize}
		return j.o.FS.SyncDir(j.o.Dir)
	}
	_ = j.o.FS.Remove(name + ".new") // else the next Open does
	if err != nil {
		err = fmt.Errorf("keep a reserve: %w", err)
	}
	return err
}

// shed removes the files kept for reuse: a disk with little room needs it more.
func (j *Journal) shed() {
	j.tableMu.Lock()
	free := j.free
	j.free = nil
	j.tableMu.Unlock()
	for _, f := range free {
		if err := j.o.FS.Remove(f.name); err != nil {
			j.o.Log.Warn().Err(err).Msg("free file not removed") // the next start sees to it
		}
	}
}

// useReserve makes a segment of the reserve; nil if there is none.
func (j *Journal) useReserve() *segment {
	r := j.space.reserve
	if r.name == "" {
		return nil
	}
	j.space.reserve = freeFile{}
	f, err := j.o.FS.Open(r.name)
	if err == nil {
		var s *segment
		if s, err = j.dress(f, r.name, r.size); err == nil {
			s.reserve = true
			return s
		}
	}
	j.o.Log.Warn().Err(err).Msg("reserve not usable")
	return nil
}
