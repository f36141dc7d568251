package journal

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	zeroBytes = 512 << 10 // of one zero-filling write
	zeroSync  = 8 << 20   // zero-filled bytes between syncs, so that no commit waits behind a whole segment
	zeroPause = time.Millisecond
	maxFree   = 8 // files kept for reuse
)

// zeros is on the heap because the runtime aligns what is that large to pages.
var zeros = make([]byte, zeroBytes)

// zeroWriter is a File that has a cheaper way to write up to zeroBytes zeros.
type zeroWriter interface {
	WriteZeros(off, n int64) error
}

// freeFile is a file of a given size, all of it on disk, whose contents nobody
// needs.
type freeFile struct {
	name string
	size int64
}

// prepared is the state between those who need the next segment and the
// preparer. Guarded by Journal.mu but for the atomics.
type prepared struct {
	ask      chan struct{}
	next     *segment   // ready to be rolled into
	unneeded []*segment // prepared, and skipped
	want     int64      // size of the segment to prepare; 0 = none
	due      bool       // at once, not only when it is tried again
	trying   int64      // size of the one being prepared; 0 = none
	regular  int64      // size of the next one that is asked for in advance
	number   uint32     // of the next one; preparer only once open

	prepErr    error // the last attempt failed
	failedAt   time.Time
	failedSize int64

	hurry   atomic.Bool  // somebody waits
	used    atomic.Int64 // end of the records in the current segment
	segSize atomic.Int64
}

type fullError struct{ cause error }

func (e *fullError) Error() string        { return ErrFull.Error() + ": " + e.cause.Error() }
func (e *fullError) Unwrap() error        { return e.cause }
func (e *fullError) Is(target error) bool { return target == ErrFull }

// requestSegment asks the preparer for a segment of at least size bytes; mu is
// held.
func (j *Journal) requestSegment(size int64) {
	j.want, j.due = max(j.want, size, j.regular), true
	poke(j.ask)
}

// full says why there is no room on the disk, if there is none.
func (j *Journal) full() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.space.full.Load() {
		return nil
	}
	return &fullError{j.prepErr}
}

// takeNext waits for a prepared segment of at least size bytes, which is not the
// reserve for what grows. Anything else is not refused before an attempt that is
// under way has ended, for it may leave the reserve.
func (j *Journal) takeNext(size int64, grows bool) (*segment, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.hurry.Store(false)
	for asked := false; ; {
		if err := j.stopped(); err != nil {
			return nil, err
		}
		if s := j.next; s != nil && s.size >= size {
			if s.reserve && grows {
				return nil, &fullError{j.prepErr}
			}
			j.next = nil
			return s, nil
		}
		if j.prepErr != nil && max(size, j.regular) >= j.failedSize &&
			(asked || time.Since(j.failedAt) < j.o.RetryEvery) && (grows || !j.due && j.trying == 0) {
			return nil, &fullError{j.prepErr}
		}
		asked = true
		j.hurry.Store(true)
		if max(j.want, j.trying) < size {
			// Again if need be: between an attempt that failed and this look at
			// its outcome, one for a smaller segment may have succeeded.
			j.requestSegment(size)
		}
		j.ready.Wait()
	}
}

// prepareSegments is the preparer. After a failure it tries again by itself
// until a segment is ready.
func (j *Journal) prepareSegments() {
	retry := time.NewTimer(time.Hour)
	retry.Stop() // until it is wanted
	for {
		select {
		case <-j.quit:
			return
		case <-j.ask:
		case <-retry.C:
		}
		j.mu.Lock()
		size, unneeded := j.want, j.unneeded
		if j.next != nil && j.next.size >= size && j.prepErr == nil {
			size = 0
		}
		j.want, j.due, j.trying, j.unneeded = 0, false, size, nil
		j.mu.Unlock()
		for _, s := range unneeded {
			j.setFree(s)
		}
		if size > 0 {
			s, err := j.attempt(size)
			if s == nil && err == nil {
				return // closing
			}
			if j.hand(s, err, size) {
				retry.Reset(j.o.RetryEvery)
			}
		}
		if j.space.low.Load() && !j.space.full.Load() { // a full one needs what it has itself
			j.shed()
		}
	}
}

// attempt prepares a segment, and the reserve if it is gone. On a full disk the
// reserve comes first, and is the segment if there is no other.
func (j *Journal) attempt(size int64) (*segment, error) {
	if j.space.full.Load() {
		if err := j.keepReserve(); err != nil {
			return nil, err
		}
	}
	s, err := j.prepare(size)
	switch {
	case err == nil && s != nil:
		err = j.keepReserve()
	case isFull(err):
		j.mu.Lock()
		none := j.next == nil
		j.mu.Unlock()
		if none {
			s = j.useReserve()
		}
	}
	return s, err
}

// hand gives the outcome of an attempt to those who wait for it: a segment, or
// an error, or with an error the reserve as a segment. It reports whether to try
// again later.
func (j *Journal) hand(s *segment, err error, size int64) (again bool) {
	larger := j.larger(j.regular) // only this goroutine changes it
	j.mu.Lock()
	j.trying = 0
	old := j.next
	before := j.prepErr
	if s != nil {
		j.next = s
	}
	full := err != nil && size <= j.regular && (j.next == nil || isFull(err))
	if err == nil {
		j.prepErr = nil
		j.regular = max(j.regular, larger)
	} else {
		j.prepErr, j.failedAt, j.failedSize = err, time.Now(), size
		if again = j.next == nil || full; again {
			j.want = max(j.want, j.regular)
		}
	}
	j.space.full.Store(full)
	j.ready.Broadcast()
	j.mu.Unlock()
	switch {
	case err != nil && before == nil:
		j.o.Log.Warn().Err(err).Int64("bytes", size).Msg("segment could not be prepared")
	case err == nil && before != nil:
		j.o.Log.Info().Int64("bytes", size).Msg("segment prepared after failures")
	}
	if s != nil && old != nil {
		j.setFree(old)
	}
	return again
}

// prepare makes a segment of at least size bytes: all its blocks written, its
// header and its directory entry durable. It reuses a free file, or fills a new
// one with zeros, because overwriting is twice as fast as growing. Without
// segment and error the journal is closing.
func (j *Journal) prepare(size int64) (*segment, error) {
	name, size, f, err := j.blank(size)
	if f == nil {
		return nil, err
	}
	return j.dress(f, name, size)
}

// dress makes a segment of a file that is wholly allocated.
func (j *Journal) dress(f File, name string, size int64) (*segment, error) {
	s := newSegment(j.number, size, j.store)
	path := filepath.Join(j.o.Dir, segmentName(s.number))
	err := f.WriteAt(0, s.header())
	if err == nil {
		err = f.SyncData()
	}
	if err == nil {
		// From here on the number is spent, whatever becomes of the file.
		j.number++
		if err = j.o.FS.Rename(name, path); err == nil {
			name = path
			err = j.o.FS.SyncDir(j.o.Dir)
		}
	}
	if err != nil {
		_ = f.Close()           // its contents do not matter any more
		_ = j.o.FS.Remove(name) // else the next Open does
		return nil, fmt.Errorf("prepare segment: %w", err)
	}
	s.file = f
	return s, nil
}

// blank returns a file of at least size bytes that is wholly allocated.
func (j *Journal) blank(size int64) (string, int64, File, error) {
	if old, ok := j.takeFree(size); ok {
		f, err := j.o.FS.Open(old.name)
		if err == nil {
			return old.name, old.size, f, nil
		}
		j.o.Log.Warn().Err(err).Msg("free file not usable")
		_ = j.o.FS.Remove(old.name) // it was of no use
	}
	name := filepath.Join(j.o.Dir, fmt.Sprintf("%08x.new", j.number))
	f, err := j.o.FS.Create(name)
	if err != nil {
		return "", 0, nil, fmt.Errorf("prepare segment: %w", err)
	}
	done, err := j.zeroFill(f, size)
	if err == nil && done {
		return name, size, f, nil
	}
	_ = f.Close()           // its contents do not matter any more
	_ = j.o.FS.Remove(name) // else the next Open does
	if err != nil {
		return "", 0, nil, fmt.Errorf("prepare segment: %w", err)
	}
	return "", 0, nil, nil
}

// allocator is a File that can reserve its blocks beforehand. Filling it with
// zeros then costs a sixth less, and a full disk is noticed before.
type allocator interface{ allocate(size int64) error }

// zeroFill fills f in steps, keeping twice as far ahead as the current segment
// is full; beyond that it leaves the disk to the commits. It is false when the
// journal closes meanwhile.
func (j *Journal) zeroFill(f File, size int64) (bool, error) {
	if a, ok := f.(allocator); ok {
		if err := a.allocate(size); err != nil {
			return false, err
		}
	}
	var unsynced int64
	for off := int64(0); off < size; {
		n := min(zeroBytes, size-off)
		if err := writeZeros(f, off, n); err != nil {
			return false, err
		}
		off += n
		if unsynced += n; unsynced >= zeroSync || off == size {
			if err := f.SyncData(); err != nil {
				return false, err
			}
			unsynced = 0
		}
		ahead := float64(off)*float64(j.segSize.Load()) > 2*float64(j.used.Load())*float64(size)
		var pause <-chan time.Time
		if ahead && off < size && !j.hurry.Load() && j.segSize.Load() > 0 {
			pause = time.After(zeroPause)
		}
		select {
		case <-j.quit:
			return false, nil
		default:
		}
		if pause != nil {
			<-pause
		}
	}
	return true, nil
}

func writeZeros(f File, off, n int64) error {
	if z, ok := f.(zeroWriter); ok {
		return z.WriteZeros(off, n)
	}
	return f.WriteAt(off, zeros[:n])
}

// takeFree takes the smallest free file that is large enough and not larger
// than a regular segment needs to be.
func (j *Journal) takeFree(size int64) (freeFile, bool) {
	j.tableMu.Lock()
	defer j.tableMu.Unlock()
	best := -1
	for i, f := range j.free {
		if f.size >= size && f.size <= max(size, j.o.SegmentSize) && (best < 0 || f.size < j.free[best].size) {
			best = i
		}
	}
	if best < 0 {
		return freeFile{}, false
	}
	f := j.free[best]
	j.free = append(j.free[:best], j.free[best+1:]...)
	return f, true
}

// setFree turns a prepared segment that is not needed into a free file.
func (j *Journal) setFree(s *segment) {
	_ = s.file.Close() // nothing was written since it was synced
	if err := j.freeSegment(s.number, s.size); err != nil {
		j.o.Log.Warn().Err(err).Msg("segment not freed")
	}
}

// freeSegment takes a segment's file out of the log, for reuse or for good. The
// new name is durable before anybody may overwrite the header. A disk with little
// room gets its blocks back, a full one does not: somebody else might take them,
// and the preparer needs them at once.
func (j *Journal) freeSegment(number uint32, size int64) error {
	path := filepath.Join(j.o.Dir, segmentName(number))
	j.tableMu.Lock()
	full := j.space.full.Load()
	keep := len(j.free) < maxFree && size <= j.o.SegmentSize && (full || !j.space.low.Load())
	j.tableMu.Unlock()
	if !keep {
		if err := j.o.FS.Remove(path); err != nil {
			return err
		}
		return j.o.FS.SyncDir(j.o.Dir)
	}
	name := filepath.Join(j.o.Dir, fmt.Sprintf("%08x.free", number))
	if err := j.o.FS.Rename(path, name); err != nil {
		return err
	}
	if err := j.o.FS.SyncDir(j.o.Dir); err != nil {
		return err
	}
	j.tableMu.Lock()
	j.free = append(j.free, freeFile{name, size})
	j.tableMu.Unlock()
	if full {
		j.mu.Lock()
		j.requestSegment(0)
		j.mu.Unlock()
	}
	return nil
}
