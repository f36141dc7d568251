package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// The watermark is a file beside the segments that says up to where the log was
// durable a moment ago. Without it a tail that went missing, be it the last
// commit or whole segments, looks like a log that ended there. It has two slots
// on different pages, written in turn, so that a torn write leaves the other.
const (
	markName  = "watermark"
	markMagic = "MILLMARK"
	markSize  = 64       // of a slot
	markSlot  = pageSize // from one slot to the next
	markFile  = 2 * markSlot
)

// mark is what a slot says.
type mark struct {
	store    storeID
	turn     uint64 // of two valid slots the higher one counts
	position Position
}

// encode returns the slot.
func (m *mark) encode() []byte {
	b := make([]byte, markSize)
	le := binary.LittleEndian
	copy(b, markMagic)
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], m.store[:])
	le.PutUint64(b[32:], m.turn)
	le.PutUint64(b[40:], uint64(m.position))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// decodeMark returns the newer of the valid slots of a whole file.
func decodeMark(name string, b []byte) (newest mark, ok bool, err error) {
	le := binary.LittleEndian
	for at := 0; at+markSize <= len(b); at += markSlot {
		s := b[at : at+markSize]
		if string(s[:8]) != markMagic || le.Uint32(s[60:]) != crc32.Checksum(s[:60], castagnoli) {
			continue
		}
		if v := le.Uint32(s[8:]); v > formatVersion {
			return mark{}, false, &VersionError{File: name, Version: v}
		}
		m := mark{turn: le.Uint64(s[32:]), position: Position(le.Uint64(s[40:]))}
		copy(m.store[:], s[16:])
		if !ok || m.turn > newest.turn {
			newest, ok = m, true
		}
	}
	return newest, ok, nil
}

// watermark is the file while the journal is open. Only one goroutine at a time
// uses it: Open, then the marker, then Close.
type watermark struct {
	last  mark
	found Position      // what it said when it was opened
	file  File          // nil until it is written, and after an error
	warn  bool          // an error was logged, and nothing has succeeded since
	wake  chan struct{} // the durable position has moved
}

// readMark reads the watermark. One that is missing or illegible is no reason
// to refuse a log that is whole: it is made anew.
func (j *Journal) readMark(used bool) error {
	name := filepath.Join(j.o.Dir, markName)
	f, err := j.o.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if used {
			j.o.Log.Warn().Str("file", name).Msg("watermark is missing: a lost tail of the log would not be noticed; it is made anew")
		}
		return nil
	}
	if err != nil {
		return err
	}
	j.mark.file = f
	b := make([]byte, markFile)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", name, err)
	}
	m, ok, err := decodeMark(name, b[:n])
	if err != nil {
		return err
	}
	if !ok {
		j.o.Log.Warn().Str("file", name).Msg("watermark is damaged: a lost tail of the log would not be noticed; it is made anew")
	}
	if j.mark.last, j.mark.found = m, m.position; !ok || n < markFile {
		j.closeMark()
	}
	return nil
}

// checkMark makes sure that the log, which was read, reaches the watermark. A
// record that is bad before it was found when its segment was read; what is
// left is that the segments at the end are missing.
func (j *Journal) checkMark() error {
	m := j.mark.last.position
	if m <= j.recovered {
		return nil
	}
	reason := "the segment is missing, and so is all that follows it"
	if j.recovered == 0 {
		reason += "; the log is empty"
	} else {
		reason += fmt.Sprintf("; the log ends at %s", j.recovered)
	}
	err := j.damage(m.Segment(), 0, fmt.Sprintf("%s and was durable up to %s: at least %d bytes are missing", reason, m, m.Offset()-pageSize))
	if !j.o.AcceptLoss {
		return err
	}
	j.number = max(j.number, m.Segment()+1)
	return j.lost(err, Loss{From: pageSize, To: int64(m.Offset())})
}

// startMark makes the watermark say where the recovered log ends. A full disk
// is no reason not to open.
func (j *Journal) startMark() error {
	if err := j.writeMark(j.recovered); err != nil && !isFull(err) {
		return err
	}
	return nil
}

// keepMark is the marker: a while after a commit it writes the watermark, beside
// the commits that follow. Without commits it has no timer.
func (j *Journal) keepMark() {
	t := time.NewTimer(time.Hour)
	t.Stop() // until it is wanted
	for {
		select {
		case <-j.quit:
			return // Close writes the last one
		case <-j.mark.wake:
		}
		t.Reset(j.o.MarkEvery)
		select {
		case <-j.quit:
			return
		case <-t.C:
		}
		_ = j.writeMark(Position(j.durable.Load())) // logged; an older mark only proves less
	}
}

// writeMark records that the log is durable up to position. After an error
// the file is given up and made anew the next time: its sync is never retried.
func (j *Journal) writeMark(position Position) error {
	w := &j.mark
	if w.file != nil && w.last.position == position {
		return nil
	}
	next := mark{store: j.store, turn: w.last.turn + 1, position: position}
	var err error
	if w.file != nil {
		if err = w.file.WriteAt(int64(next.turn%2)*markSlot, next.encode()); err == nil {
			err = w.file.SyncData()
		}
	} else {
		w.file, err = j.createMark(&next)
	}
	if err == nil {
		w.last, w.warn = next, false
		return nil
	}
	j.closeMark()
	if !w.warn {
		w.warn = true
		j.o.Log.Warn().Err(err).Msg("watermark not written")
	}
	return err
}

// createMark makes the file; the name appears when all of it is durable.
func (j *Journal) createMark(m *mark) (File, error) {
	name := filepath.Join(j.o.Dir, markName)
	f, err := j.o.FS.Create(name + ".new")
	if err != nil {
		return nil, err
	}
	b := make([]byte, markFile)
	copy(b[m.turn%2*markSlot:], m.encode())
	if err = f.WriteAt(0, b); err == nil {
		err = f.SyncData()
	}
	if err == nil {
		err = j.o.FS.Rename(name+".new", name)
	}
	if err == nil {
		err = j.o.FS.SyncDir(j.o.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (j *Journal) closeMark() {
	if j.mark.file != nil {
		_ = j.mark.file.Close() // synced, or of no use
		j.mark.file = nil
	}
}
