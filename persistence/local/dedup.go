package local

import (
	"encoding/binary"
	"strings"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

const (
	// dedupWindow is how long a repeat is told as a duplicate, in milliseconds.
	dedupWindow = 5 * 60 * 1000
	// dedupMax bounds the window by number: beyond it the oldest are forgotten.
	dedupMax = 1 << 20
)

// dedup remembers the de-duplication keys of the window. It is under the
// append lock. What is too old is dropped when something is added: an idle
// store keeps it and runs no timer for it.
type dedup struct {
	byKey map[string]firstSeen
	order []string // oldest first
	head  int
	base  int // how many were taken off the front of order
}

// firstSeen is the message that had a key first.
type firstSeen struct {
	id   broker.ID
	hash uint64
	time int64
}

// find returns the first message with key in the window that ends now.
func (d *dedup) find(key string, now int64) (firstSeen, bool) {
	f, ok := d.byKey[key]
	return f, ok && now-f.time < dedupWindow
}

// add remembers a message that was stored.
func (d *dedup) add(key string, id broker.ID, hash uint64, now int64) {
	if d.byKey == nil {
		d.byKey = map[string]firstSeen{}
	}
	for d.head < len(d.order) {
		oldest := d.order[d.head]
		if now-d.byKey[oldest].time < dedupWindow && len(d.byKey) < dedupMax {
			break
		}
		delete(d.byKey, oldest)
		d.order[d.head] = ""
		d.head++
	}
	if d.head > 1024 && d.head > len(d.order)/2 {
		d.order = append(d.order[:0:0], d.order[d.head:]...)
		d.base += d.head
		d.head = 0
	}
	if d.byKey[key].id == id && id != (broker.ID{}) {
		return // told by a checkpoint, and now by the log
	}
	key = strings.Clone(key) // the message's bytes may be a large buffer
	d.byKey[key] = firstSeen{id: id, hash: hash, time: now}
	d.order = append(d.order, key)
}

// dedupAtOnce bounds how long the append lock is held while keys are captured.
const dedupAtOnce = 1024

// captureDedup writes the window for a checkpoint, oldest first:
//
//	dedup  (time, id 16 bytes, hash u64, key), again and again
func (s *Store) captureDedup(w *ckptWriter) {
	now := s.milli()
	for at, more := 0, true; more; {
		if s.wal.Lock() != nil {
			return // the store ends, and so does the checkpoint
		}
		d := &s.dedup
		b, n := w.begin(secDedup), 0
		i := max(at-d.base, d.head)
		for ; i < len(d.order) && n < dedupAtOnce; i++ {
			key := d.order[i]
			f, ok := d.byKey[key]
			if !ok || now-f.time >= dedupWindow {
				continue
			}
			b = binary.AppendUvarint(b, uint64(f.time))
			b = binary.LittleEndian.AppendUint64(append(b, f.id[:]...), f.hash)
			b = fields.AppendText(b, key)
			n++
		}
		at, more = d.base+i, i < len(d.order)
		s.wal.Unlock(journal.Lazy, nil)
		if n > 0 {
			w.end(b)
		}
	}
}

// restoreDedup reads keys of the window.
func (s *Store) restoreDedup(f *fields.Reader) error {
	now := s.milli()
	for len(f.Rest) > 0 && !f.Bad {
		at := int64(f.Uint())
		var id broker.ID
		copy(id[:], f.Take(len(id)))
		hash, key := f.Fixed64(), string(f.Bytes())
		if !f.Bad && now-at < dedupWindow {
			s.dedup.add(key, id, hash, at)
		}
	}
	if f.Bad {
		return errRecord
	}
	return nil
}
