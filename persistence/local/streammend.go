package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"millrace/persistence/journal"
)

// stretch is what must be in a file.
type stretch struct {
	end  uint64 // the offset that comes behind it
	size int64  // how much of the file counts
	open bool   // nobody knows how much
}

// mend reads a file from one end to the other. Where messages cannot be read,
// an entry takes their place that readers pass over, and what was there is kept.
// A file of which nothing can be read is damage, and has to be given up.
func (p *partition) mend(f *streamFile, what stretch) error {
	there := f.size
	if !what.open {
		f.size = min(there, what.size)
	}
	at, next, messages := int64(fileHeader), f.base, 0
	last, given := int64(0), int64(0) // time of the message before, and where the newest stretch begins
	for {
		err := f.scan(at, ahead{block: copyBuffer}, func(r *fileRecord) bool {
			if r.at == fileHeader {
				f.time = r.time
			}
			if !r.lost {
				messages++
			}
			at, next, last = r.at+r.size, r.next(), r.time
			return true
		})
		if err == nil && next < what.end {
			err = f.damage(at, "the file is cut off")
		}
		d, ok := errors.AsType[*journal.DamageError](err)
		if !ok {
			return err
		}
		if at == given {
			return fmt.Errorf("%w again, although an entry was written there", d)
		}
		behind := fileRecord{at: max(f.size, what.size, at+fileEntry), offset: what.end, time: last}
		found, err := f.resync(at, next, what.end, &behind)
		if err != nil {
			return err
		}
		if !found && messages == 0 {
			return d
		}
		if messages > 0 && found {
			behind.time = last
		}
		if err := p.giveUpStretch(f, d, at, next, &behind); err != nil {
			return err
		}
		given, f.size = at, max(f.size, behind.at)
	}
}

// resyncMost bounds how many bytes that look like a message are compared with
// their checksum until one is found.
const resyncMost = 1 << 30

// resync looks for a message behind a damaged one, whose offset is more than
// next and less than end. The damaged one is not asked where it ends.
func (f *streamFile) resync(at int64, next, end uint64, r *fileRecord) (bool, error) {
	b, err := f.bytes(at, f.size)
	if err != nil || len(b) < fileEntry {
		return false, err
	}
	le := binary.LittleEndian
	looked := 0
	for i := fileEntry; i <= len(b)-fileEntry && looked < resyncMost; i++ {
		size, offset := int(le.Uint32(b[i:])), le.Uint64(b[i+8:])
		if size < fileEntry || size > len(b)-i || offset <= next || offset >= end {
			continue
		}
		looked += size
		var x fileRecord
		if _, err := f.parse(b[i:], at+int64(i), int64(len(b)-i), &x); err == nil {
			*r = x
			return true, nil
		}
	}
	return false, nil
}

// bytes returns what is in the file between two places.
func (f *streamFile) bytes(from, to int64) ([]byte, error) {
	file, err := f.acquire()
	if err != nil {
		return nil, err
	}
	defer f.release()
	b := make([]byte, max(to-from, 0))
	if _, err := file.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", f.name, err)
	}
	return b, nil
}

// giveUpStretch keeps what is in a file from a place up to behind, reports it,
// and writes what takes its place. A write that did not end leaves damage, which
// the next start with AcceptLoss gives up.
func (p *partition) giveUpStretch(f *streamFile, d *journal.DamageError, at int64, next uint64, behind *fileRecord) error {
	s := p.st.s
	was, err := f.bytes(at, min(f.size, behind.at))
	if err != nil {
		return err
	}
	x := journal.Loss{Damage: *d, From: at, To: behind.at, Kept: fmt.Sprintf("%s-%x", p.keptName(f), at)}
	if err := makeAll(s.files.fs, s.losses.dir); err != nil {
		return err
	}
	if err := writeWhole(s.files.fs, x.Kept, was); err != nil {
		return err
	}
	if err := p.report(x, next, behind.offset); err != nil {
		return err
	}
	file, err := f.acquire()
	if err != nil {
		return err
	}
	defer f.release()
	b := f.appendSized(nil, uint32(behind.at-at)|entryLost, behind.offset, behind.time, nil)
	if short := behind.at - max(f.size, at+fileEntry); short > 0 {
		if err := file.WriteAt(behind.at-short, make([]byte, short)); err != nil {
			return err
		}
	}
	if err := file.WriteAt(at, b); err != nil {
		return err
	}
	return file.SyncData()
}
